"""One suite for every blob store: they all keep the rules of the port."""

import asyncio
import contextlib
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from orchestrator.blobs import BlobStore
from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.blobs.http import HttpBlobStore
from orchestrator.blobs.server import blob_routes
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobError,
    BlobNotFoundError,
    BlobTooLargeError,
    BlobUnavailableError,
    ConfigError,
    DigestMismatchError,
    InputError,
)
from orchestrator.http_server import Listen, serve
from orchestrator.testing import FixedClock
from orchestrator.testing.blobs import MemoryBlobStore
from orchestrator.testing.faulty_http import FaultyHttpServer, HttpFault
from orchestrator.worker.database import Database
from orchestrator.worker.outcomes import WorkerBlobs

MISSING = b"n" * 32


@dataclass
class Subject:
    """A store that is read, and the one that it is written through."""

    store: BlobStore
    written: BlobStore
    damage: Callable[[bytes], object]


class _Server:
    """Routes over a store, served by a thread."""

    def __init__(self, store: BlobStore, *, max_bytes: int = 1 << 20) -> None:
        app = Starlette(routes=blob_routes(store, max_bytes=max_bytes))
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(app)))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self, app: Starlette) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(url: str) -> None:
            self.url = url
            self._ready.set()

        await serve(app, Listen(), stop=self._stop, ready=ready)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture(params=["memory", "directory", "relaxed", "worker", "http"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "memory":
        memory = MemoryBlobStore()
        yield Subject(memory, memory, memory.damage)
    elif request.param == "worker":
        database = Database(tmp_path / "worker.db", bytes(34))
        blobs = WorkerBlobs(database, max_bytes=1 << 20, clock_ms=FixedClock())
        yield Subject(
            blobs,
            blobs,
            lambda _: database.write(
                lambda connection: connection.execute("UPDATE uploads SET data = x'00'")
            ),
        )
        database.close()
    elif request.param == "http":
        behind = MemoryBlobStore()
        server = _Server(behind)
        store = HttpBlobStore(server.url)
        yield Subject(store, behind, behind.damage)
        store.close()
        server.close()
    else:
        directory = DirectoryBlobStore(tmp_path / "blobs", durable=request.param == "directory")

        def damage(digest: bytes) -> object:
            name = digest.hex()
            return (tmp_path / "blobs" / name[:2] / name).write_bytes(b"other")

        yield Subject(directory, directory, damage)


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(range(256)) * 1_000], ids=["none", "one", "many"]
)
def test_what_was_put_is_got_by_its_hash(subject: Subject, data: bytes) -> None:
    digest = subject.written.put(data)

    assert digest == blake2_256(data)
    assert subject.store.has(digest)
    assert subject.store.get(digest, max_bytes=len(data)) == data


def test_putting_twice_is_one_blob(subject: Subject) -> None:
    digest = subject.written.put(b"x")

    assert subject.written.put(b"x") == digest
    subject.written.delete(digest)

    assert not subject.store.has(digest)
    with pytest.raises(BlobNotFoundError):
        subject.store.get(digest, max_bytes=10)
    subject.written.delete(digest)


def test_a_missing_blob_is_not_found(subject: Subject) -> None:
    assert not subject.store.has(MISSING)
    with pytest.raises(BlobNotFoundError, match=MISSING.hex()):
        subject.store.get(MISSING, max_bytes=10)


def test_a_blob_above_the_limit_is_too_large(subject: Subject) -> None:
    digest = subject.written.put(b"12345")

    with pytest.raises(BlobTooLargeError):
        subject.store.get(digest, max_bytes=4)


def test_damaged_bytes_are_never_given_out(subject: Subject) -> None:
    digest = subject.written.put(b"12345")
    subject.damage(digest)

    # A server that looks before it answers says that it has none.
    with pytest.raises((DigestMismatchError, BlobNotFoundError)):
        subject.store.get(digest, max_bytes=10)


def test_many_threads_share_a_store(subject: Subject) -> None:
    def work(number: int) -> None:
        data = b"%d" % (number % 5)
        assert subject.store.get(subject.written.put(data), max_bytes=10) == data

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(subject.store.has(blake2_256(b"%d" % number)) for number in range(5))


def test_a_damaged_file_is_replaced_by_putting_it_again(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    digest = store.put(b"12345")
    place = tmp_path / digest.hex()[:2] / digest.hex()
    for damaged in (b"54321", b"1"):
        place.write_bytes(damaged)

        store.put(b"12345")

        assert store.get(digest, max_bytes=5) == b"12345"


def test_an_opened_blob_is_checked_and_stays_what_it_was(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    digest = store.put(b"12345")
    place = tmp_path / digest.hex()[:2] / digest.hex()

    with store.open(digest, max_bytes=5) as file:
        store.delete(digest)
        assert file.read() == b"12345"
    with pytest.raises(BlobNotFoundError, match=digest.hex()):
        store.open(digest, max_bytes=5)
    place.write_bytes(b"54321")
    with pytest.raises(DigestMismatchError):
        store.open(digest, max_bytes=5)
    with pytest.raises(BlobTooLargeError):
        store.open(digest, max_bytes=4)
    place.unlink()
    place.mkdir()
    with pytest.raises(BlobUnavailableError):
        store.open(digest, max_bytes=5)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryBlobStore(tmp_path)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BlobUnavailableError, match="No space left"):
        store.put(b"12345")

    assert not store.has(blake2_256(b"12345"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_directory_that_is_none_is_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlobUnavailableError, match="file"):
        DirectoryBlobStore(tmp_path / "file" / "blobs")

    store = DirectoryBlobStore(tmp_path / "blobs")
    folder = tmp_path / "blobs" / MISSING.hex()[:2]
    folder.write_text("")
    with pytest.raises(BlobUnavailableError):
        store.get(MISSING, max_bytes=1)
    with pytest.raises(BlobUnavailableError):
        store.delete(MISSING)


def test_a_name_that_is_no_hash_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="digest: 3 bytes, must be 32"):
        DirectoryBlobStore(tmp_path).has(b"../")


def test_a_memory_store_can_be_told_to_fail() -> None:
    store = MemoryBlobStore()
    store.is_available = False

    with pytest.raises(BlobUnavailableError):
        store.put(b"x")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (HttpFault.GARBAGE, DigestMismatchError),
        (HttpFault.NOTHING, BlobUnavailableError),
        (HttpFault.SILENT, BlobUnavailableError),
        (HttpFault.SLOW, BlobUnavailableError),
        (HttpFault.ERROR, BlobUnavailableError),
        (HttpFault.REDIRECT, BlobUnavailableError),
        (HttpFault.ENDLESS, BlobTooLargeError),
        (HttpFault.HUGE, BlobTooLargeError),
        (HttpFault.NOT_HTTP, BlobUnavailableError),
    ],
)
async def test_a_faulty_server_is_a_typed_error(
    fault: HttpFault, expected: type[BlobError]
) -> None:
    server = FaultyHttpServer(fault)
    async with server.serve() as url:
        store = HttpBlobStore(url, timeout_seconds=0.3)
        with pytest.raises(expected):
            await asyncio.to_thread(store.get, MISSING, max_bytes=100_000)
        store.close()

    assert server.requests == 1


@pytest.mark.parametrize("fault", [HttpFault.NOTHING, HttpFault.ERROR, HttpFault.REDIRECT])
async def test_whether_a_faulty_server_has_a_blob_is_unknown(fault: HttpFault) -> None:
    async with FaultyHttpServer(fault).serve() as url:
        store = HttpBlobStore(url, timeout_seconds=0.3)
        with pytest.raises(BlobUnavailableError):
            await asyncio.to_thread(store.has, MISSING)
        store.close()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nx: "], ids=["status", "header"])
def test_a_head_that_drips_ends_with_the_calls_time(start: bytes) -> None:
    done = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(start or b"H")
            while not done.wait(0.05):
                connection.sendall(b"a" if start else b"T")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=[listening])
        thread.start()
        store = HttpBlobStore(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_seconds=0.5)
        started = time.monotonic()
        with pytest.raises(BlobUnavailableError):
            store.get(MISSING, max_bytes=1)
        took = time.monotonic() - started
        store.close()
        done.set()
        thread.join()

    assert took < 5


def test_an_http_store_ends_its_thread_with_itself() -> None:
    before = set(threading.enumerate())
    closed, dropped = HttpBlobStore("http://127.0.0.1:9"), HttpBlobStore("http://127.0.0.1:9")
    for store in (closed, dropped):
        with pytest.raises(BlobUnavailableError):
            store.has(MISSING)
    made = set(threading.enumerate()) - before
    assert len(made) == 2

    closed.close()
    del dropped, store
    gc.collect()  # the errors knew it, too
    for thread in made:
        thread.join(10)

    assert not any(thread.is_alive() for thread in made)


def test_an_http_store_is_read_only() -> None:
    store = HttpBlobStore("http://127.0.0.1:9")

    with pytest.raises(BlobError, match="read-only"):
        store.put(b"x")
    with pytest.raises(BlobError, match="read-only"):
        store.delete(MISSING)
    store.close()


@pytest.mark.parametrize("error", [OverflowError("port"), UnicodeError("label"), ValueError("x")])
def test_what_a_library_says_in_its_own_words_is_unavailable(error: Exception) -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        raise error

    store = HttpBlobStore("http://127.0.0.1:9", transport=httpx.MockTransport(handle))

    with pytest.raises(BlobUnavailableError, match=str(error)):
        store.get(MISSING, max_bytes=1)
    with pytest.raises(BlobUnavailableError, match=str(error)):
        store.has(MISSING)
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "http://",
        "nonsense",
        "http://host:port",
        "file:///x",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://a..b",
        "http://" + "a" * 64 + ".example",
        "http://xn--a",
    ],
)
def test_a_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="blob URL"):
        HttpBlobStore(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:65535", "http://[::1]:1", "http://" + "a" * 63 + ".example."]
)
def test_a_url_at_the_limits_is_one(url: str) -> None:
    HttpBlobStore(url).close()


Authorize = Callable[[Request], Callable[[bytes], object]]


def _client(store: BlobStore, authorize: Authorize | None) -> httpx.AsyncClient:
    app = Starlette(routes=blob_routes(store, max_bytes=10, authorize_put=authorize))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://blobs")


async def test_routes_without_leave_to_write_are_read_only() -> None:
    store = MemoryBlobStore()

    async with _client(store, None) as client:
        answer = await client.put(f"/v1/blobs/{blake2_256(b'x').hex()}", content=b"x")

    assert answer.status_code == 405
    assert not store.has(blake2_256(b"x"))


async def test_routes_say_that_the_store_is_out_of_reach() -> None:
    store = MemoryBlobStore()
    store.is_available = False
    path = f"/v1/blobs/{blake2_256(b'x').hex()}"

    async with _client(store, lambda _: store.put) as client:
        statuses = [
            (await client.get(path)).status_code,
            (await client.put(path, content=b"x")).status_code,
        ]

    assert statuses == [503, 503]


async def test_a_body_without_a_length_is_cut_off_at_the_limit() -> None:
    sent = 0

    async def endless() -> object:
        nonlocal sent
        while sent < 1_000:
            sent += 1
            yield b"xxxx"

    store = MemoryBlobStore()
    async with _client(store, lambda _: store.put) as client:
        answer = await client.put(f"/v1/blobs/{MISSING.hex()}", content=endless())  # type: ignore[arg-type]  # bytes all the same

    assert answer.status_code == 413


async def test_a_body_that_never_ends_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.blobs.server.read_body.__kwdefaults__", {"seconds": 0.05})

    async def slow() -> object:
        yield b"x"
        await asyncio.sleep(30)

    async with _client(MemoryBlobStore(), lambda _: MemoryBlobStore().put) as client:
        answer = await client.put(f"/v1/blobs/{MISSING.hex()}", content=slow())  # type: ignore[arg-type]  # bytes all the same

    assert answer.status_code == 408
