//! Lists by number, a bounded piece at a time.

use ink::prelude::vec::Vec;

use crate::ensure::ensure;
use crate::errors::{Error, Result};
use crate::types::Page;

/// The most entries that one page examines.
pub const MAX_LIMIT: u32 = 50;

/// The entries that `get` has for the `limit` numbers from `from` on; gaps are skipped.
///
/// Numbers run from 1 to `total`. At most `limit` numbers are examined, so a page may be empty
/// though there is more; `next` says where to go on.
///
/// # Errors
///
/// `LimitOutOfRange` unless `1 <= limit <= 50`.
pub fn page<T>(
    from: u128,
    limit: u32,
    total: u128,
    get: impl Fn(u128) -> Option<T>,
) -> Result<Page<T>> {
    ensure!((1..=MAX_LIMIT).contains(&limit), Error::LimitOutOfRange);
    let first = from.max(1);
    let end = first.saturating_add(limit.into());
    let mut items = Vec::new();
    for number in first..end {
        if number > total {
            break;
        }
        items.extend(get(number));
    }
    Ok(Page {
        items,
        next: (end <= total).then_some(end),
        total,
    })
}
