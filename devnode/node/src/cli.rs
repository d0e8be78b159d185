//! What the command line says.

use crate::{chain, service::Sealing};
use sc_cli::{RunCmd, SubstrateCli};
use sc_service::ChainSpec;
use std::time::Duration;

/// A development chain with pallet-contracts: one block per transaction unless a flag says
/// otherwise.
///
/// Without --chain the chain is the built-in one (--dev), and temporary unless --base-path names a
/// folder.
#[derive(Debug, clap::Parser)]
pub struct Cli {
    #[command(flatten)]
    pub run: RunCmd,

    /// Seconds before a block is final; not with --manual-seal.
    #[arg(long, value_name = "N", default_value_t = 1)]
    finalize_delay_sec: u64,

    /// One block every MS milliseconds instead of one block per transaction.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    block_time: Option<u64>,

    /// Blocks only by the engine_createBlock RPC (with a parent of choice: forks), finality only by
    /// engine_finalizeBlock.
    #[arg(long, conflicts_with = "block_time")]
    manual_seal: bool,
}

impl Cli {
    /// The development chain unless `--chain` names another one, and a log without a line per block
    /// unless `--log` asks for more.
    pub fn with_defaults(mut self) -> Self {
        let shared = &mut self.run.shared_params;
        shared.dev |= shared.chain.is_none();
        if shared.log.is_empty() {
            // The address of the RPC server is what whoever starts the node looks for.
            shared.log = ["warn", "sc_cli=info", "sc_rpc_server=info"]
                .map(String::from)
                .into();
        }
        self
    }

    pub fn sealing(&self) -> Sealing {
        let finalize_delay_seconds = self.finalize_delay_sec;
        match self.block_time {
            _ if self.manual_seal => Sealing::Manual,
            Some(ms) => Sealing::Timed {
                block_time: Duration::from_millis(ms),
                finalize_delay_seconds,
            },
            None => Sealing::Instant {
                finalize_delay_seconds,
            },
        }
    }
}

impl SubstrateCli for Cli {
    fn impl_name() -> String {
        env!("CARGO_PKG_NAME").into()
    }

    fn impl_version() -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn description() -> String {
        env!("CARGO_PKG_DESCRIPTION").into()
    }

    fn author() -> String {
        "the authors of phala-jobs".into()
    }

    fn support_url() -> String {
        "devnode/README.md".into()
    }

    fn copyright_start_year() -> i32 {
        2026
    }

    fn load_spec(&self, id: &str) -> Result<Box<dyn ChainSpec>, String> {
        chain::load(id)
    }
}
