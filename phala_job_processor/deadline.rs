//! When a deadline has passed: the one comparison that every rule with a time shares.

/// Whether `deadline` has passed at `now`. The deadline itself is still in time.
pub fn has_passed(deadline: u64, now: u64) -> bool {
    now > deadline
}
