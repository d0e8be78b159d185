//! The chain that the node runs: its runtime and its first state.

use sc_service::{ChainSpec, ChainType, GenericChainSpec};
use sp_keyring::Sr25519Keyring;
use std::path::PathBuf;

/// The runtime, which `make node` builds before the node.
const RUNTIME: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/wasm32v1-none/release/devnode_runtime.wasm"
));

/// Return the built-in chain, or the one that the file *id* describes.
pub fn load(id: &str) -> Result<Box<dyn ChainSpec>, String> {
    Ok(Box::new(match id {
        "" | "dev" => development(),
        path => GenericChainSpec::from_json_file(PathBuf::from(path))?,
    }))
}

/// The genesis of `substrate-contracts-node --dev`: Alice to Ferdie and their stashes are rich, and
/// Alice is root.
fn development() -> GenericChainSpec {
    let balances: Vec<_> = Sr25519Keyring::iter()
        .filter(|key| !matches!(key, Sr25519Keyring::One | Sr25519Keyring::Two))
        .map(|key| (key.to_account_id(), 1u64 << 60))
        .collect();
    GenericChainSpec::builder(RUNTIME, None)
        .with_name("Development")
        .with_id("dev")
        .with_chain_type(ChainType::Development)
        .with_genesis_config_patch(serde_json::json!({
            "balances": { "balances": balances },
            "sudo": { "key": Sr25519Keyring::Alice.to_account_id() },
        }))
        .build()
}
