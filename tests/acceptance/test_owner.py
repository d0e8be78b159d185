"""The example of the README, as a process of its own, with results over HTTP."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.applications import Starlette

import orchestrator
from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.blobs.server import blob_routes
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.crypto import EcdsaSigner
from orchestrator.encoding import to_ss58
from orchestrator.http_server import Listen, serve
from orchestrator.keystore import Keystore, ScryptParameters
from orchestrator.testing.chain import LocalAccount, deploy_processor
from orchestrator.testing.local_worker import LocalWorker

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENT = b"\5" * 32
ADMIN = LocalAccount.named("admin")


@contextmanager
def _served(blobs: DirectoryBlobStore) -> Iterator[str]:
    """Serve the blobs as `orchestrator run` does."""
    app = Starlette(routes=blob_routes(blobs, max_bytes=1 << 20))
    urls: list[str] = []
    is_ready = threading.Event()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    def ready(url: str) -> None:
        urls.append(url)
        is_ready.set()

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await serve(app, Listen(), stop=stop, ready=ready)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert is_ready.wait(30)
    try:
        yield urls[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)


def test_example_of_the_readme(tmp_path: Path) -> None:
    chain = EmbeddedChain(tmp_path / "chain")
    processor = deploy_processor(chain, admin=ADMIN, measurement=MEASUREMENT)
    blobs = DirectoryBlobStore(tmp_path / "blobs", durable=False)
    worker = LocalWorker(
        chain,
        processor,
        signer=EcdsaSigner.generate(),
        registrar=ADMIN,
        measurement=MEASUREMENT,
        blobs=blobs,
    )
    keystore = Keystore(tmp_path / "home" / "keys", scrypt=ScryptParameters(n=1 << 10))
    keystore.new("me", passphrase="my passphrase")
    with _served(blobs) as url:
        process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "examples" / "owner.py"),
                f"local:{tmp_path / 'chain'}",
                to_ss58(processor.contract),
                str(tmp_path / "home"),
                url,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(orchestrator.__file__).parent.parent)},
            # Without a terminal of its own it reads the passphrase from its input.
            start_new_session=True,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write("my passphrase\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while chain.read(processor.get_job_counter()) == 0 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if process.poll() is None:
            chain.call(
                processor.record_attestation(worker.execute(1, lambda task: task.input)),
                signer=ADMIN,
            )
            chain.call(processor.mark_job_processed(1), signer=ADMIN)
        output, errors = process.communicate(timeout=60)
    chain.close()

    assert process.returncode == 0, errors
    assert output.splitlines() == ["JobStatus.PROCESSED", "b'hello'"]
    assert "my passphrase" not in output + errors
