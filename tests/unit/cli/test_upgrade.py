"""Upgrading a contract in place: refused early, interrupted anywhere, with live jobs across it."""

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain import Cursor, machine
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import ChainUnavailableError
from orchestrator.models import Mode, Parameters

from .conftest import Run
from .priced import DEPLOYMENT, PAID, UPLOAD, PricedChain
from .world import ADMIN, World, write_other_build

OLD = load_bundle().code_hash
_START = Cursor(block=0, index=-1)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return write_other_build(tmp_path / "other.contract")


def running(world: World) -> tuple[bytes | None, Mode]:
    with world.chain() as chain:
        return chain.code_hash(world.contract), chain.read(world.processor.mode())


def new_code(build: Path) -> bytes:
    return load_bundle(build).code_hash


def test_the_other_build_is_one_that_chains_take(build: Path) -> None:
    machine.check(load_bundle(build).code)

    assert new_code(build) != OLD


@pytest.fixture
def owner(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PHALA_JOBS_KEYS_UNENCRYPTED", "true")
    monkeypatch.setenv("PHALA_JOBS_ACCOUNT", "alice")
    monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")
    assert run("keys", "import", "alice", "--development", "//Alice").exit_code == 0
    return world


def test_jobs_of_every_status_live_on_across_an_upgrade(
    run: Run, owner: World, build: Path
) -> None:
    for content in (b"processed", b"submitted", b"cancelled"):
        assert run("submit", "echo", "-", stdin=content).exit_code == 0
    owner.attest(1)
    run("cancel", 3)

    upgraded = run("contract", "upgrade", "--bundle", build, "--json")

    assert upgraded.exit_code == 0, upgraded.stderr
    assert upgraded.document == {
        "contract": owner.settings["contract"],
        "upgraded": True,
        "code_hash_before": "0x" + OLD.hex(),
        "code_hash": "0x" + new_code(build).hex(),
        "version": 1,
        "mode": "Running",
        "fee": 0,
        "deposit": 0,
        "upload_cost": None,
    }
    owner.attest(2)
    new = ("--bundle", build, "--json")
    assert [run("status", job, *new).document["status"] for job in (1, 2, 3)] == [
        "Processed",
        "Processed",
        "Cancelled",
    ]
    assert run("result", 1, "--bundle", build).stdout_bytes == b"processed"
    assert run("result", 2, "--bundle", build).stdout_bytes == b"submitted"
    submitted = run("submit", "echo", "-", *new, stdin=b"after")
    assert submitted.document["job_id"] == 4
    assert run("purge", 3, *new).document["purged"] is True


def test_commands_want_the_build_that_the_contract_runs(
    run: Run, world: World, build: Path
) -> None:
    run("contract", "upgrade", "--bundle", build)

    without = run("mode", "show")
    named = run("mode", "show", bundle=str(build))

    assert without.exit_code == 1
    assert "give the .contract file of what it runs with --bundle" in without.stderr
    assert named.exit_code == 0, named.stderr


def test_an_upgrade_that_is_done_sends_nothing(run: Run, world: World, build: Path) -> None:
    run("contract", "upgrade", "--bundle", build)
    with world.chain() as chain:
        before = chain.finalized_head()

    again = run("contract", "upgrade", "--bundle", build, "--json")

    assert again.document["upgraded"] is False
    assert "nothing to do: it runs this build already" in again.stderr
    with world.chain() as chain:
        assert chain.finalized_head() == before


def test_an_upgrade_can_be_taken_back(run: Run, world: World, build: Path) -> None:
    run("contract", "upgrade", "--bundle", build)

    back = run("contract", "upgrade", "--json")

    assert back.document["code_hash"] == "0x" + OLD.hex()
    assert running(world) == (OLD, Mode.RUNNING)


def test_the_mode_from_before_comes_back(run: Run, world: World, build: Path) -> None:
    run("mode", "set", "Draining")

    run("contract", "upgrade", "--bundle", build)

    assert running(world) == (new_code(build), Mode.DRAINING)


def test_another_mode_can_be_wanted(run: Run, world: World, build: Path) -> None:
    run("contract", "upgrade", "--bundle", build, "--then", "halted")

    assert running(world) == (new_code(build), Mode.HALTED)


def test_what_somebody_else_halted_stays_halted(run: Run, world: World, build: Path) -> None:
    run("mode", "set", "Halted")

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 0, ran.stderr
    assert "this program did not halt it. See --then" in ran.stderr
    assert running(world) == (new_code(build), Mode.HALTED)


# What is refused, is refused before the contract is halted.


def nothing_happened(world: World) -> None:
    assert running(world) == (OLD, Mode.RUNNING)
    with world.chain() as chain:
        assert not [
            event
            for raw in chain.events(world.contract, after=_START).events
            if (event := world.processor.decode_event(raw)).name in ("ModeChanged", "CodeChanged")
        ]


def test_only_the_admin_upgrades(run: Run, world: World, build: Path, as_operator: None) -> None:
    ran = run("contract", "upgrade", "--bundle", build, "--json")

    assert (ran.exit_code, ran.document["error"]) == (1, "NotAdmin")
    nothing_happened(world)


def test_another_layout_of_the_storage_is_refused(run: Run, world: World, tmp_path: Path) -> None:
    storage = json.loads(json.dumps(load_bundle().metadata["storage"]))
    fields = storage["root"]["layout"]["struct"]["fields"]
    fields[0], fields[1] = fields[1], fields[0]
    build = write_other_build(tmp_path / "moved.contract", storage=storage)

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 1
    assert "is laid out differently" in ran.stderr
    nothing_happened(world)


def test_a_bundle_without_our_messages_is_refused(run: Run, world: World, tmp_path: Path) -> None:
    spec = json.loads(json.dumps(load_bundle().metadata["spec"]))
    spec["messages"] = spec["messages"][1:]
    build = write_other_build(tmp_path / "fewer.contract", spec=spec)

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 1
    assert "no such message" in ran.stderr
    nothing_happened(world)


def test_code_that_no_chain_takes_is_refused(run: Run, world: World, tmp_path: Path) -> None:
    code = b"\0asm\1\0\0\0"
    source = {
        **dict(load_bundle().metadata["source"]),  # type: ignore[call-overload]  # an object
        "wasm": "0x" + code.hex(),
        "hash": "0x" + blake2b(code, digest_size=32).hexdigest(),
    }
    build = write_other_build(tmp_path / "empty.contract", source=source)

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 2
    nothing_happened(world)


def test_a_contract_of_an_unknown_version_is_refused(
    run: Run, world: World, build: Path, answer: Callable[[str, object], None]
) -> None:
    answer("version", 2)

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 1
    assert "is of version 2, and this program knows 1" in ran.stderr
    nothing_happened(world)


def test_a_contract_of_another_chain_is_refused(
    run: Run, world: World, build: Path, answer: Callable[[str, object], None]
) -> None:
    answer("genesis_hash", b"\x07" * 32)

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 1
    assert "was deployed for genesis 0x0707" in ran.stderr
    nothing_happened(world)


def test_where_there_is_no_contract_nothing_is_upgraded(
    run: Run, world: World, build: Path
) -> None:
    ran = run("contract", "upgrade", "--bundle", build, "--contract", "0x" + "11" * 32)

    assert ran.exit_code == 1
    assert "there is no contract at this address" in ran.stderr


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Let reads of a message answer something else."""

    def answer(label: str, value: object) -> None:
        inside = EmbeddedChain.read

        def read(self: EmbeddedChain, call: Any) -> Any:  # noqa: ANN401 - as generic as the port
            return value if call.label == label else inside(self, call)

        monkeypatch.setattr(EmbeddedChain, "read", read)

    return answer


# Interrupted.

STEPS = ("set_mode", "upload", "set_code", "set_mode again")


class _Cut:
    """Breaks the connection at one step, before or after the chain has done it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
        self.step, self.after, self.is_done = step, after, False
        self.sent: list[str] = []
        call, upload = EmbeddedChain.call, EmbeddedChain.upload
        cut = self

        def cut_call(self: EmbeddedChain, message: Any, *, signer: Any) -> Any:  # noqa: ANN401 - as generic as the port
            return cut.through(message.label, lambda: call(self, message, signer=signer))

        def cut_upload(self: EmbeddedChain, code: bytes, *, signer: Any) -> Any:  # noqa: ANN401 - the same
            return cut.through("upload", lambda: upload(self, code, signer=signer))

        monkeypatch.setattr(EmbeddedChain, "call", cut_call)
        monkeypatch.setattr(EmbeddedChain, "upload", cut_upload)

    def through(self, label: str, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - the same
        name = f"{label} again" if label in self.sent else label
        self.sent.append(label)
        if name != self.step or self.is_done:
            return act()
        self.is_done = True
        if self.after:
            act()
        raise ChainUnavailableError


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode", [Mode.RUNNING, Mode.DRAINING], ids=lambda mode: mode.value)
def test_an_interrupted_upgrade_is_finished_by_running_it_again(
    run: Run,
    world: World,
    build: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    step: str,
    after: bool,
) -> None:
    if mode is not Mode.RUNNING:
        run("mode", "set", mode.value)
    cut = _Cut(monkeypatch, step, after=after)

    interrupted = run("contract", "upgrade", "--bundle", build)
    finished = run("contract", "upgrade", "--bundle", build)

    assert cut.is_done
    assert interrupted.exit_code == 3
    assert finished.exit_code == 0, finished.stderr
    assert running(world) == (new_code(build), mode)


def interrupt_after_halting(run: Run, build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _Cut(patch, "upload", after=False)
        assert run("contract", "upgrade", "--bundle", build).exit_code == 3


def test_a_halt_by_somebody_else_after_an_interruption_is_not_undone(
    run: Run, world: World, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after_halting(run, build, monkeypatch)
    run("mode", "set", "Running")
    run("mode", "set", "Halted")

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 0, ran.stderr
    assert running(world) == (new_code(build), Mode.HALTED)


def test_a_halt_long_after_what_was_sent_has_lapsed_is_not_undone(
    run: Run, world: World, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _Cut(patch, "set_mode", after=False)
        assert run("contract", "upgrade", "--bundle", build).exit_code == 3
    with world.chain() as chain:
        for _ in range(65):
            chain.upload(load_bundle().code, signer=ADMIN)
    run("mode", "set", "Halted")

    assert run("contract", "upgrade", "--bundle", build).exit_code == 0

    assert running(world) == (new_code(build), Mode.HALTED)


def test_a_damaged_note_is_named(
    run: Run, world: World, build: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    interrupt_after_halting(run, build, monkeypatch)
    (note,) = (home / ".phala-jobs" / "client").glob("upgrade-*.json")
    note.write_text("{")

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 2
    assert f"{note}: damaged; remove it and give --then" in ran.stderr
    assert running(world) == (OLD, Mode.HALTED)


def test_a_finished_upgrade_leaves_no_note(run: Run, world: World, build: Path, home: Path) -> None:
    run("contract", "upgrade", "--bundle", build)

    assert list((home / ".phala-jobs" / "client").iterdir()) == []


@pytest.fixture
def misread(
    world: World, build: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, object], None]:
    """Let the new code, and only that, read a message's value as another."""

    def misread(label: str, other: object) -> None:
        inside = EmbeddedChain.read

        def read(self: EmbeddedChain, call: Any) -> Any:  # noqa: ANN401 - as generic as the port
            value = inside(self, call)
            is_new = self.code_hash(world.contract) == new_code(build)
            return other if call.label == label and is_new else value

        monkeypatch.setattr(EmbeddedChain, "read", read)

    return misread


@pytest.mark.parametrize(
    ("label", "other", "message"),
    [
        ("parameters", Parameters(rate_limit=1), "reads what is stored as something else"),
        ("admin", b"\x01" * 32, "reads what is stored as something else"),
        ("get_job_counter", 7, "reads what is stored as something else"),
        ("version", 2, "is of version 2"),
        ("genesis_hash", b"\x07" * 32, "was deployed for genesis 0x0707"),
    ],
)
def test_code_that_reads_the_storage_as_something_else_leaves_the_contract_halted(
    run: Run,
    world: World,
    build: Path,
    misread: Callable[[str, object], None],
    label: str,
    other: object,
    message: str,
) -> None:
    misread(label, other)

    ran = run("contract", "upgrade", "--bundle", build)

    assert ran.exit_code == 1
    assert message in ran.stderr
    assert "stays halted: go back with contract upgrade --bundle" in ran.stderr
    assert running(world) == (new_code(build), Mode.HALTED)


def test_from_code_that_reads_wrongly_there_is_a_way_back(
    run: Run, world: World, build: Path, misread: Callable[[str, object], None]
) -> None:
    misread("parameters", Parameters(rate_limit=1))
    run("contract", "upgrade", "--bundle", build)

    back = run("contract", "upgrade")

    assert back.exit_code == 0, back.stderr
    assert running(world) == (OLD, Mode.RUNNING)


def test_what_is_stored_is_compared_after_an_interruption_too(
    run: Run,
    world: World,
    build: Path,
    misread: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    misread("parameters", Parameters(rate_limit=1))
    _Cut(monkeypatch, "set_code", after=True)
    assert run("contract", "upgrade", "--bundle", build).exit_code == 3

    again = run("contract", "upgrade", "--bundle", build)

    assert again.exit_code == 1
    assert "reads what is stored as something else" in again.stderr
    assert running(world) == (new_code(build), Mode.HALTED)


def test_the_cost_is_shown_and_needs_a_yes(
    run: Run, world: World, build: Path, priced: type[PricedChain]
) -> None:
    refused = run("contract", "upgrade", "--bundle", build)
    upgraded = run("contract", "upgrade", "--bundle", build, "--yes", "--json")

    assert refused.exit_code == 2
    fee = DEPLOYMENT.fee + 3 * 1_000
    assert f"The upgrade costs a fee of at most {fee:,} planck" in refused.stderr
    assert upgraded.exit_code == 0, upgraded.stderr
    assert upgraded.document["fee"] == 3 * PAID
    assert upgraded.document["upload_cost"] == UPLOAD
    assert priced.sent == ["set_mode", "upload", "set_code", "set_mode"]


def test_an_admin_that_cannot_pay_is_refused_before_anything_is_sent(
    run: Run, world: World, build: Path, priced: type[PricedChain]
) -> None:
    priced.balance = 5

    ran = run("contract", "upgrade", "--bundle", build, "--yes", "--json")

    assert (ran.exit_code, ran.document["error"]) == (1, "InsufficientFundsError")
    assert priced.sent == []
