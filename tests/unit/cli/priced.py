"""An embedded chain where calls cost money, for commands that show, ask and limit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeVar

from orchestrator.chain import (
    AccountInfo,
    ContractCall,
    Cost,
    Deployment,
    Estimate,
    Receipt,
)
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.spending import SpendingLimits
from orchestrator.errors import ContractError
from orchestrator.models import Account

T = TypeVar("T")

CALL = Cost(fee=1_000, deposit=50_000, ref_time=7, proof_size=8)
DEPLOYMENT = Cost(fee=3_000, deposit=900_000, ref_time=9, proof_size=10)
PAID = 900  # what a call's fee comes to, less than it was to be at most
UPLOAD = 77


class PricedChain(EmbeddedChain):
    """Takes fees and deposits from the balance that every account has at first."""

    balance = 1_000_000_000
    sent: ClassVar[list[str]]
    limits: ClassVar[list[SpendingLimits | None]]

    def __init__(self, path: Path, *, create: bool, spending: SpendingLimits | None) -> None:
        super().__init__(path, create=create)
        self.spending = spending
        type(self).limits.append(spending)

    def account(self, account_id: bytes) -> AccountInfo:
        return replace(super().account(account_id), balance=type(self).balance)

    def estimate(self, call: ContractCall[T], *, caller: bytes) -> Estimate[T]:
        return replace(super().estimate(call, caller=caller), cost=CALL)

    def estimate_deploy(
        self, code: bytes, constructor: ContractCall[None], *, deployer: bytes, salt: bytes = b""
    ) -> Estimate[None]:
        found = super().estimate_deploy(code, constructor, deployer=deployer, salt=salt)
        return replace(found, cost=DEPLOYMENT)

    def deploy(
        self, code: bytes, constructor: ContractCall[None], *, signer: Account, salt: bytes = b""
    ) -> Deployment:
        deployed = super().deploy(code, constructor, signer=signer, salt=salt)
        self._pay("deploy", DEPLOYMENT.fee + DEPLOYMENT.deposit)
        return replace(deployed, fee=DEPLOYMENT.fee, deposit=DEPLOYMENT.deposit)

    def upload(self, code: bytes, *, signer: Account) -> bytes:
        code_hash = super().upload(code, signer=signer)
        self._pay("upload", UPLOAD)
        return code_hash

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        if self.spending is not None:
            self.spending.reserve(CALL, calls=len(calls))
        receipts = super().batch(calls, signer=signer)
        for call in calls:
            self._pay(call.label, PAID + CALL.deposit)
        return [
            replace(receipt, fee=PAID, deposit=_deposit(call))
            if isinstance(receipt, Receipt)
            else receipt
            for call, receipt in zip(calls, receipts, strict=True)
        ]

    def _pay(self, what: str, amount: int) -> None:
        type(self).sent.append(what)
        type(self).balance -= amount


def _deposit(call: ContractCall[T]) -> int:
    return -CALL.deposit if call.label == "purge_job" else CALL.deposit
