"""Workers on a simulated platform, served by this process, and a policy that they meet."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.chain.url import open_chain
from orchestrator.http_server import parse_listen
from orchestrator.quotes.simulated import SimulatedQuoteSource
from orchestrator.simulator import Simulator, create_simulator
from orchestrator.worker import TokenList, TokenScope, WorkerServer, WorkerSettings

from .world import World

SECONDS = 30


def clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class TeeWorker:
    """A worker that is being served; the files hold its tokens by scope."""

    url: str
    token: str
    jobs_token: str


def make_simulator(folder: Path) -> Simulator:
    """A platform in the private folder *folder*."""
    return create_simulator(folder)


def policy_text(simulator: Simulator, *, statuses: str = '"UpToDate"') -> str:
    """A policy that evidence of the simulator meets."""
    found = simulator.guest.measurements()
    assert found.compose_hash is not None
    return f"""version = 1
[roots.other]
simulated = '''
{simulator.root_pem}'''
[[tdx]]
name = "demo 1.0"
mrtd = "{found.mrtd.hex()}"
rtmr0 = "{found.rtmr0.hex()}"
rtmr1 = "{found.rtmr1.hex()}"
rtmr2 = "{found.rtmr2.hex()}"
compose_hash = "{found.compose_hash.hex()}"
[tcb]
statuses = [{statuses}]
"""


@contextlib.contextmanager
def serve_worker(world: World, folder: Path, simulated: Path | None) -> Iterator[TeeWorker]:
    """
    Serve a worker with the chain of *world* in a thread, until the context ends.

    It is on the platform in the folder *simulated*, without which it has no evidence.
    """
    folder.mkdir(mode=0o700)
    tokens = TokenList(folder)
    registration = tokens.add("registrar", TokenScope.REGISTRATION, now=1)
    jobs = tokens.add("orchestrator", TokenScope.JOBS, now=1)
    chain = open_chain(world.settings["chain"])
    settings = WorkerSettings(
        folder=folder,
        tasks=("echo",),
        slots=1,
        contract=world.contract,
        listen=parse_listen("127.0.0.1:0"),
    )
    quotes = None if simulated is None else SimulatedQuoteSource(simulated, clock=clock)
    server = WorkerServer(settings, chain, clock=clock, quotes=quotes)
    urls: list[str] = []
    is_ready = threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def ready(url: str) -> None:
        urls.append(url)
        is_ready.set()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(server.serve(stop=stop, ready=ready))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_ready.wait(SECONDS), "the worker did not start"
        yield TeeWorker(url=urls[0], token=registration, jobs_token=jobs)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        chain.close()
