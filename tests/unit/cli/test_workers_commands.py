"""`workers register|renew|rotate|revoke`, with real workers on a simulated platform."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cli import revocation, workers
from orchestrator.config import PREFIX
from orchestrator.encoding import blake2_256
from orchestrator.evidence import EvidenceCheck
from orchestrator.simulator import Simulator, store_recovery

from .conftest import Ran, Run
from .tee_world import TeeWorker, clock, make_simulator, policy_text, serve_worker
from .world import MEASUREMENT, World

Write = Callable[[str, str], Path]
SIMULATED = "simulated: proves no TEE"


@pytest.fixture
def simulator(tmp_path: Path) -> Simulator:
    return make_simulator(tmp_path / "simulator")


@pytest.fixture
def worker(world: World, simulator: Simulator, tmp_path: Path) -> Iterator[TeeWorker]:
    with serve_worker(world, tmp_path / "worker", tmp_path / "simulator") as worker:
        yield worker


@pytest.fixture(autouse=True)
def policy(
    simulator: Simulator, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The policy that the settings name."""
    path = tmp_path / "policy.toml"
    path.write_text(policy_text(simulator))
    monkeypatch.setenv(PREFIX + "POLICY", str(path))
    return path


@pytest.fixture(autouse=True)
def _token(worker: TeeWorker, secret_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name a file with the worker's token for registering."""
    tokens = secret_file("tokens.toml", f'"{worker.url}/" = "{worker.token}"\n')
    monkeypatch.setenv(PREFIX + "REGISTRAR_TOKENS", str(tokens))


def register(run: Run, worker: TeeWorker, *more: object) -> Ran:
    return run("workers", "register", worker.url, "--allow-measurement", "--yes", "--json", *more)


def listed(run: Run) -> list[dict[str, object]]:
    found = run("workers", "list", "--json").document["workers"]
    assert isinstance(found, list)
    return found


def test_a_worker_is_registered_and_the_verdict_is_shown(
    run: Run, worker: TeeWorker, policy: Path, home: Path
) -> None:
    ran = register(run, worker)

    assert ran.exit_code == 0, ran.stderr
    document = ran.document
    assert document["worker"] == 3
    assert document["verified"] is True
    assert document["simulated"] is True
    assert document["tee"] == SIMULATED
    assert SIMULATED in ran.stderr
    verdict = document["verdict"]
    assert [row["code"] for row in verdict["checks"]] == [one.value for one in EvidenceCheck]
    assert {row["outcome"] for row in verdict["checks"]} == {"passed"}
    assert document["policy_hash"] == "0x" + blake2_256(policy.read_bytes()).hex()
    found = listed(run)[2]
    assert found["endpoint"] == worker.url
    assert found["trusted"] is True
    folder = home / ".phala-jobs" / "evidence"
    name = document["evidence_hash"][2:]
    assert (folder / name[:2] / name).is_file()
    record = json.loads((folder / "records" / f"{name}.json").read_bytes())
    assert record["worker"] == 3


def test_people_see_the_table_of_all_checks(run: Run, worker: TeeWorker) -> None:
    ran = run("workers", "register", worker.url, "--allow-measurement", "--yes")

    assert ran.exit_code == 0, ran.stderr
    for check in EvidenceCheck:
        assert check.value in ran.stdout
    assert SIMULATED in ran.stderr
    assert SIMULATED in ran.stdout


def test_refused_evidence_shows_which_check_and_registers_nobody(
    run: Run, worker: TeeWorker, tmp_path: Path
) -> None:
    store_recovery(
        tmp_path / "simulator", now=clock(), effective_at=0, advisories=("SIMULATED-SA-1",)
    )

    refused = register(run, worker)
    for_people = run("workers", "register", worker.url)

    assert [refused.exit_code, for_people.exit_code] == [1, 1]
    document = refused.document
    assert document["error"] == "E05"
    assert document["verdict"]["refused_by"] == "E05"
    assert len(document["verdict"]["checks"]) == 14
    assert "E05" in for_people.stdout
    assert "failed" in for_people.stdout
    assert "error: E05" in for_people.stderr
    assert len(listed(run)) == 2
    assert run("measurements", "list", "--json").document["measurements"] == [
        {"measurement": "0x" + MEASUREMENT.hex(), "allowed": True}
    ]


def test_a_measurement_that_is_not_allowed_says_what_to_do(run: Run, worker: TeeWorker) -> None:
    ran = run("workers", "register", worker.url, "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == "MeasurementNotAllowed"
    assert "phala-jobs measurements allow " in ran.document["message"]
    assert len(listed(run)) == 2


def test_nobody_to_ask_allows_no_measurement(run: Run, worker: TeeWorker) -> None:
    ran = run("workers", "register", worker.url, "--allow-measurement", "--json")

    assert ran.exit_code == 2
    assert "give --yes" in ran.document["message"]
    assert len(run("measurements", "list", "--json").document["measurements"]) == 1
    assert len(listed(run)) == 2


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_somebody_at_a_terminal_is_asked_before_a_measurement_is_allowed(
    run: Run, worker: TeeWorker, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int
) -> None:
    monkeypatch.setattr(workers, "is_interactive", lambda: True)

    ran = run("workers", "register", worker.url, "--allow-measurement", stdin=answer)

    assert ran.exit_code == code, ran.stderr
    assert "Allow workers of this measurement?" in ran.stderr
    assert len(run("measurements", "list", "--json").document["measurements"]) == 2 - code
    assert len(listed(run)) == 3 - code


def test_a_wrong_token_registers_nobody(run: Run, worker: TeeWorker, secret_file: Write) -> None:
    ran = register(run, worker, "--token-file", secret_file("wrong", worker.jobs_token))

    assert ran.exit_code == 1
    assert "403" in ran.document["message"]
    assert "--token-file" in ran.document["message"]
    assert len(listed(run)) == 2
    # Nothing was paid for either.
    assert len(run("measurements", "list", "--json").document["measurements"]) == 1


def test_a_worker_that_does_not_answer_is_told_of(run: Run, worker: TeeWorker) -> None:
    ran = run("workers", "register", "http://127.0.0.1:1", "--json")

    assert ran.exit_code == 3
    assert ran.document["message"].startswith("no worker answers at http://127.0.0.1:1")


def test_a_worker_without_a_tee_has_no_evidence_to_register_on(
    run: Run, world: World, worker: TeeWorker, tmp_path: Path
) -> None:
    with serve_worker(world, tmp_path / "development", None) as development:
        ran = run("workers", "register", development.url, "--json")

    assert ran.exit_code == 3
    assert "answered 501" in ran.document["message"]
    assert "no TEE" in ran.document["message"]
    assert len(listed(run)) == 2


def test_a_renewal_extends(run: Run, worker: TeeWorker) -> None:
    first = register(run, worker, "--valid-for", "2h").document

    ran = run("workers", "renew", 3, "--json")

    assert ran.exit_code == 0, ran.stderr
    document = ran.document
    assert document["worker"] == 3
    assert document["valid_until"] > first["valid_until"]
    assert document["evidence_hash"] != first["evidence_hash"]
    assert listed(run)[2]["valid_until"] == document["valid_until"]


def test_a_contracts_refusal_names_role_and_command(
    run: Run, worker: TeeWorker, secret_file: Write
) -> None:
    register(run, worker, "--valid-for", "2h")

    ran = run(
        *("workers", "renew", 3, "--json", "--account-file", secret_file("bob", "//Bob")),
    )

    assert ran.exit_code == 1
    assert ran.document["error"] == "MissingRole"
    assert "the admin runs: phala-jobs roles grant" in ran.document["message"]


@pytest.mark.parametrize(
    ("word", "number", "code"), [("suspend", 99, "WorkerNotFound"), ("reinstate", 1, "WrongStatus")]
)
def test_what_the_list_refuses_says_where_to_look(
    run: Run, world: World, word: str, number: int, code: str
) -> None:
    ran = run("workers", word, number, "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == code
    assert "phala-jobs workers list" in ran.document["message"]


def test_one_that_is_not_there_is_not_renewed(run: Run, worker: TeeWorker) -> None:
    ran = run("workers", "renew", 99, "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == "WorkerNotFound"


def test_a_job_sealed_to_the_old_keys_runs_after_a_rotation(
    run: Run, world: World, worker: TeeWorker, secret_file: Write, tmp_path: Path
) -> None:
    old = register(run, worker).document
    run("keys", "new", "owner", "--keys-unencrypted")
    owner = ("--account", "owner", "--keys-unencrypted")
    submit = ("submit", "echo", "-", "--worker")
    before = run(*submit, 3, *owner, stdin=b"sealed to the old keys")

    rotated = run("workers", "rotate", 3, "--json")
    new = rotated.document
    after = run(*submit, 4, *owner, stdin=b"sealed to the new keys")
    tokens = secret_file("jobs.toml", f'3 = "{worker.jobs_token}"\n')  # none of the new id
    worked = run(
        *("orchestrator", "once", "--owners", "any", "--tokens", tokens, "--timeout", "60s"),
        *("--account-file", secret_file("bob", "//Bob"), "--folder", tmp_path / "orchestrator"),
    )

    assert [ran.exit_code for ran in (before, rotated, after, worked)] == [0] * 4, worked.stderr
    assert (new["worker"], new["replaces"], new["endpoint"]) == (4, 3, worker.url)
    assert f"add a line for worker 4 or {worker.url}, as for worker 3" in rotated.stderr
    assert new["signing_key"] != old["signing_key"]
    assert [one["status"] for one in listed(run)[2:]] == ["Active", "Active"]
    assert run("result", 1, *owner).stdout_bytes == b"sealed to the old keys"
    assert run("result", 2, *owner).stdout_bytes == b"sealed to the new keys"


class TestRevoke:
    """`workers revoke`, by each selector."""

    def test_by_key(self, run: Run, worker: TeeWorker) -> None:
        key = register(run, worker).document["signing_key"]

        ran = run("workers", "revoke", "--key", key, "--reason", "lost", "--json")

        assert ran.exit_code == 0, ran.stderr
        assert ran.document == {
            "worker": 3,
            "status": "Revoked",
            "reason": "0x" + blake2_256(b"lost").hex(),
        }
        assert [one["status"] for one in listed(run)] == ["Active", "Active", "Revoked"]

    @pytest.mark.parametrize(("answer", "more"), [(b"n\n", ()), (b"y\n", ()), (b"", ("--yes",))])
    def test_somebody_at_a_terminal_is_asked(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, answer: bytes, more: tuple[str, ...]
    ) -> None:
        monkeypatch.setattr(revocation, "is_interactive", lambda: True)

        ran = run("workers", "revoke", 2, "--reason", "lost", *more, stdin=answer)

        refused = answer == b"n\n"
        assert ran.exit_code == refused, ran.stderr
        assert ("Revoke worker 2 for ever?" in ran.stderr) == (not more)
        assert listed(run)[1]["status"] == ("Active" if refused else "Revoked")

    def test_by_id(self, run: Run, worker: TeeWorker) -> None:
        ran = run("workers", "revoke", "--worker", 2, "--reason", "lost")

        assert ran.exit_code == 0, ran.stderr
        assert [one["status"] for one in listed(run)] == ["Active", "Revoked"]

    def test_by_measurement(self, run: Run, worker: TeeWorker) -> None:
        measurement = register(run, worker).document["measurement"]

        ran = run("workers", "revoke", "--measurement", measurement, "--reason", "bug", "--json")

        assert ran.exit_code == 0, ran.stderr
        assert ran.document["workers"] == [3]
        assert [one["trusted"] for one in listed(run)] == [True, True, False]

    @pytest.mark.parametrize("which", ["ppid", "piid"])
    def test_by_machine_and_those_that_can_not_be_told_are_named(
        self, run: Run, worker: TeeWorker, simulator: Simulator, which: str
    ) -> None:
        register(run, worker)
        machine = getattr(simulator.platform, which)

        ran = run("workers", "revoke", "--platform", machine.hex(), "--reason", "stolen", "--json")

        assert ran.exit_code == 3
        assert ran.document["revoked"] == [3]
        assert [one["worker"] for one in ran.document["unreadable"]] == [1, 2]
        assert [one["status"] for one in listed(run)] == ["Active", "Active", "Revoked"]

    def test_one_that_was_registered_without_evidence_is_named(
        self, run: Run, worker: TeeWorker
    ) -> None:
        run(
            *("workers", "register", worker.url, "--unverified"),
            *("--measurement", MEASUREMENT.hex()),
        )

        ran = run("workers", "revoke", "--platform", "ab" * 16, "--reason", "stolen", "--json")

        (found,) = [one for one in ran.document["unreadable"] if one["worker"] == 3]
        assert found["why"] == "it was registered without evidence"
        assert [one["status"] for one in listed(run)] == ["Active"] * 3

    def test_another_machine_revokes_nobody(self, run: Run, worker: TeeWorker) -> None:
        register(run, worker)

        ran = run("workers", "revoke", "--platform", "ab" * 16, "--reason", "stolen", "--json")

        assert ran.document["revoked"] == []
        assert {one["status"] for one in listed(run)} == {"Active"}

    def test_evidence_that_is_not_here_is_asked_of_the_worker(
        self, run: Run, worker: TeeWorker, simulator: Simulator, tmp_path: Path
    ) -> None:
        register(run, worker)
        machine = simulator.platform.ppid.hex()

        ran = run(
            *("workers", "revoke", "--platform", machine, "--reason", "stolen", "--json"),
            *("--evidence", tmp_path / "another folder"),
        )

        assert ran.document["revoked"] == [3]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "exactly one of"),
            ((1, "--worker", 1), "exactly one of"),
            (("--worker", 1, "--key", "ab"), "exactly one of"),
            ((1, "--reason", ""), "say why with --reason"),
            (("--platform", "ab", "--reason", "x"), "is not 32 hex digits"),
            (("--key", "ab", "--reason", "x"), "is no signing key"),
            (("--measurement", "ab", "--reason", "x"), "is not 64 hex digits"),
        ],
    )
    def test_bad_usage_revokes_nobody(
        self, run: Run, worker: TeeWorker, words: tuple[object, ...], message: str
    ) -> None:
        ran = run("workers", "revoke", *words)

        assert ran.exit_code == 2
        assert message in ran.stderr
        assert {one["status"] for one in listed(run)} == {"Active"}

    def test_what_is_unknown_or_revoked_already_is_said(self, run: Run, worker: TeeWorker) -> None:
        run("workers", "revoke", 1, "--reason", "x")

        again = run("workers", "revoke", 1, "--reason", "x", "--json")
        unknown = run("workers", "revoke", "--key", "02" * 33, "--reason", "x", "--json")

        assert [again.exit_code, unknown.exit_code] == [1, 1]
        assert again.document["error"] == "WorkerRevoked"
        assert "is final" in again.document["message"]
        assert unknown.document["error"] == "WorkerNotFound"
