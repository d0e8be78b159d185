//! The runtime of `contracts-node-runtime` as a Wasm module.
//!
//! Its entry points (`Core_version`, …) are exported because the crate is linked; nothing is added
//! but a panic handler.

#![no_std]

extern crate alloc;

pub use contracts_node_runtime::*;

/// Logs the panic on the node and traps, as the handler of `sp-io` does.
#[cfg(target_family = "wasm")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    sp_io::logging::log(
        sp_core::LogLevel::Error,
        "runtime",
        alloc::format!("{info}").as_bytes(),
    );
    core::arch::wasm32::unreachable()
}
