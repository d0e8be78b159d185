"""Whether the worker of the list answers at its endpoint."""

from dataclasses import replace

import pytest

from orchestrator.cli.examination import _ask_worker
from orchestrator.crypto import EcdsaSigner
from orchestrator.errors import WorkerUnavailableError
from orchestrator.models import PublicKey, Worker, WorkerStatus
from orchestrator.workers import WorkerIdentity, http

KEY = EcdsaSigner.generate().public_key
WORKER = Worker(
    worker=1,
    signing_key=KEY,
    encryption_key=b"\1" * 32,
    measurement=b"\2" * 32,
    evidence_hash=b"\3" * 32,
    endpoint=b"http://127.0.0.1:9301",
    registered_at=0,
    valid_until=1,
    status=WorkerStatus.ACTIVE,
)


class Client:
    """A worker's client; `answer` is the key that it shows, or what it raises."""

    answer: PublicKey | Exception = KEY

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def identity(self) -> WorkerIdentity:
        if isinstance(self.answer, Exception):
            raise self.answer
        return WorkerIdentity(
            signing_key=self.answer,
            encryption_key=b"\1" * 32,
            version="0",
            tasks=(),
            slots=1,
            queue=1,
            running=0,
            waiting=0,
            tee=None,
            development=(),
        )

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (KEY, ""),
        (EcdsaSigner.generate().public_key, "another worker answers at its endpoint"),
        (WorkerUnavailableError("no answer"), "no answer"),
    ],
)
async def test_a_worker_is_known_by_its_key(
    monkeypatch: pytest.MonkeyPatch, answer: PublicKey | Exception, trouble: str
) -> None:
    monkeypatch.setattr(http, "HttpWorkerClient", type("Fake", (Client,), {"answer": answer}))

    assert await _ask_worker(WORKER) == trouble


async def test_an_endpoint_that_is_no_url_is_told_of() -> None:
    assert "ftp" in await _ask_worker(replace(WORKER, endpoint=b"ftp://x"))
