"""Where a node's program is, and what becomes of its process; a script stands in for the node."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.chain import devnode
from orchestrator.chain.devnode import DevNode, find_node
from orchestrator.errors import ChainUnavailableError, InputError

SAYS_ITS_ADDRESS = """
for word in "$@"; do [ "$before" = --rpc-port ] && port=$word; before=$word; done
[ "$port" = 0 ] && port=4711
echo "arguments: $*"
echo "2024-10-04 12:00:00 Running JSON-RPC server: addr=127.0.0.1:$port,[::1]:$port"
"""
Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def write(text: str, name: str = "node") -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o700)
        return path

    return write


@pytest.fixture
def running(program: Program) -> Path:
    return program(SAYS_ITS_ADDRESS + "exec sleep 600")


def test_a_node_is_reached_at_the_port_that_it_says(running: Path) -> None:
    with DevNode(running) as node:
        assert node.url == "ws://127.0.0.1:4711"
        assert node.process.poll() is None


def test_a_node_is_for_this_machine_and_for_nobody_else(running: Path) -> None:
    with DevNode(running, flags=("--manual-seal",)) as node:
        said = node.log_path.read_text(encoding="utf-8")

    arguments = said.splitlines()[0].split()
    assert {"--dev", "--manual-seal", "--no-telemetry", "--no-mdns"} <= set(arguments)
    assert not {"--rpc-external", "--unsafe-rpc-external"} & set(arguments)


def test_a_restarted_node_keeps_its_port_and_its_chain(running: Path, tmp_path: Path) -> None:
    base = tmp_path / "kept"
    with DevNode(running, base_path=base) as node:
        first = node.process.pid
        node.kill()
        with pytest.raises(InputError, match="the node is not running"):
            _ = node.process

        node.start()

        said = node.log_path.read_text(encoding="utf-8")
        assert node.process.pid != first
        assert node.url == "ws://127.0.0.1:4711"
        assert f"--base-path {base} --rpc-port 4711" in said


def test_nothing_is_left_of_a_node(running: Path) -> None:
    node = DevNode(running)
    process = node.process
    folder = node.log_path.parent

    node.close()
    node.close()

    assert process.returncode == -signal.SIGTERM
    assert not folder.exists()


def test_a_node_that_takes_another_port_is_ended_and_told_of(
    program: Program, tmp_path: Path
) -> None:
    elsewhere = program(
        f"echo $$ > {tmp_path}/pid\n"
        "echo 'Running JSON-RPC server: addr=127.0.0.1:4712'\nexec sleep 600"
    )

    with pytest.raises(ChainUnavailableError, match=r"port 4711 is taken: .* at port 4712 instead"):
        DevNode(elsewhere, rpc_port=4711)

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), 0)


def test_ctrl_c_while_a_node_starts_does_not_wait_for_its_clean_end(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = subprocess.Popen.send_signal

    def interrupt(_node: DevNode) -> str:
        raise KeyboardInterrupt

    def noted(process: subprocess.Popen[bytes], number: int) -> None:
        sent.append(number)
        send(process, number)

    monkeypatch.setattr(DevNode, "_said", interrupt)
    monkeypatch.setattr(subprocess.Popen, "send_signal", noted)

    with pytest.raises(KeyboardInterrupt):
        DevNode(program("exec sleep 600"))

    assert sent == [signal.SIGKILL]


def test_a_node_that_ends_at_once_is_named_with_its_last_words(program: Program) -> None:
    with pytest.raises(ChainUnavailableError, match="did not start; it said:\nno such flag"):
        DevNode(program("echo no such flag; exit 1"))


def test_a_node_that_never_says_its_address_is_ended(program: Program, tmp_path: Path) -> None:
    mute = program(f"echo $$ > {tmp_path}/pid; exec sleep 600")

    with pytest.raises(ChainUnavailableError, match="did not start"):
        DevNode(mute, start_seconds=0.3)

    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_node_that_does_not_listen_is_killed(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = DevNode(running)
    process = node.process
    wait = process.wait

    def impatient(timeout: float | None = None) -> int:
        if timeout is not None:
            raise subprocess.TimeoutExpired("node", timeout)
        return wait()

    monkeypatch.setattr(process, "wait", impatient)
    send = process.send_signal
    monkeypatch.setattr(process, "send_signal", lambda n: n == signal.SIGTERM or send(n))

    node.stop()
    node.close()

    assert process.returncode == -signal.SIGKILL


# Where the program is.


def test_the_variable_comes_first(running: Path, tmp_path: Path) -> None:
    found = find_node({"CONTRACTS_NODE": str(running), "PATH": str(tmp_path)})

    assert found == running


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_variable_that_names_no_program_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"CONTRACTS_NODE: .* is no program"):
        find_node({"CONTRACTS_NODE": str(tmp_path / name)})


@pytest.mark.parametrize("name", ["substrate-contracts-node", "contracts-devnode"])
def test_a_program_on_the_path_is_found(program: Callable[..., Path], name: str) -> None:
    path = program("true", name)

    assert find_node({"PATH": str(path.parent)}) == path


def test_what_was_built_comes_last(
    running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devnode, "_BUILT", running)
    empty = tmp_path / "empty"
    empty.mkdir()

    assert find_node({"PATH": str(empty)}) == running

    monkeypatch.setattr(devnode, "_BUILT", tmp_path / "nowhere")
    assert find_node({"PATH": str(empty)}) is None
