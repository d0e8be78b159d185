"""Put the contract on a chain, and look at it: `contract deploy|info`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.access import READ
from orchestrator.cli.command import command
from orchestrator.cli.output import to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_parameters, shown_parameter
from orchestrator.models import Parameters

app = typer.Typer(help="Put the contract on a chain, and look at it.", no_args_is_help=True)

DEPLOY = (
    "chain",
    "account",
    "account_file",
    "keys",
    "keys_unencrypted",
    "passphrase_file",
    "passphrase_fd",
)


@command(app, "deploy", settings=DEPLOY, group="contract")
def deploy(
    session: Session,
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A limit other than its default; may be repeated."),
    ] = None,
    salt: Annotated[
        str, typer.Option(help="Text that makes another address for the same account.")
    ] = "",
    bundle_file: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="FILE", help="Another build of the contract."),
    ] = None,
) -> None:
    """Deploy the contract that ships with this program; the account becomes its admin."""
    from orchestrator.chain.bundle import load_bundle
    from orchestrator.chain.processor import JobProcessor
    from orchestrator.encoding import to_ss58

    parameters = parse_parameters(parameter or (), Parameters())
    bundle = load_bundle(bundle_file)
    signer = session.signer
    chain = session.chain_to_deploy_on()
    constructor = JobProcessor(bytes(32), bundle).new(chain.genesis_hash, parameters)
    with session.output.progress("Deploying the contract"):
        deployed = chain.deploy(bundle.code, constructor, signer=signer, salt=salt.encode("utf-8"))
    session.output.result(
        {
            "contract": to_ss58(deployed.contract),
            "admin": to_ss58(signer.account_id),
            "code_hash": to_json(deployed.code_hash),
            "genesis_hash": to_json(chain.genesis_hash),
            "block": deployed.block.number,
            "fee": deployed.fee,
        }
    )


@command(app, "info", settings=READ, group="contract")
def info(session: Session) -> None:
    """Print what the contract says about itself; refuses one that is not ours."""
    from orchestrator.encoding import to_ss58

    chain, processor = session.chain, session.processor
    limits = vars(chain.read(processor.parameters()))
    session.output.result(
        {
            "contract": to_ss58(session.contract),
            "version": chain.read(processor.version()),
            "code_hash": to_json(chain.code_hash(session.contract)),
            "genesis_hash": to_json(chain.read(processor.genesis_hash())),
            "mode": chain.read(processor.mode()).value,
            "admin": to_ss58(chain.read(processor.admin())),
            "jobs": chain.read(processor.get_job_counter()),
            "parameters": {
                name: value if session.output.as_json else shown_parameter(name, value)
                for name, value in limits.items()
            },
        }
    )
