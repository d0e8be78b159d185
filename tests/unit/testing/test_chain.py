"""The stand-ins for tests do what they say."""

import pytest

from orchestrator import testing
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.crypto.keys import Sr25519Signer
from orchestrator.errors import InputError
from orchestrator.models import Mode, Parameters, Role, WorkerStatus
from orchestrator.testing import (
    FixedClock,
    LocalAccount,
    deploy_processor,
    register_test_worker,
)

ADMIN = LocalAccount.named("admin")
OTHER = LocalAccount.named("other")


def test_public_names_are_sorted() -> None:
    assert list(testing.__all__) == sorted(testing.__all__)


def test_a_fixed_clock_stands_still() -> None:
    clock = FixedClock()
    before = clock()
    assert clock() == before

    clock.advance(5)

    assert clock() == before + 5


def test_accounts_by_name_have_no_key() -> None:
    assert LocalAccount.named("a").account_id == LocalAccount.named("a").account_id
    assert LocalAccount.named("a") != LocalAccount.named("b")
    with pytest.raises(InputError, match="has no key"):
        ADMIN.sign(b"message")


def test_the_admin_has_every_role_unless_told_otherwise() -> None:
    chain = EmbeddedChain(":memory:")

    processor = deploy_processor(chain, admin=ADMIN, measurement=b"\1" * 32)

    assert all(chain.read(processor.has_role(ADMIN.account_id, role)) for role in Role)
    assert chain.read(processor.has_measurement(b"\1" * 32))
    assert chain.read(processor.mode()) is Mode.RUNNING
    chain.close()


def test_roles_mode_and_parameters_as_asked_for() -> None:
    chain = EmbeddedChain(":memory:")

    processor = deploy_processor(
        chain,
        admin=ADMIN,
        parameters=Parameters(rate_limit=3),
        mode=Mode.DRAINING,
        roles={Role.REGISTRAR: OTHER},
        measurement=b"\1" * 32,
        salt=b"7",
    )

    assert chain.read(processor.has_role(OTHER.account_id, Role.REGISTRAR))
    assert not chain.read(processor.has_role(ADMIN.account_id, Role.REGISTRAR))
    assert chain.read(processor.parameters()).rate_limit == 3
    assert chain.read(processor.mode()) is Mode.DRAINING
    chain.close()


def test_a_registered_worker_is_trusted() -> None:
    chain = EmbeddedChain(":memory:")
    processor = deploy_processor(chain, admin=ADMIN, measurement=b"\1" * 32)
    signer = Sr25519Signer.generate()

    worker = register_test_worker(
        chain,
        processor,
        signer,
        registrar=ADMIN,
        measurement=b"\1" * 32,
        encryption_key=b"\2" * 32,
        endpoint=b"http://127.0.0.1:8000",
        valid_for=3_600_000,
    )

    found = chain.read(processor.worker_by_key(signer.public_key))
    assert found is not None
    assert found == chain.read(processor.get_worker(worker))
    assert (found.status, found.encryption_key) == (WorkerStatus.ACTIVE, b"\2" * 32)
    assert found.endpoint == b"http://127.0.0.1:8000"
    assert chain.read(processor.is_trusted(worker))
    page = chain.read(processor.workers_page(1, 10))
    assert page.items == (found,)
    chain.close()
