"""A chain that fails when told: otherwise the chain inside, and each failure as it says."""

import pytest

from orchestrator.chain import Cursor
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.errors import ChainUnavailableError, ContractTrappedError
from orchestrator.models import Mode, Parameters
from orchestrator.testing import LocalAccount
from orchestrator.testing.flaky_chain import Fault, FlakyChain

ADMIN = LocalAccount.named("admin")


def test_without_faults_it_is_the_chain_inside() -> None:
    inside = EmbeddedChain(":memory:")
    chain = FlakyChain(inside, lambda _: None)
    draft = JobProcessor(bytes(32))
    constructor = draft.new(chain.genesis_hash, Parameters())
    deployment = chain.deploy(draft.bundle.code, constructor, signer=ADMIN)
    processor = JobProcessor(deployment.contract)

    assert chain.upload(draft.bundle.code, signer=ADMIN) == deployment.code_hash
    assert chain.code_hash(deployment.contract) == deployment.code_hash
    assert chain.dry_run(processor.mode(), caller=ADMIN.account_id) is Mode.RUNNING
    chain.call(processor.set_mode(Mode.DRAINING), signer=ADMIN)
    chain.batch([processor.set_mode(Mode.RUNNING)], signer=ADMIN)
    assert chain.read(processor.mode()) is Mode.RUNNING
    assert len(chain.events(deployment.contract, after=Cursor(block=0, index=-1)).events) == 2
    assert chain.finalized_head() == inside.finalized_head()
    assert chain.now() <= inside.now()
    assert chain.account(ADMIN.account_id) == inside.account(ADMIN.account_id)
    chain.close()


@pytest.mark.parametrize(
    ("fault", "error", "is_done"),
    [
        (Fault.BEFORE, ChainUnavailableError, False),
        (Fault.AFTER, ChainUnavailableError, True),
        (Fault.TRAP, ContractTrappedError, False),
    ],
)
def test_each_fault_is_what_it_says(fault: Fault, error: type[Exception], is_done: bool) -> None:
    inside = EmbeddedChain(":memory:")
    draft = JobProcessor(bytes(32))
    constructor = draft.new(inside.genesis_hash, Parameters())
    processor = JobProcessor(inside.deploy(draft.bundle.code, constructor, signer=ADMIN).contract)
    chain = FlakyChain(inside, lambda label: fault if label == "set_mode" else None)

    with pytest.raises(error, match="set_mode: as told"):
        chain.call(processor.set_mode(Mode.DRAINING), signer=ADMIN)

    assert (inside.read(processor.mode()) is Mode.DRAINING) == is_done
    chain.close()
