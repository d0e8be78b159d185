"""`chain run|info|events`: what a chain is, what happened on it, and one of one's own."""

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain import Cursor, EventPage, devnode
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.cli.session import Session
from orchestrator.encoding import to_ss58
from orchestrator.errors import ChainMismatchError

from .conftest import Run
from .world import ADMIN, World


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_chain_is_shown(run: Run, world: World) -> None:
    ran = run("chain", "info", "--json")

    with world.chain() as chain:
        head = chain.finalized_head()
        assert ran.document | {"now_timestamp": 0} == {
            "chain": world.settings["chain"],
            "genesis_hash": "0x" + chain.genesis_hash.hex(),
            "finalized_block": head.number,
            "finalized_hash": "0x" + head.hash.hex(),
            "finalized_timestamp": head.timestamp,
            "now_timestamp": 0,
        }


def test_events_are_printed_a_line_each(run: Run, world: World) -> None:
    ran = run("chain", "events", "--json")

    assert ran.exit_code == 0, ran.stderr
    events = lines(ran.stdout)
    assert [event["event"] for event in events] == [
        "RoleGranted",
        "RoleGranted",
        "MeasurementAllowed",
        "WorkerRegistered",
        "WorkerRegistered",
    ]
    assert events[0]["fields"] == {"account": to_ss58(ADMIN.account_id), "role": "Registrar"}
    assert [event["block"] for event in events] == sorted(event["block"] for event in events)


def test_events_from_a_block_on(run: Run, world: World) -> None:
    last = lines(run("chain", "events", "--json").stdout)[-1]["block"]

    assert len(lines(run("chain", "events", "--json", "--from-block", last).stdout)) == 1
    assert lines(run("chain", "events", "--json", "--from-block", last + 1).stdout) == []


def test_events_are_words_for_people(run: Run, world: World) -> None:
    first = run("chain", "events").stdout.splitlines()[0]

    assert first.startswith("block 2, 20")
    assert f": RoleGranted: account {to_ss58(ADMIN.account_id)}, role Registrar" in first


def test_an_event_that_the_build_does_not_know_is_shown_raw(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode_event(*_: object) -> None:
        raise ChainMismatchError

    monkeypatch.setattr(JobProcessor, "decode_event", decode_event)

    event = lines(run("chain", "events", "--json").stdout)[0]

    assert event["event"] is None
    assert len(event["fields"]["topics"][0]) == 66
    assert event["fields"]["data"].startswith("0x")
    assert "an unknown event" in run("chain", "events").stdout


def test_empty_pages_before_the_head_do_not_end_the_events(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node looks through a bounded number of blocks for each page: here through one."""
    inside = EmbeddedChain.events

    def events(
        self: EmbeddedChain, contract: bytes, *, after: Cursor, limit: int = 1_000
    ) -> EventPage:
        head = self.finalized_head().number
        found = [
            event
            for event in inside(self, contract, after=after, limit=limit).events
            if event.block.number <= after.block + 1
        ]
        end = Cursor(block=min(head, after.block + 1), index=-1)
        return EventPage(
            events=tuple(found), next=max([after, end, *(event.cursor for event in found)])
        )

    whole = run("chain", "events", "--json").stdout
    roles = run("roles", "list", "--json").document
    with world.chain() as chain:
        for _ in range(5):
            chain.upload(load_bundle().code, signer=ADMIN)
        chain.call(world.processor.allow_measurement(b"\x55" * 32), signer=ADMIN)
    monkeypatch.setattr(EmbeddedChain, "events", events)

    paged = run("chain", "events", "--json").stdout

    assert paged.startswith(whole)
    assert [event["event"] for event in lines(paged)[5:]] == ["MeasurementAllowed"]
    assert run("roles", "list", "--json").document == roles


class _EnoughError(Exception):
    """Ends a command that would go on for ever."""


def test_following_goes_on_with_what_comes(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    def sleep(_seconds: float) -> None:
        looks.append(None)
        if len(looks) > 2:
            raise _EnoughError
        if len(looks) == 2:
            with world.chain() as chain:
                chain.call(world.processor.allow_measurement(b"\x55" * 32), signer=ADMIN)

    monkeypatch.setattr(time, "sleep", sleep)

    ran = run("chain", "events", "--follow", "--json")

    seen = [event["event"] for event in lines(ran.stdout.partition("\n{\n")[0])]
    assert seen.count("MeasurementAllowed") == 2
    assert seen.count("RoleGranted") == 2


# One of one's own.


def test_without_a_node_it_says_how_to_get_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devnode, "find_node", lambda: None)

    ran = run("chain", "run")

    assert ran.exit_code == 2
    assert "set CONTRACTS_NODE" in ran.stderr
    assert "make node" in ran.stderr


def test_a_variable_that_names_no_program_is_bad_usage(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACTS_NODE", "/nonexistent")

    ran = run("chain", "run")

    assert ran.exit_code == 2
    assert "CONTRACTS_NODE: '/nonexistent' is no program" in ran.stderr


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program in the place of the node; it writes down what it was started with."""

    def write(body: str) -> Path:
        path = tmp_path / "node"
        path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "flags"}\n{body}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CONTRACTS_NODE", str(path))
        return tmp_path / "flags"

    return write


RUNNING = 'echo "Running JSON-RPC server: addr=127.0.0.1:12345,[::1]:12345"\n'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_runs_until_a_signal_and_is_ended(
    run: Run,
    program: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    flags = program(RUNNING + "exec sleep 60")
    say = Session.__init__

    def signal_once_it_runs(self: Any, **settings: Any) -> None:  # noqa: ANN401 - as the session has it
        say(self, **settings)
        inside = self.output.say

        def watched(text: str) -> None:
            inside(text)
            if "is running" in text:
                os.kill(os.getpid(), number)

        self.output.say = watched

    monkeypatch.setattr(Session, "__init__", signal_once_it_runs)
    before = signal.getsignal(number)

    ran = run(
        *("chain", "run", "--rpc-port", 0, "--block-time", 500, "--json"),
        *("--base-path", tmp_path / "base"),
    )

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["url"] == "ws://127.0.0.1:12345"
    assert "stopped" in ran.stderr
    assert signal.getsignal(number) is before
    words = flags.read_text()
    assert "--block-time 500" in words
    assert f"--base-path {tmp_path / 'base'}" in words
    assert "--rpc-port 0" in words
    with pytest.raises(ProcessLookupError):
        os.kill(ran.document["pid"], 0)


def test_a_node_at_another_port_than_the_wanted_is_told_of(
    run: Run, program: Callable[[str], Path]
) -> None:
    program(RUNNING + "exec sleep 60")

    ran = run("chain", "run")

    assert ran.exit_code == 3
    assert "port 9944 is taken" in ran.stderr
    assert ran.stdout == ""


def test_a_node_that_ends_by_itself_is_told_of(run: Run, program: Callable[[str], Path]) -> None:
    program(RUNNING + 'echo "out of disk"\nexit 1')

    ran = run("chain", "run", "--rpc-port", 12_345)

    assert ran.exit_code == 3
    assert "the node ended by itself; it said:" in ran.stderr
    assert "out of disk" in ran.stderr


def test_a_node_that_does_not_start_is_told_of(run: Run, program: Callable[[str], Path]) -> None:
    program('echo "bad flag"\nexit 1')

    ran = run("chain", "run")

    assert ran.exit_code == 3
    assert "bad flag" in ran.stderr
