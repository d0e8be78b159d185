"""One world per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.models import Parameters, Role
from orchestrator.testing import deploy_processor
from tests.unit.service.world import ADMIN, MEASUREMENT, OPERATOR, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    chain = EmbeddedChain(":memory:")
    processor = deploy_processor(
        chain,
        admin=ADMIN,
        parameters=Parameters(max_attestation_age=10_000, rate_limit=10_000),
        measurement=MEASUREMENT,
    )
    chain.call(processor.grant_role(OPERATOR.account_id, Role.OPERATOR), signer=ADMIN)
    yield World(
        folder=tmp_path,
        chain=chain,
        processor=processor,
        blobs=DirectoryBlobStore(tmp_path / "blobs", durable=False),
    )
    chain.close()
