"""`registrar run|once`: an account of its own, renewals ahead of time, alarms that are heard."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from orchestrator.config import PREFIX
from orchestrator.encoding import to_ss58
from orchestrator.evidence import Collateral
from orchestrator.models import Role
from orchestrator.registrar import Outcome
from orchestrator.simulator import Simulator, load_simulator, store_recovery
from orchestrator.testing.pccs import StandInPccs

from .conftest import Run
from .tee_world import TeeWorker, clock, make_simulator, policy_text, serve_worker
from .world import ADMIN, World

Write = Callable[[str, str], Path]
WORK = ("run", "once")
SECONDS = 30


@pytest.fixture
def simulator(tmp_path: Path) -> Simulator:
    return make_simulator(tmp_path / "simulator")


@pytest.fixture(autouse=True)
def _settings(
    world: World, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings name the policy, and nobody but the workers that the tests register."""
    path = tmp_path / "policy.toml"
    path.write_text(policy_text(simulator))
    monkeypatch.setenv(PREFIX + "POLICY", str(path))
    monkeypatch.setenv(PREFIX + "REGISTRAR_WORKERS", "3")
    monkeypatch.setenv(PREFIX + "REGISTRAR_LISTEN", "127.0.0.1:0")


@pytest.fixture
def worker(
    run: Run, world: World, simulator: Simulator, tmp_path: Path, secret_file: Write
) -> Iterator[TeeWorker]:
    """A worker that is registered for two hours, as worker 3."""
    with serve_worker(world, tmp_path / "worker", tmp_path / "simulator") as worker:
        tokens = secret_file("tokens.toml", f'"{worker.url}" = "{worker.token}"\n')
        os.environ[PREFIX + "REGISTRAR_TOKENS"] = str(tokens)
        ran = run(
            *("workers", "register", worker.url, "--allow-measurement", "--yes"),
            *("--valid-for", "2h"),
        )
        assert ran.exit_code == 0, ran.stderr
        yield worker
        del os.environ[PREFIX + "REGISTRAR_TOKENS"]


def valid_until(run: Run, number: int = 3) -> int:
    found = run("workers", "list", "--json").document["workers"]
    return int(next(one["valid_until"] for one in found if one["worker"] == number))


# Whose account.


@pytest.mark.parametrize("work", WORK)
def test_an_account_without_the_role_does_not_start_it(
    run: Run, world: World, home: Path, secret_file: Write, work: str
) -> None:
    ran = run("registrar", work, "--account-file", secret_file("bob", "//Bob"))

    assert ran.exit_code == 1
    assert "has no role Registrar at this contract" in ran.stderr
    assert not (home / ".phala-jobs" / "registrar").exists()


@pytest.mark.parametrize("work", WORK)
def test_an_account_that_may_mark_jobs_too_does_not_start_it(
    run: Run, world: World, work: str
) -> None:
    with world.chain() as chain:
        chain.call(world.processor.grant_role(ADMIN.account_id, Role.OPERATOR), signer=ADMIN)

    ran = run("registrar", work)

    assert ran.exit_code == 1
    assert f"account {to_ss58(ADMIN.account_id)} has role Operator beside Registrar" in ran.stderr


def test_combined_roles_are_allowed_by_name_alone(run: Run, world: World) -> None:
    with world.chain() as chain:
        chain.call(world.processor.grant_role(ADMIN.account_id, Role.OPERATOR), signer=ADMIN)

    ran = run("registrar", "once", "--allow-combined-roles", "--json")

    assert ran.exit_code == 1, ran.stderr
    assert ran.document["workers"] == []
    assert [alarm["code"] for alarm in ran.document["alarms"]] == ["WorkerNotFound"]


def test_a_named_worker_that_is_none_is_the_exit_code_and_said(run: Run, world: World) -> None:
    ran = run("registrar", "once")

    assert ran.exit_code == 1
    assert "ALARM: worker 3: WorkerNotFound" in ran.stderr


def test_by_hand_an_account_with_both_roles_is_warned_of(
    run: Run, world: World, worker: TeeWorker
) -> None:
    warning = f"warning: account {to_ss58(ADMIN.account_id)} has role Operator beside Registrar"
    clean = run("workers", "renew", "3", "--valid-for", "4h")
    with world.chain() as chain:
        chain.call(world.processor.grant_role(ADMIN.account_id, Role.OPERATOR), signer=ADMIN)

    both = run("workers", "renew", "3")

    assert [clean.exit_code, both.exit_code] == [0, 0]
    assert warning not in clean.stderr
    assert warning in both.stderr


# What it is told.


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--interval", "10ms"), "registrar.interval: '10ms', at least 1s"),
        (("--interval", "often"), "registrar.interval: 'often'"),
        (("--renew-before", "soon"), "registrar.renew_before: 'soon'"),
        (("--renew-before", "7d"), "not shorter than the policy's maximum registration"),
        (("--policy", "/nowhere/policy.toml"), "/nowhere/policy.toml"),
        (("--collateral", "nothing"), "collateral 'nothing'"),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    run: Run, world: World, work: str, words: tuple[str, ...], message: str
) -> None:
    ran = run("registrar", work, *words)

    assert ran.exit_code == 2, ran.stderr
    assert message in ran.stderr


def test_two_registrars_do_not_share_a_folder(run: Run, world: World, tmp_path: Path) -> None:
    import fcntl  # noqa: PLC0415  # what another process would do

    folder = tmp_path / "registrar"
    folder.mkdir(mode=0o700)
    held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)

    ran = run("registrar", "once", "--folder", folder)

    os.close(held)
    assert ran.exit_code == 2
    assert "another registrar works there" in ran.stderr


# Once.


def test_once_renews_what_is_due_and_then_nothing(run: Run, worker: TeeWorker) -> None:
    before = valid_until(run)

    first = run("registrar", "once", "--json")
    second = run("registrar", "once", "--json")

    assert [first.exit_code, second.exit_code] == [0, 0], first.stderr
    (row,) = first.document["workers"]
    assert (row["worker"], row["outcome"]) == (3, Outcome.RENEWED.value)
    assert row["valid_until"] == valid_until(run) > before
    assert (row["simulated"], row["tee"]) == (True, "simulated: proves no TEE")
    assert first.document["simulated"] is True
    assert "simulated: proves no TEE" in first.stderr
    assert second.document["simulated"] is True
    assert [one["simulated"] for one in second.document["workers"]] == [True]
    assert [one["outcome"] for one in second.document["workers"]] == [Outcome.NOT_DUE.value]
    assert second.document["alarms"] == []


def test_a_renewal_that_is_refused_is_an_alarm_and_the_exit_code(
    run: Run, worker: TeeWorker, tmp_path: Path
) -> None:
    before = valid_until(run)
    store_recovery(
        tmp_path / "simulator", now=clock(), effective_at=0, advisories=("SIMULATED-SA-1",)
    )

    ran = run("registrar", "once", "--json")
    for_people = run("registrar", "once")

    assert [ran.exit_code, for_people.exit_code] == [1, 1]
    (row,) = ran.document["workers"]
    assert (row["outcome"], row["code"]) == (Outcome.FAILED.value, "E05")
    assert "ALARM: worker 3 could not be renewed" in ran.stderr
    assert "ALARM: worker 3, valid until" in for_people.stderr
    assert valid_until(run) == before


def test_a_recovery_that_is_published_is_an_alarm_before_it_refuses(
    run: Run, worker: TeeWorker, tmp_path: Path
) -> None:
    store_recovery(
        tmp_path / "simulator",
        now=clock() - 60_000,
        effective_at=clock() + 48 * 3_600_000,
        advisories=("SIMULATED-SA-1",),
    )

    ran = run(
        *("registrar", "once", "--json"), "--collateral", f"simulated:{tmp_path / 'simulator'}"
    )

    assert ran.exit_code == 1, ran.stderr
    assert [one["outcome"] for one in ran.document["workers"]] == [Outcome.RENEWED.value]
    assert [(one["worker"], one["code"]) for one in ran.document["alarms"]] == [
        (3, "TcbRecoveryAhead")
    ]
    assert "ALARM: worker 3: TcbRecoveryAhead" in ran.stderr


def test_one_that_does_not_answer_keeps_no_other_from_being_renewed(
    run: Run, worker: TeeWorker, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(policy.read_text() + '[limits]\nmaximum_registration = "20d"\n')

    ran = run("registrar", "once", "--json", "--workers", "1,2,3", "--renew-before", "8d")

    assert ran.exit_code == 1
    outcomes = {one["worker"]: one["outcome"] for one in ran.document["workers"]}
    assert outcomes == {
        1: Outcome.FAILED.value,
        2: Outcome.FAILED.value,
        3: Outcome.RENEWED.value,
    }


def test_a_source_of_collateral_that_is_away_is_in_the_document_and_the_exit_code(
    run: Run, worker: TeeWorker, tmp_path: Path
) -> None:
    simulator = load_simulator(tmp_path / "simulator")
    is_away: list[bool] = []

    def give(_: str) -> Collateral | None:
        return None if is_away else simulator.collateral(now=clock() - 1_000)

    with StandInPccs(give) as source:
        first = run("registrar", "once", "--json", "--collateral", source.url)
        is_away.append(True)
        second = run(
            *("registrar", "once", "--json", "--collateral", source.url),
            *("--renew-before", "167h"),
        )

    assert first.exit_code == 0, first.stderr
    assert {alarm["code"] for alarm in second.document["alarms"]} == {"CollateralSourceAway"}
    assert second.exit_code == 3, second.stderr


def test_people_read_that_it_is_simulated_and_without_a_record_it_is_not_known(
    run: Run, worker: TeeWorker, tmp_path: Path
) -> None:
    run("registrar", "once")

    known = run("registrar", "once")
    unknown = run("registrar", "once", "--json", "--evidence", tmp_path / "elsewhere")

    assert "worker 3 is simulated: proves no TEE" in known.stderr
    assert unknown.document["simulated"] is None
    assert [one["simulated"] for one in unknown.document["workers"]] == [None]


# Running.


def test_it_renews_serves_and_stops_on_a_signal(run: Run, worker: TeeWorker) -> None:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    seen: dict[str, httpx.Response] = {}

    def act() -> None:
        try:
            _wait_until_alive(url)
            seen["metrics"] = httpx.get(url + "/metrics", trust_env=False)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=act)
    thread.start()
    before = int(time.time() * 1_000)
    ran = run("registrar", "run", "--listen", f"127.0.0.1:{port}", "--json")
    thread.join()

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["listening"] == url
    assert "stopped; 1 renewed; failing: none" in ran.stderr
    text = seen["metrics"].text
    assert "phala_jobs_renewals_total 1.0" in text
    assert 'phala_jobs_worker_attestation_expiry_timestamp_seconds{worker="3"}' in text
    assert valid_until(run) > before + 6 * 86_400_000


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_until_alive(url: str) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url + "/healthz", trust_env=False).status_code == 200:
                return
        time.sleep(0.02)
    raise TimeoutError(url)
