//! The contract's limits and the bounds within which the admin may set them.

use core::ops::RangeInclusive;

use crate::ensure::ensure;
use crate::errors::{Error, Result};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 86_400_000;
const GIB: u64 = 1_073_741_824;
const TIB: u64 = 1_099_511_627_776;

// Bounds of protocol 2.4. A payload, its row's arguments and a storage key share ink!'s 16 KiB
// buffer, hence the upper bound of `max_payload`.
const MAX_PAYLOAD: RangeInclusive<u32> = 256..=12_288;
const MAX_REFERENCE: RangeInclusive<u64> = 1..=TIB;
const TTL: RangeInclusive<u64> = 10_000..=2_592_000_000;
const RATE_LIMIT: RangeInclusive<u32> = 1..=1_000_000;
const RATE_WINDOW: RangeInclusive<u64> = SECOND..=DAY;
const MAX_ATTESTATION_AGE: RangeInclusive<u64> = SECOND..=DAY;
const MAX_CLOCK_SKEW: RangeInclusive<u64> = 0..=600_000;
const MAX_REGISTRATION: RangeInclusive<u64> = HOUR..=31_536_000_000;
const MARK_GRACE: RangeInclusive<u64> = MINUTE..=604_800_000;

/// The contract's limits: bytes, milliseconds, counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[ink::scale_derive(Encode, Decode, TypeInfo)]
#[cfg_attr(feature = "std", derive(ink::storage::traits::StorageLayout))]
pub struct Parameters {
    /// The longest inline payload in bytes.
    pub max_payload: u32,
    /// The longest referenced payload in bytes.
    pub max_reference: u64,
    /// The shortest time to live of a job.
    pub min_ttl: u64,
    /// The longest time to live of a job.
    pub max_ttl: u64,
    /// How many jobs an account may submit per window.
    pub rate_limit: u32,
    /// How long an account's window is.
    pub rate_window: u64,
    /// How old a statement may be when it is recorded.
    pub max_attestation_age: u64,
    /// How far a worker's clock may be off.
    pub max_clock_skew: u64,
    /// How far ahead a worker's registration may reach.
    pub max_registration: u64,
    /// How long an attested job waits to be marked before its owner may leave.
    pub mark_grace: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            max_payload: 8_192,
            max_reference: GIB,
            min_ttl: MINUTE,
            max_ttl: 604_800_000,
            rate_limit: 60,
            rate_window: HOUR,
            max_attestation_age: 600_000,
            max_clock_skew: MINUTE,
            max_registration: 2_592_000_000,
            mark_grace: HOUR,
        }
    }
}

impl Parameters {
    /// Checks every bound of protocol 2.4.
    ///
    /// # Errors
    ///
    /// `ParameterOutOfRange` if one is outside its bounds, or `min_ttl` exceeds `max_ttl`.
    pub fn ensure_in_bounds(&self) -> Result<()> {
        ensure!(
            MAX_PAYLOAD.contains(&self.max_payload)
                && MAX_REFERENCE.contains(&self.max_reference)
                && TTL.contains(&self.min_ttl)
                && TTL.contains(&self.max_ttl)
                && self.min_ttl <= self.max_ttl
                && RATE_LIMIT.contains(&self.rate_limit)
                && RATE_WINDOW.contains(&self.rate_window)
                && MAX_ATTESTATION_AGE.contains(&self.max_attestation_age)
                && MAX_CLOCK_SKEW.contains(&self.max_clock_skew)
                && MAX_REGISTRATION.contains(&self.max_registration)
                && MARK_GRACE.contains(&self.mark_grace),
            Error::ParameterOutOfRange,
        );
        Ok(())
    }
}
