"""Workers as processes: started, killed at the worst moment, started again."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.crypto import OwnerSecret, open_result, seal_job
from orchestrator.encoding import blake2_256, decode_output, encode_task_input
from orchestrator.errors import (
    ConfigError,
    InputError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.http_server import Listen
from orchestrator.models import TaskInput
from orchestrator.testing import FixedClock
from orchestrator.worker import TokenList, TokenScope, WorkerServer
from orchestrator.worker.identity import KEYS_FILE
from orchestrator.workers import JobKey, JobRequest, RequestHead, WorkerJobState
from orchestrator.workers.http import HttpWorkerClient
from tests.unit.worker.world import (
    CONTRACT,
    GENESIS,
    MEASUREMENT,
    OWNER,
    development_worker,
    settings_for,
    until,
)

ROOT = Path(__file__).parents[3]


@dataclass
class Process:
    """A running worker."""

    process: subprocess.Popen[str]
    url: str

    def ended(self) -> int:
        return self.process.wait(timeout=20)


@contextlib.contextmanager
def worker(folder: Path, when: str = "never", hold: float = 0) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.worker.run_worker", str(folder), when, str(hold)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Process(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass
class Owner:
    """Whoever sends jobs, across restarts of the worker."""

    folder: Path
    secret: OwnerSecret
    tokens: dict[TokenScope, str]

    @contextlib.asynccontextmanager
    async def client(
        self, url: str, scope: TokenScope = TokenScope.JOBS
    ) -> AsyncIterator[HttpWorkerClient]:
        made = HttpWorkerClient(url, self.tokens[scope])
        try:
            yield made
        finally:
            await made.close()

    async def register(self, url: str) -> None:
        async with self.client(url, TokenScope.REGISTRATION) as client:
            await client.registration(
                genesis=GENESIS,
                contract=CONTRACT,
                measurement=MEASUREMENT,
                evidence_hash=bytes(32),
                valid_until=1,
            )

    async def request(self, url: str, job_id: int = 1) -> JobRequest:
        async with self.client(url) as client:
            key = (await client.identity()).encryption_key
        sealed = seal_job(
            encode_task_input(TaskInput(task="echo", input=b"hello")),
            genesis=GENESIS,
            contract=CONTRACT,
            owner=OWNER,
            secret=self.secret,
            recipients=[key],
        )
        now = time.time_ns() // 1_000_000
        return JobRequest(
            key=JobKey(
                genesis=GENESIS,
                contract=CONTRACT,
                job_id=job_id,
                payload_hash=blake2_256(sealed.envelope),
            ),
            head=RequestHead(
                owner=OWNER,
                public_key=sealed.header.reply_key,
                recipients=(key,),
                created_at=now,
                deadline=now + 600_000,
            ),
            envelope=sealed.envelope,
        )


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    folder = tmp_path / "worker"
    tokens = TokenList(folder)
    return Owner(
        folder=folder,
        secret=OwnerSecret.generate(),
        tokens={scope: tokens.add(scope.value, scope, now=1) for scope in TokenScope},
    )


async def test_killed_right_after_signing_it_signs_the_same_result_again(owner: Owner) -> None:
    with worker(owner.folder, "after_signing") as first:
        await owner.register(first.url)
        request = await owner.request(first.url)
        async with owner.client(first.url) as client:
            await client.put_job(request)
            with pytest.raises(WorkerUnavailableError):
                await client.get_job(request.key, wait_seconds=20)
        assert first.ended() == -signal.SIGKILL
    stored = (owner.folder / "worker.db").read_bytes() + (
        owner.folder / "worker.db-wal"
    ).read_bytes()

    with worker(owner.folder) as second:
        async with owner.client(second.url) as client:
            assert await client.put_job(request) is False
            job = await client.get_job(request.key)
            assert job.state is WorkerJobState.DONE
            assert job.completion is not None
            assert job.completion.result_hash in stored
            result = await client.get_blob(job.completion.result_hash, max_bytes=1 << 20)

    assert decode_output(open_result(result, secret=owner.secret).plaintext) == b"hello"


async def test_killed_after_storing_it_never_executes_again(owner: Owner) -> None:
    with worker(owner.folder, "after_storing") as first:
        await owner.register(first.url)
        request = await owner.request(first.url)
        async with owner.client(first.url) as client:
            await client.put_job(request)
        assert first.ended() == -signal.SIGKILL

    with worker(owner.folder, hold=600) as second:
        async with owner.client(second.url) as client:
            # With this hold an execution would not end, so the outcome is the stored one.
            assert await client.put_job(request) is False
            job = await client.get_job(request.key)

    assert job.state is WorkerJobState.DONE


async def test_killed_before_storing_nothing_is_known_and_the_job_can_run_again(
    owner: Owner,
) -> None:
    with worker(owner.folder, "before_storing") as first:
        await owner.register(first.url)
        request = await owner.request(first.url)
        async with owner.client(first.url) as client:
            await client.put_job(request)
        assert first.ended() == -signal.SIGKILL

    with worker(owner.folder) as second:
        async with owner.client(second.url) as client:
            with pytest.raises(WorkerRefusedError, match="404"):
                await client.get_job(request.key)
            assert await client.put_job(request) is True
            job = await client.get_job(request.key, wait_seconds=20)

    assert job.state is WorkerJobState.DONE


async def test_killed_while_running_the_task_dies_with_it(owner: Owner) -> None:
    with worker(owner.folder, hold=600) as first:
        await owner.register(first.url)
        request = await owner.request(first.url)
        async with owner.client(first.url) as client:
            await client.put_job(request)
            assert (await client.get_job(request.key)).state is WorkerJobState.RUNNING
        forking = children(first.process.pid)
        assert forking
        first.process.kill()
        first.ended()

    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in forking))


async def test_a_signal_ends_it_in_order_and_answers_who_waits(owner: Owner) -> None:
    with worker(owner.folder, hold=600) as running:
        await owner.register(running.url)
        request = await owner.request(running.url)
        async with owner.client(running.url) as client:
            await client.put_job(request)
            poll = asyncio.create_task(client.get_job(request.key, wait_seconds=50))
            await asyncio.sleep(0.1)
            running.process.send_signal(signal.SIGTERM)
            assert (await poll).state is WorkerJobState.RUNNING
        assert running.ended() == 0

    with worker(owner.folder) as again:
        async with owner.client(again.url) as client:
            with pytest.raises(WorkerRefusedError, match="404"):
                await client.get_job(request.key)


async def test_serving_takes_a_stop_and_tells_the_url(tmp_path: Path) -> None:
    server = WorkerServer(settings_for(tmp_path), None, clock=FixedClock())
    stop, urls = asyncio.Event(), []

    def ready(url: str) -> None:
        urls.append(url)
        stop.set()

    await server.serve(stop=stop, ready=ready)

    assert urls[0].startswith("http://127.0.0.1:")
    server.close()


def test_running_ends_with_a_signal(tmp_path: Path) -> None:
    server = WorkerServer(settings_for(tmp_path), None, clock=FixedClock())

    server.run(ready=lambda _: os.kill(os.getpid(), signal.SIGTERM))

    WorkerServer(settings_for(tmp_path), None, clock=FixedClock()).close()


async def test_a_port_in_use_is_bad_input(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = WorkerServer(
            settings_for(tmp_path, listen=Listen(port=port)), None, clock=FixedClock()
        )

        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is in use"):
            await server.serve(stop=asyncio.Event())


def test_two_workers_can_not_share_a_folder(tmp_path: Path) -> None:
    first = WorkerServer(settings_for(tmp_path), None, clock=FixedClock())

    with pytest.raises(InputError, match="another worker works there"):
        WorkerServer(settings_for(tmp_path), None, clock=FixedClock())

    first.close()
    WorkerServer(settings_for(tmp_path), None, clock=FixedClock()).close()


def test_drafts_of_keys_that_a_kill_left_go_with_the_next_start(tmp_path: Path) -> None:
    WorkerServer(settings_for(tmp_path), None, clock=FixedClock()).close()
    keys = (tmp_path / KEYS_FILE).read_bytes()
    draft = tmp_path / f".{KEYS_FILE}.0123456789abcdef"
    draft.write_bytes(keys)
    other = tmp_path / ".tokens.json.0123456789abcdef"  # another process may be writing it
    other.write_bytes(b"")

    server = WorkerServer(settings_for(tmp_path), None, clock=FixedClock())
    is_there = draft.exists()
    draft.write_bytes(keys)
    with pytest.raises(InputError, match="another worker works there"):
        WorkerServer(settings_for(tmp_path), None, clock=FixedClock())

    assert not is_there
    assert draft.exists()  # whose folder it is may be writing it
    assert other.exists()
    assert (tmp_path / KEYS_FILE).read_bytes() == keys
    server.close()


def test_a_draft_of_keys_that_can_not_be_removed_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / f".{KEYS_FILE}.0123456789abcdef").mkdir()

    with pytest.raises(ConfigError, match=KEYS_FILE):
        WorkerServer(settings_for(tmp_path), None, clock=FixedClock())


def test_a_folder_that_can_not_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="file/worker"):
        WorkerServer(settings_for(tmp_path / "file" / "worker"), None, clock=FixedClock())


def test_without_a_chain_it_must_be_told_to_believe_requests(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "worker", unsafe_without_chain=False)

    with pytest.raises(ConfigError, match="chain: missing"):
        WorkerServer(settings, None, clock=FixedClock())

    assert not (tmp_path / "worker").exists()


@pytest.mark.parametrize("changes", [{}, {"unsafe_without_chain": False}])
def test_with_a_chain_it_needs_a_contract_and_believes_no_request(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    chain = EmbeddedChain(":memory:")
    try:
        with pytest.raises(ConfigError, match="chain: needs a contract"):
            WorkerServer(settings_for(tmp_path, **changes), chain, clock=FixedClock())
    finally:
        chain.close()


def test_an_unknown_task_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "worker", tasks=("echo", "nope"))

    with pytest.raises(ConfigError, match="tasks: 'nope', there are echo, onnx"):
        WorkerServer(settings, None, clock=FixedClock())
    assert not settings.folder.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slots", 0),
        ("queue", 0),
        ("queue_bytes", 0),
        ("uploads_bytes", 0),
        ("max_envelope_bytes", 0),
        ("requests_per_second", 0),
        ("request_burst", 0),
        ("developer_hold_seconds", -1),
        ("developer_hold_seconds", 2_592_001),
        ("retention_ms", -1),
    ],
)
def test_a_setting_out_of_range_is_named(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name}: {value}"):
        settings_for(tmp_path, **{name: value})


def test_tasks_that_can_not_be_offered_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = "tests.unit.tasks.odd_tasks"
    references = {
        "echo": "orchestrator.tasks.echo:echo",
        "more": f"{odd}:needs_more",
        "none": f"{odd}:no_task",
    }
    monkeypatch.setattr("orchestrator.worker.server.find_tasks", lambda: references)

    server = WorkerServer(settings_for(tmp_path, tasks=None), None, clock=FixedClock())
    try:
        assert set(server.tasks_not_offered) == {"more", "none"}
        assert "not installed" in server.tasks_not_offered["more"]
    finally:
        server.close()


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    WorkerServer(settings_for(folder), None, clock=FixedClock()).close()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in (KEYS_FILE, "worker.db", "lock"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    folder.chmod(0o750)

    with pytest.raises(ConfigError, match=r"folder: .*mode 0750 lets other users in"):
        WorkerServer(settings_for(folder), None, clock=FixedClock())
    assert list(folder.iterdir()) == []


async def test_outcomes_are_forgotten_after_the_retention_but_not_signed_twice(
    tmp_path: Path,
) -> None:
    """Without a chain only the bytes go: nothing else says that the deadline is the job's own."""
    async with development_worker(tmp_path, retention_ms=1_000) as world:
        request = world.request(world.seal(b"x"))
        job = await world.finish(request)
        assert job.completion is not None
        uploaded = await world.client().put_blob(b"uploaded")

        world.clock.now = request.head.deadline + 1_000
        world.server.prune()
        assert (await world.output(job)) == b"x"

        world.clock.advance(1)
        world.server.prune()
        for digest in (job.completion.result_hash, uploaded):
            async with world.http() as client:
                assert (await client.get(f"/v1/blobs/{digest.hex()}")).status_code == 404
        again = await world.client().get_job(request.key)
        assert again.completion is not None
        assert again.completion.result_hash == job.completion.result_hash
