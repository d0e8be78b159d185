//! A development node: one process, one chain of its own, blocks when they are wanted.

mod chain;
mod cli;
mod interface;
mod service;

use cli::Cli;
use sc_cli::SubstrateCli;

fn main() -> sc_cli::Result<()> {
    let cli = Cli::from_args().with_defaults();
    let sealing = cli.sealing();
    cli.create_runner(&cli.run)?
        .run_node_until_exit(|config| async move { Ok(service::start(config, sealing)?) })
}
