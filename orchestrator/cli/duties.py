"""
Which role the account of a service needs, and which it must not have beside it.

One stolen key must not both admit workers and mark jobs.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import RefusedError

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.models import Role

CombinedRoles = Annotated[
    bool,
    typer.Option(
        "--allow-combined-roles",
        help="Start although the account may both admit workers and mark jobs.",
    ),
]


def warn_of_combined_roles(session: "Session", role: "Role", *, never_with: "Role") -> None:
    """
    Say so where an account that uses *role* by hand has *never_with* too.

    Who sits before it may well be an admin with all roles, in development above all. A service is
    refused: its key lies on a machine that workers and owners talk to.
    """
    from orchestrator.encoding import to_ss58

    account = session.signer.account_id
    if session.chain.read(session.processor.has_role(account, never_with)):
        session.output.say(
            f"warning: account {to_ss58(account)} has role {never_with.value} beside {role.value}:"
            " whoever steals its key could both admit workers and mark jobs"
        )


def require_duty(
    session: "Session", role: "Role", *, never_with: "Role", allow_combined: bool
) -> None:
    """
    Refuse an account that can't do the service's work, or that could do the other service's too.

    Raises:
        RefusedError: It does not have *role*, or has *never_with*.
    """
    from orchestrator.encoding import to_ss58

    account = session.signer.account_id
    name = to_ss58(account)
    if not session.chain.read(session.processor.has_role(account, role)):
        raise RefusedError(
            "MissingRole",
            f"account {name} has no role {role.value} at this contract; the admin runs:"
            f" phala-jobs roles grant {name} {role.value.lower()}",
        )
    if allow_combined or not session.chain.read(session.processor.has_role(account, never_with)):
        return
    raise RefusedError(
        "CombinedRoles",
        f"account {name} has role {never_with.value} beside {role.value}: whoever steals its key"
        " could both admit workers and mark jobs. Use two accounts, or give"
        " --allow-combined-roles",
    )
