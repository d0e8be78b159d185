"""Put the contract on a chain, look at it, replace its code: `contract deploy|info|upgrade`."""

from typing import Annotated

import typer

from orchestrator.cli.access import READ, SEND
from orchestrator.cli.command import command
from orchestrator.cli.costs import confirm, cost_document, require_funds
from orchestrator.cli.output import to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_parameters, shown_parameter
from orchestrator.errors import InputError
from orchestrator.models import Mode, Parameters

app = typer.Typer(
    help="Put the contract on a chain, look at it, replace its code.", no_args_is_help=True
)

DEPLOY = tuple(name for name in SEND if name != "contract")
UPGRADE = (*SEND, "client")

YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Spend what it costs without being asked.")
]


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
    yes: YesOption = False,
) -> None:
    """
    Deploy the contract that ships with this program; the account becomes its admin.

    Where that costs money it says how much, and asks.
    """
    from orchestrator.chain.processor import JobProcessor
    from orchestrator.encoding import to_ss58

    parameters = parse_parameters(parameter or (), Parameters())
    bundle, signer = session.bundle, session.signer
    session.create_chain()
    chain, salted = session.chain, salt.encode("utf-8")
    constructor = JobProcessor(bytes(32), bundle).new(chain.genesis_hash, parameters)
    try:
        cost = chain.estimate_deploy(
            bundle.code, constructor, deployer=signer.account_id, salt=salted
        ).cost
    except InputError as error:
        if not str(error).startswith("salt:"):
            raise
        raise InputError(f"{error}; --salt TEXT makes another") from error
    balance = require_funds(session, cost, signer.account_id)
    confirm(session, "Deploying the contract", cost, balance=balance, yes=yes)
    with session.output.progress("Deploying the contract"):
        deployed = chain.deploy(bundle.code, constructor, signer=signer, salt=salted)
    session.paid.add_amounts(deployed.fee, deployed.deposit)
    session.say_paid()
    session.output.result(
        {
            "contract": to_ss58(deployed.contract),
            "admin": to_ss58(signer.account_id),
            "code_hash": to_json(deployed.code_hash),
            "genesis_hash": to_json(chain.genesis_hash),
            "block": deployed.block.number,
            **session.paid_document(),
            **(
                {"estimate": cost_document(cost, balance=balance)} if session.output.as_json else {}
            ),
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


@command(app, "upgrade", settings=UPGRADE, group="contract")
def upgrade(
    session: Session,
    then: Annotated[
        Mode | None,
        typer.Option(
            case_sensitive=False,
            help="The mode afterwards; the one before, when none is named.",
            show_default=False,
        ),
    ] = None,
    yes: YesOption = False,
) -> None:
    """
    Replace the contract's code by the build of this program, or of --bundle. Admin only.

    Jobs, workers and everything else stay. It halts the contract, uploads the code, sets it, checks
    that what is stored reads as before, and resumes the mode from before. Run it again when it was
    interrupted: it goes on where it was. Where it costs money it says how much, and asks.
    """
    from orchestrator.cli.upgrade import Upgrade

    upgrading = Upgrade(session, then=then)
    plan = upgrading.plan()
    if plan is None:
        session.output.say("nothing to do: it runs this build already")
    else:
        balance = require_funds(session, plan.cost, session.signer.account_id)
        confirm(session, "The upgrade", plan.cost, balance=balance, yes=yes)
    session.output.result(upgrading.carry_out(plan))
