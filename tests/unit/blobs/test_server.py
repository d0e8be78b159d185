"""How blobs are sent: part by part, and only so many at once."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from starlette.applications import Starlette
from starlette.types import Message, Scope

from orchestrator.blobs import BlobStore, server
from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.blobs.server import blob_routes
from orchestrator.testing.blobs import MemoryBlobStore

LARGE = bytes(range(256)) * 4_096  # 1 MiB
SECONDS = 10


class OpenedStore(MemoryBlobStore):
    """Opens blobs, and remembers the files."""

    def __init__(self, file: Callable[[bytes], BinaryIO] = io.BytesIO) -> None:
        super().__init__()
        self.files: list[BinaryIO] = []
        self._file = file

    def open(self, digest: bytes, *, max_bytes: int) -> BinaryIO:
        self.files.append(self._file(self.get(digest, max_bytes=max_bytes)))
        return self.files[-1]


class Reader:
    """One request; takes an answer message by message, each when `take` is released."""

    def __init__(self, store: BlobStore, app: Starlette | None = None) -> None:
        self.app = app or Starlette(routes=blob_routes(store, max_bytes=1 << 20))
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.take = asyncio.Semaphore(0)
        self.gone = asyncio.Event()

    async def ask(self, digest: bytes, method: str = "GET") -> None:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": method,
            "path": f"/v1/blobs/{digest.hex()}",
            "headers": [],
            "query_string": b"",
        }
        async with asyncio.timeout(SECONDS):
            await self.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.take.acquire()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])
        else:
            self.body += message["body"]

    def take_all(self) -> None:
        for _ in range(1_000):
            self.take.release()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)


async def stopped(asking: asyncio.Task[None]) -> None:
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("length", [0, 1, 65_536, 65_537, 1 << 20])
@pytest.mark.parametrize("kind", ["memory", "opened", "directory"])
async def test_a_blob_of_any_length_is_sent_whole(tmp_path: Path, length: int, kind: str) -> None:
    store: BlobStore = DirectoryBlobStore(tmp_path)
    if kind != "directory":
        store = MemoryBlobStore() if kind == "memory" else OpenedStore()
    digest = store.put(LARGE[:length])
    whole, head = Reader(store), Reader(store)
    whole.take_all()
    head.take_all()

    await whole.ask(digest)
    await head.ask(digest, "HEAD")

    assert whole.status == head.status == 200
    assert whole.body == LARGE[:length]
    assert length <= 65_536 or head.body == b""  # of a short one the server drops it
    for reader in (whole, head):
        assert reader.headers[b"content-length"] == b"%d" % length
        assert reader.headers[b"content-type"] == b"application/octet-stream"
        assert b"immutable" in reader.headers[b"cache-control"]


async def test_no_more_is_read_than_was_taken() -> None:
    store = OpenedStore()
    digest = store.put(LARGE)
    reader = Reader(store)
    asking = asyncio.create_task(reader.ask(digest))
    for _ in range(3):  # the head, and two parts
        reader.take.release()

    await until(lambda: len(reader.body) == 131_072 and store.files[0].tell() == 196_608)

    await stopped(asking)
    assert store.files[0].closed


async def test_a_file_is_closed_once_its_reader_is_gone() -> None:
    store = OpenedStore()
    digest = store.put(LARGE)
    reader = Reader(store)
    asking = asyncio.create_task(reader.ask(digest))
    await until(lambda: bool(store.files))

    reader.gone.set()
    await asyncio.gather(asking, return_exceptions=True)

    assert store.files[0].closed


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("length", [1, 1 << 20])
async def test_a_file_is_closed_after_an_answer(method: str, length: int) -> None:
    store = OpenedStore()
    digest = store.put(LARGE[:length])
    reader = Reader(store)
    reader.take_all()

    await reader.ask(digest, method)

    assert [file.closed for file in store.files] == [True]


@pytest.mark.parametrize(
    ("store", "name"),
    [(OpenedStore(), "_SENDING_AT_ONCE"), (MemoryBlobStore(), "_SENDING_WHOLE_AT_ONCE")],
)
async def test_so_many_large_blobs_are_sent_at_once(
    monkeypatch: pytest.MonkeyPatch, store: MemoryBlobStore, name: str
) -> None:
    monkeypatch.setattr(server, name, 2)
    large, small = store.put(LARGE), store.put(b"small")
    first = Reader(store)
    second = Reader(store, first.app)
    asking = [asyncio.create_task(reader.ask(large)) for reader in (first, second)]
    for reader in (first, second):
        reader.take.release()
    await until(lambda: first.status == second.status == 200)

    refused, let = Reader(store, first.app), Reader(store, first.app)
    refused.take_all()
    let.take_all()
    await refused.ask(large)
    await let.ask(small)
    first.take_all()
    await asking[0]
    after = Reader(store, first.app)
    after.take_all()
    await after.ask(large)

    assert (refused.status, refused.headers[b"retry-after"]) == (503, b"1")
    assert let.body == b"small"
    if isinstance(store, OpenedStore):
        # Only the second reader's is open; threads opened the first two in any order.
        assert sorted(file.closed for file in store.files[:2]) == [False, True]
        assert all(file.closed for file in store.files[2:])
    assert first.body == after.body == LARGE
    await stopped(asking[1])


async def test_so_many_blobs_are_opened_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, most = 0, 0

    async def to_thread(call: Callable[..., object], *args: object) -> object:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        await asyncio.sleep(0.01)
        opening -= 1
        return call(*args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    store = OpenedStore()
    digest = store.put(b"small")
    readers = [Reader(store)]
    readers += [Reader(store, readers[0].app) for _ in range(7)]
    asks: list[Awaitable[None]] = []
    for reader in readers:
        reader.take_all()
        asks.append(reader.ask(digest))

    await asyncio.gather(*asks)

    assert [reader.body for reader in readers] == [b"small"] * 8
    assert most == 2


async def test_a_file_that_cannot_be_read_is_a_store_out_of_reach() -> None:
    class Failing(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    store = OpenedStore(Failing)
    digest = store.put(b"small")
    reader = Reader(store)
    reader.take_all()

    await reader.ask(digest)

    assert reader.status == 503
    assert store.files[0].closed
