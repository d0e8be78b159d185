"""A stand-in for a node: an embedded chain that judges each call twice, as a node does."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from orchestrator.chain import Block, ContractCall, Receipt
from orchestrator.errors import ContractError
from orchestrator.models import Account
from orchestrator.testing.mirror_chain import MirrorChain

T = TypeVar("T")

_START = 1_767_225_600_000


class StandIn(MirrorChain):
    """
    A chain that dry-runs each call at its last block's time and makes a block some time later.

    What the dry run refuses is not sent; what it returned is what a receipt is made of. Times are
    drawn, so a run takes as long as it computes.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng.randbytes(32), time=_START)
        self._rng = rng

    def dry_run(self, call: ContractCall[T], *, caller: bytes) -> T:
        self.time = self.finalized_head().timestamp
        return super().dry_run(call, caller=caller)

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        results: dict[int, Receipt[T] | ContractError] = {}
        foreseen: dict[int, T] = {}
        for number, call in enumerate(calls):
            try:
                foreseen[number] = self.dry_run(call, caller=signer.account_id)
            except ContractError as error:
                results[number] = error
        sent = list(foreseen)
        self.time += self._rng.randint(5, 400)
        made = super().batch([calls[number] for number in sent], signer=signer)
        if sent and not any(isinstance(result, Receipt) for result in made):
            self._make_block(signer)
        for number, result in zip(sent, made, strict=True):
            if isinstance(result, ContractError):
                results[number] = self._reason(calls[number], signer)
            else:
                value = calls[number].settle(foreseen[number], result.events)
                results[number] = replace(result, value=value)
        return [results[number] for number in range(len(calls))]

    def _make_block(self, signer: Account) -> None:
        """Make a block that changes nothing, as a node does when all in it is refused."""
        with self._state.writing():
            head = self._state.head()
            self._seal(head, self._time(head), signer.account_id, [])

    def _reason(self, call: ContractCall[T], signer: Account) -> ContractError:
        """Return why a call was refused in its block, as far as can be told after it."""
        try:
            self.dry_run(call, caller=signer.account_id)
        except ContractError as error:
            return error
        return ContractError("Reverted")

    def cells_at(self, contract: bytes, _block: Block) -> dict[bytes, bytes]:
        """Return the cells of a contract; there is no looking back here."""
        return self.cells(contract)
