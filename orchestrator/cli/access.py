"""Who may do what at the contract: roles, mode, parameters, admin, and one's own account."""

from typing import Annotated

import typer

from orchestrator.cli.command import command
from orchestrator.cli.output import to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_account, parse_parameters, shown_bounds, shown_parameter
from orchestrator.errors import ContractError
from orchestrator.models import Mode, Parameters, Role

roles = typer.Typer(help="Roles of accounts at the contract.", no_args_is_help=True)
mode = typer.Typer(help="Whether the contract takes and records jobs.", no_args_is_help=True)
parameters = typer.Typer(help="The contract's limits.", no_args_is_help=True)
admin = typer.Typer(help="Hand the contract over, in two steps.", no_args_is_help=True)
account = typer.Typer(help="One's own account at the contract.", no_args_is_help=True)

LIMITS = ("max_fee_per_call", "max_spend_per_day", "spending_file")
READ = ("chain", "contract", "bundle")
SEND = (
    *READ,
    *LIMITS,
    "account",
    "account_file",
    "keys",
    "keys_unencrypted",
    "passphrase_file",
    "passphrase_fd",
)

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="SS58, or 0x and hex.")]
FromBlock = Annotated[
    int, typer.Option(metavar="BLOCK", min=0, help="The first block whose events are looked at.")
]
RoleArgument = Annotated[Role, typer.Argument(metavar="ROLE", case_sensitive=False)]


@command(roles, "grant", settings=SEND, group="roles")
def grant(session: Session, account: AccountArgument, role: RoleArgument) -> None:
    """Give an account a role: Registrar, Operator or Guardian. Admin only."""
    who = parse_account("account", account)
    session.send(session.processor.grant_role(who, role), f"Granting {role.value}")
    session.output.result({"account": account, "role": role.value, "granted": True})


@command(roles, "revoke", settings=SEND, group="roles")
def revoke(session: Session, account: AccountArgument, role: RoleArgument) -> None:
    """Take a role from an account. Admin only."""
    who = parse_account("account", account)
    session.send(session.processor.revoke_role(who, role), f"Revoking {role.value}")
    session.output.result({"account": account, "role": role.value, "granted": False})


@command(roles, "list", settings=READ, group="roles")
def list_roles(session: Session, from_block: FromBlock = 0) -> None:
    """
    List the accounts that have roles, from the contract's events, each asked again.

    What was granted before --from-block is not listed.
    """
    from orchestrator.encoding import to_ss58

    seen: dict[tuple[bytes, Role], None] = {}
    for event in session.events(first_block=from_block):
        if event.name == "RoleGranted":
            who, role = event.fields["account"], event.fields["role"]
            if isinstance(who, bytes) and isinstance(role, Role):
                seen[who, role] = None
    held = [
        {"account": to_ss58(who), "role": role.value}
        for who, role in seen
        if session.chain.read(session.processor.has_role(who, role))
    ]
    session.output.rows("roles", held)


@command(mode, "show", settings=READ, group="mode")
def show_mode(session: Session) -> None:
    """Print the mode: Running, Draining (no new jobs) or Halted."""
    session.output.result({"mode": session.chain.read(session.processor.mode()).value})


@command(mode, "set", settings=SEND, group="mode")
def set_mode(
    session: Session, mode: Annotated[Mode, typer.Argument(metavar="MODE", case_sensitive=False)]
) -> None:
    """Set the mode. The admin may choose any, a Guardian only a stricter one (Halted is last)."""
    session.send(session.processor.set_mode(mode), f"Setting mode {mode.value}")
    session.output.result({"mode": mode.value})


@command(parameters, "show", settings=READ, group="parameters")
def show_parameters(session: Session) -> None:
    """Print the contract's limits; with --json times are milliseconds."""
    _show(session, session.chain.read(session.processor.parameters()))


def _show(session: Session, limits: Parameters) -> None:
    if session.output.as_json:
        session.output.result({name: to_json(value) for name, value in vars(limits).items()})
        return
    session.output.result({name: shown_parameter(name, v) for name, v in vars(limits).items()})


@command(parameters, "set", settings=SEND, group="parameters")
def set_parameters(
    session: Session,
    assignments: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...")],
) -> None:
    """Change limits, such as `rate_limit=100 max_ttl=2d`; the others stay. Admin only."""
    current = session.chain.read(session.processor.parameters())
    changed = parse_parameters(assignments, current)
    try:
        session.send(session.processor.set_parameters(changed), "Setting parameters")
    except ContractError as refusal:
        if refusal.variant != "ParameterOutOfRange":
            raise
        bounds = shown_bounds({assignment.partition("=")[0] for assignment in assignments})
        raise ContractError(refusal.variant, f"{bounds}; min_ttl is at most max_ttl") from refusal
    _show(session, changed)


@command(admin, "propose", settings=SEND, group="admin")
def propose(session: Session, account: AccountArgument) -> None:
    """Propose another admin, who has to accept. Admin only."""
    who = parse_account("account", account)
    session.send(session.processor.propose_admin(who), "Proposing the next admin")
    session.output.result({"proposed_admin": account})


@command(admin, "accept", settings=SEND, group="admin")
def accept(session: Session) -> None:
    """Become the admin, once proposed."""
    from orchestrator.encoding import to_ss58

    session.send(session.processor.accept_admin(), "Accepting")
    session.output.result({"admin": to_ss58(session.signer.account_id)})


@command(account, "release", settings=SEND, group="account")
def release(session: Session) -> None:
    """
    Free what the contract keeps of one's own account.

    It must have no live job, and its rate window must be over.
    """
    from orchestrator.encoding import to_ss58

    session.send(session.processor.release_account(), "Releasing the account")
    session.output.result({"released": to_ss58(session.signer.account_id)})
