//! Prints the ink! metadata of the contract as JSON.
//!
//! Must be built with `-Clink-dead-code`: events and types register themselves in link sections
//! that nothing refers to, and the linker drops them otherwise.

// Only linked: the contract is reached through the symbol below.
use phala_job_processor as _;

extern "Rust" {
    /// Made by `#[ink::contract]` for every contract that is built with the feature `std`.
    fn __ink_generate_metadata() -> ink::metadata::InkProject;
}

fn main() -> Result<(), serde_json::Error> {
    // SAFETY: the symbol is a plain Rust function without arguments and without preconditions, and
    // it comes from the ink! version that this crate names too.
    let project = unsafe { __ink_generate_metadata() };
    println!("{}", serde_json::to_string_pretty(&project)?);
    Ok(())
}
