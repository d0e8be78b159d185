"""
What a command costs: shown before, compared with what the account has, asked about, shown after.

Amounts are planck, the chain's smallest unit of money. A deposit is money that the chain holds for
storage and gives back when the storage is freed.
"""

import sys
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.output import Document
from orchestrator.errors import (
    ChainUnavailableError,
    InputError,
    InsufficientFundsError,
    RefusedError,
)

if TYPE_CHECKING:
    from orchestrator.chain import Cost, Receipt
    from orchestrator.cli.session import Session


class Paid:
    """What the calls of one command have cost so far."""

    def __init__(self) -> None:
        self.calls = 0
        self.fee = 0
        self.deposit = 0

    def add(self, receipt: "Receipt[object]") -> None:
        """Count a call that was made."""
        self.add_amounts(receipt.fee, receipt.deposit)

    def add_amounts(self, fee: int, deposit: int) -> None:
        """Count a fee and a deposit."""
        self.calls += 1
        self.fee += fee
        self.deposit += deposit

    def document(self) -> Document:
        """The sums for JSON, null when nothing was sent."""
        return {
            "fee": self.fee if self.calls else None,
            "deposit": self.deposit if self.calls else None,
        }

    def words(self, *, returned: str = "") -> str:
        """The sums for people, empty for none; *returned* says what returns a deposit."""
        parts = []
        if self.fee:
            parts.append(f"paid a fee of {planck(self.fee)}")
        if self.deposit > 0:
            parts.append(f"a deposit of {planck(self.deposit)} is held{returned}")
        if self.deposit < 0:
            parts.append(f"a deposit of {planck(-self.deposit)} came back")
        return "; ".join(parts)


def planck(amount: int) -> str:
    """An amount of money for people."""
    return f"{amount:,} planck"


def cost_document(cost: "Cost | None", *, balance: int | None) -> Document:
    """An estimate for JSON; all is null where there is no money."""
    return {
        "fee_at_most": cost.fee if cost else None,
        "deposit": cost.deposit if cost else None,
        "ref_time": cost.ref_time if cost else None,
        "proof_size": cost.proof_size if cost else None,
        "balance": balance,
    }


def cost_words(cost: "Cost | None", *, balance: int | None) -> str:
    """An estimate for people."""
    if cost is None:
        return "costs nothing: this chain has no money"
    text = f"costs a fee of at most {planck(cost.fee)}"
    if cost.deposit > 0:
        text += f" and a deposit of {planck(cost.deposit)}"
    if cost.deposit < 0:
        text += f" and returns a deposit of {planck(-cost.deposit)}"
    return text if balance is None else f"{text}; the account has {planck(balance)}"


def require_funds(session: "Session", cost: "Cost | None", account: bytes) -> int | None:
    """
    Return what the account has, once it is enough; `None` where there is no money.

    Raises:
        InsufficientFundsError: It is not.
    """
    from orchestrator.encoding import to_ss58

    balance = session.chain.account(account).balance
    needed = 0 if cost is None else cost.fee + max(cost.deposit, 0)
    if balance is not None and balance < needed:
        raise InsufficientFundsError(
            f"account {to_ss58(account)} has {planck(balance)}, and up to {planck(needed)} are"
            " needed; nothing was sent"
        )
    return balance


def explained(
    session: "Session", error: InsufficientFundsError, account: bytes
) -> InsufficientFundsError:
    """The refusal with the account and what it has, which a chain does not always say."""
    from orchestrator.encoding import to_ss58

    name = to_ss58(account)
    try:
        balance = session.chain.account(account).balance
    except ChainUnavailableError:
        balance = None
    if balance is None:
        return error
    who = "it" if name in str(error) else f"account {name}"
    return InsufficientFundsError(f"{error}; {who} has {planck(balance)}")


def confirm(
    session: "Session", what: str, cost: "Cost | None", *, balance: int | None, yes: bool
) -> None:
    """
    Ask whether *what* may cost that much; nothing is asked where there is no money.

    Raises:
        InputError: There is nobody to ask.
        RefusedError: The answer is no.
    """
    if cost is None:
        return
    session.output.say(f"{what} {cost_words(cost, balance=balance)}.")
    if yes:
        return
    if not is_interactive():
        raise InputError(
            "yes: there is no terminal to ask at whether to spend this; give --yes. Nothing was"
            " sent"
        )
    if not typer.confirm("Go on?", err=True):
        raise RefusedError("NotConfirmed", "nothing was sent")


def is_interactive() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin.isatty()
