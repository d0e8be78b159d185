"""Look at a chain, and run one of one's own: `chain run|info|events`."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ, FromBlock
from orchestrator.cli.command import command
from orchestrator.cli.output import Document, JsonValue, to_json
from orchestrator.cli.session import Session
from orchestrator.errors import ChainMismatchError, ChainUnavailableError, ConfigError

if TYPE_CHECKING:
    from orchestrator.chain import RawEvent
    from orchestrator.chain.devnode import DevNode

app = typer.Typer(help="Look at a chain, and run one of one's own.", no_args_is_help=True)

FOLLOW_SECONDS = 1.0
_ACCOUNT_FIELDS = ("owner", "account", "admin", "proposed_admin")
_DEFAULT_PORT = 9_944
_MAX_PORT = 65_535


@command(app, "run", group="chain")
def run(
    session: Session,
    block_time: Annotated[
        int | None,
        typer.Option(
            metavar="MS",
            min=1,
            help="A block every so many ms; without it, a block for each transaction.",
            show_default=False,
        ),
    ] = None,
    base_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the chain there, and go on with it the next time."),
    ] = None,
    rpc_port: Annotated[
        int, typer.Option(min=0, max=_MAX_PORT, help="Port to listen on; 0 takes a free one.")
    ] = _DEFAULT_PORT,
) -> None:
    """
    Run a development node until it is stopped (Ctrl-C or SIGTERM).

    It is a real node with a chain of its own: //Alice to //Ferdie have money, and blocks are final
    at once. The program is that of the variable CONTRACTS_NODE, else substrate-contracts-node or
    contracts-devnode on PATH, else what `make node` built.
    """
    from orchestrator.chain.devnode import DevNode, find_node

    program = find_node()
    if program is None:
        raise ConfigError(
            "there is no node on this machine: set CONTRACTS_NODE to the program, put"
            " substrate-contracts-node or contracts-devnode on PATH, or run make node in a checkout"
        )
    flags = ["--finalize-delay-sec", "0"]
    if block_time is not None:
        flags += ["--block-time", str(block_time)]
    with session.output.progress(f"Starting {program}"):
        node = DevNode(program, base_path=base_path, rpc_port=rpc_port, flags=flags)
    with node, _passed_on(node):
        session.output.result({"url": node.url, "pid": node.process.pid, "log": str(node.log_path)})
        session.output.say(
            f"the node is running; --chain {node.url} uses it, an account file with //Alice has"
            " money there, Ctrl-C stops it"
        )
        node.process.wait()
        if not _STOPPED:
            said = node.log_path.read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise ChainUnavailableError(f"the node ended by itself; it said: {said}")
    session.output.say("stopped")


_STOPPED: list[int] = []


@contextlib.contextmanager
def _passed_on(node: "DevNode") -> Iterator[None]:
    """Pass what ends us on to the node, which then ends by itself."""
    _STOPPED.clear()

    def pass_on(number: int, _frame: object) -> None:
        _STOPPED.append(number)
        node.process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@command(app, "info", settings=("chain",), group="chain")
def info(session: Session) -> None:
    """Print which chain it is, its last finalized block, and what time it is there."""
    chain = session.chain
    head = chain.finalized_head()
    session.output.result(
        {
            "chain": session.required("chain"),
            "genesis_hash": to_json(chain.genesis_hash),
            "finalized_block": head.number,
            "finalized_hash": to_json(head.hash),
            "finalized_timestamp": head.timestamp,
            "now_timestamp": chain.now(),
        }
    )


@command(app, "events", settings=READ, group="chain")
def events(
    session: Session,
    from_block: FromBlock = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
) -> None:
    """
    Print the contract's finalized events, a line each; with --json each line is a document.

    A node that was told to forget old blocks has no events of them.
    """
    from orchestrator.chain import Cursor

    session.processor  # noqa: B018  # refuses a contract that is not ours
    after = Cursor(block=from_block, index=-1)
    while True:
        reading = session.raw_events(after)
        try:
            while True:
                document = event_document(session, next(reading))
                session.output.line(document, event_words(document))
        except StopIteration as end:
            after = end.value
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)


def event_document(session: Session, raw: "RawEvent") -> Document:
    """An event of the contract, decoded; of an unknown one its raw bytes."""
    from orchestrator.encoding import to_ss58

    place: dict[str, JsonValue] = {
        "block": raw.block.number,
        "block_hash": to_json(raw.block.hash),
        "timestamp": raw.block.timestamp,
        "index": raw.index,
    }
    try:
        event = session.processor.decode_event(raw)
    except ChainMismatchError:
        # Of code that the contract ran before an upgrade, or will after the next.
        fields: dict[str, JsonValue] = {"topics": to_json(raw.topics), "data": to_json(raw.data)}
        return {**place, "event": None, "fields": fields}
    fields = {
        name: to_ss58(value)
        if name in _ACCOUNT_FIELDS and isinstance(value, bytes)
        else to_json(value)
        for name, value in event.fields.items()
    }
    return {**place, "event": event.name, "fields": fields}


def event_words(document: Document) -> str:
    """An event in one line for people."""
    from orchestrator.cli.output import shown, shown_time

    fields = document["fields"]
    block, timestamp = document["block"], document["timestamp"]
    said = shown("", fields).replace("\n", " ")
    moment = shown_time(timestamp) if isinstance(timestamp, int) else ""
    return f"block {block}, {moment}: {document['event'] or 'an unknown event'}: {said}"
