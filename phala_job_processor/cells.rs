//! Mappings without `&mut`.

use ink::storage::traits::{Packed, StorageKey};
use ink::storage::Mapping;

/// The same cells under another handle; a `Mapping` holds nothing itself.
///
/// A message that writes only through this takes `&self`: it leaves the contract's own cell as it
/// is, which need not be written back then.
pub fn cells_of<K: Packed, V: Packed, Key: StorageKey>(
    _: &Mapping<K, V, Key>,
) -> Mapping<K, V, Key> {
    Mapping::new()
}
