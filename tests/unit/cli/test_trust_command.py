"""`trust status`, and what `doctor` says of evidence: each trouble alone, told before it bites."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import stamina

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.cli import examination, trust
from orchestrator.cli.output import shown_time
from orchestrator.collateral.cache import CachedCollateral
from orchestrator.config import PREFIX
from orchestrator.crypto import EcdsaSigner, EncryptionKey
from orchestrator.encoding import blake2_256
from orchestrator.evidence import Collateral, Root, dump_collateral_json
from orchestrator.evidence.policy_text import policy_from_evidence, starter_policy
from orchestrator.simulator import Simulator, create_simulator, store_recovery, store_update
from orchestrator.testing import register_test_worker
from orchestrator.testing.evidence import simulated_bundle
from orchestrator.testing.pccs import StandInPccs

from .conftest import Ran, Run
from .world import ADMIN, World

HOUR = 3_600_000
DAY = 24 * HOUR
WORKER = 3  # after the two that every world has, which are revoked here


def clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Trusted:
    """A worker on simulated evidence; the settings name a policy, collateral and evidence."""

    world: World
    simulator: Simulator
    folder: Path
    policy: Path
    evidence: Path
    bundle: bytes

    def forget_evidence(self) -> None:
        DirectoryBlobStore(self.evidence).delete(blake2_256(self.bundle))

    def recover_tcb(self, *, effective_in: int = -HOUR) -> None:
        now = clock()
        store_recovery(
            self.folder, now=now - DAY, effective_at=now + effective_in, advisories=("SIM-SA-1",)
        )


@pytest.fixture
def trusted(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trusted:
    folder, evidence = tmp_path / "simulator", tmp_path / "evidence"
    simulator = create_simulator(folder)
    signer, key = EcdsaSigner.generate(), EncryptionKey.generate().public_key
    measurement = simulator.guest.measurements().measurement
    now, processor = clock(), world.processor
    with world.chain() as chain:
        listed = chain.read(processor.get_worker(1))
        assert listed is not None
        for number in (1, 2):
            chain.call(processor.revoke_worker(number, bytes(32)), signer=ADMIN)
        bundle = simulated_bundle(
            simulator,
            genesis_hash=chain.genesis_hash,
            contract=world.contract,
            signing_key=signer.public_key,
            encryption_key=key,
            collateral=simulator.collateral(now=now - HOUR),
        )
        chain.call(processor.allow_measurement(measurement), signer=ADMIN)
        registered = register_test_worker(
            chain,
            processor,
            signer,
            registrar=ADMIN,
            measurement=measurement,
            encryption_key=key,
            endpoint=listed.endpoint,
            evidence_hash=DirectoryBlobStore(evidence).put(bundle),
            valid_for=6 * DAY,
        )
        assert registered == WORKER
    root = Root(name="simulated", certificate=simulator.root_certificate, is_intel=False)
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_from_evidence(bundle, now=now, name="app", roots=[root]))
    for name, value in (
        ("POLICY", policy),
        ("COLLATERAL", f"simulated:{folder}"),
        ("EVIDENCE", evidence),
    ):
        monkeypatch.setenv(PREFIX + name, str(value))
    return Trusted(
        world=world,
        simulator=simulator,
        folder=folder,
        policy=policy,
        evidence=evidence,
        bundle=bundle,
    )


def status(run: Run, *words: object, **environment: str) -> tuple[int, dict[str, Any], Any]:
    """Exit code, the worker's row, the document."""
    ran = run("trust", "status", "--json", *words, **environment)
    document = ran.document
    rows = [row for row in document["workers"] if row["worker"] == WORKER]
    return ran.exit_code, rows[0], document


def test_a_worker_in_order_is_fine(run: Run, trusted: Trusted) -> None:
    code, row, document = status(run)

    assert code == 0
    assert (row["trust"], row["tcb_status"], row["tcb_evaluation"]) == (
        "fine",
        "UpToDate",
        "20 / 20",
    )
    assert row["days_left"] == pytest.approx(6, abs=0.11)
    assert row["collateral_days_left"] == pytest.approx(30, abs=0.11)
    assert row["next_failure"] == "RegistrationEnds"
    assert row["next_failure_at"] == row["valid_until"] + 1
    assert document["trust"] == "fine"
    assert document["simulated"] is True
    assert document["collateral_source"] == "settings"


def test_for_people_it_is_a_table_that_says_what_is_simulated(run: Run, trusted: Trusted) -> None:
    ran = run("trust", "status")

    assert ran.exit_code == 0
    assert "UpToDate" in ran.stdout
    assert "RegistrationEnds" not in ran.stdout
    assert re.search(r"\bnone\b", ran.stdout)
    assert "worker 3: registered until 20" in ran.stderr
    assert "worker 3: simulated: proves no TEE" in ran.stderr
    assert "warning" not in ran.stderr


def test_for_people_what_ends_inside_the_window_is_the_next_failure(
    run: Run, trusted: Trusted
) -> None:
    ran = run("trust", "status", "--window", "7d")

    assert re.search(r"\bnone\b", ran.stdout) is None
    assert "worker 3: RegistrationEnds from " in ran.stderr


def test_a_suspended_worker_is_suspended_not_fine(run: Run, trusted: Trusted) -> None:
    with trusted.world.chain() as chain:
        chain.call(trusted.world.processor.suspend_worker(WORKER), signer=ADMIN)

    code, row, document = status(run)

    assert (code, row["trust"], document["trust"]) == (0, "suspended", "suspended")
    assert "suspended" in run("trust", "status").stdout
    code, row, _ = status(run, "--window", "7d")
    assert (code, row["trust"]) == (1, "fails")


def test_without_collateral_the_evidences_own_says_that_it_is_simulated(
    run: Run, trusted: Trusted, tmp_path: Path
) -> None:
    code, row, document = status(run, "--collateral", f"folder:{tmp_path}")

    assert (code, row["trust"]) == (3, "unknown")
    assert (row["simulated"], document["simulated"]) == (True, True)
    ran = run("trust", "status", "--collateral", f"folder:{tmp_path}")
    assert "worker 3: simulated: proves no TEE" in ran.stderr


def test_without_evidence_it_is_not_known_whether_it_is_simulated(
    run: Run, trusted: Trusted
) -> None:
    trusted.forget_evidence()

    _, row, document = status(run)

    assert (row["simulated"], document["simulated"]) == (None, None)
    assert "worker 3: not known whether it is simulated" in run("trust", "status").stderr


def test_revoked_workers_are_listed_and_not_watched(run: Run, trusted: Trusted) -> None:
    _, _, document = status(run)

    revoked = [row for row in document["workers"] if row["status"] == "Revoked"]
    assert [(row["worker"], row["trust"], row["next_failure"]) for row in revoked] == [
        (1, None, None),
        (2, None, None),
    ]


def test_what_ends_inside_the_window_fails(run: Run, trusted: Trusted) -> None:
    code, row, _ = status(run, "--window", "7d")

    assert (code, row["trust"]) == (1, "fails")
    ran = run("trust", "status", "--window", "7d")
    assert "warning: worker 3: RegistrationEnds from " in ran.stderr


def test_a_recovery_in_effect_is_told_with_the_version_that_is_short(
    run: Run, trusted: Trusted
) -> None:
    trusted.recover_tcb()

    code, row, document = status(run)

    assert (code, row["trust"], row["next_failure"]) == (1, "fails", "E05")
    assert (row["tcb_status"], document["simulated"]) == ("OutOfDate", True)
    assert row["tcb_evaluation"] == "20 / 21"
    assert "sgx_svn[0]" in row["failures"][0]["detail"]
    ran = run("trust", "status")
    assert "warning: worker 3: E05 now: " in ran.stderr
    assert "must be 5" in ran.stderr


def test_a_recovery_that_is_only_announced_is_a_warning(run: Run, trusted: Trusted) -> None:
    trusted.recover_tcb(effective_in=9 * DAY)

    code, row, _ = status(run)

    assert (code, row["trust"], row["tcb_evaluation"]) == (0, "warning", "20 / 21")
    assert row["failures"][-1]["code"] == "TcbRecoveryAhead"
    assert "warning: worker 3: TcbRecoveryAhead" in run("trust", "status").stderr


def test_an_updated_machine_needs_new_evidence_before_all_is_fine(
    run: Run, trusted: Trusted
) -> None:
    """The stored quote is of the machine before its update; only a renewal shows the new one."""
    trusted.recover_tcb()
    store_update(trusted.folder)

    assert status(run)[0] == 1


def test_without_a_collateral_source_the_evidences_own_counts(
    run: Run, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PREFIX + "COLLATERAL")
    trusted.recover_tcb()

    code, row, document = status(run)
    ran = run("trust", "status")
    named = run("trust", "status", "--collateral", f"simulated:{trusted.folder}")

    assert (code, row["tcb_evaluation"]) == (0, "20 / 20")
    assert document["collateral_source"] == "evidence"
    ends = shown_time(row["collateral_until"])
    warning = f"warning: judged by the collateral in the worker's evidence, valid until {ends}"
    assert warning in ran.stderr
    assert "--collateral names a source" in ran.stderr
    assert "warning: judged by" not in named.stderr
    assert named.exit_code == 1


def test_evidence_that_nobody_has_could_not_be_told(run: Run, trusted: Trusted) -> None:
    trusted.forget_evidence()

    code, row, document = status(run)

    assert (code, row["trust"], document["trust"]) == (3, "unknown", "unknown")
    assert "evidence" in row["unknown"]
    assert "could not tell" in run("trust", "status").stderr


def test_evidence_is_had_from_the_worker_where_the_folder_has_none(
    run: Run, trusted: Trusted
) -> None:
    trusted.forget_evidence()
    trusted.world.blobs[blake2_256(trusted.bundle).hex()] = trusted.bundle

    assert status(run)[0] == 0
    assert status(run, evidence=str(trusted.evidence / "absent"))[0] == 0
    assert not (trusted.evidence / "absent").exists()


def test_evidence_of_a_worker_without_an_address_could_not_be_told(
    run: Run, trusted: Trusted
) -> None:
    with trusted.world.chain() as chain:
        register_test_worker(
            chain,
            trusted.world.processor,
            EcdsaSigner.generate(),
            registrar=ADMIN,
            measurement=trusted.simulator.guest.measurements().measurement,
            endpoint=b"nowhere",
            valid_for=6 * DAY,
        )

    code, row, document = status(run)

    assert (code, row["trust"]) == (3, "fine")
    assert "its endpoint is none" in document["workers"][-1]["unknown"]


def test_collateral_that_is_not_to_be_had_could_not_be_told(
    run: Run, trusted: Trusted, tmp_path: Path
) -> None:
    code, row, _ = status(run, "--collateral", f"folder:{tmp_path}")

    assert (code, row["trust"], row["tcb_evaluation"]) == (3, "unknown", "20 / ?")


def test_what_a_pccs_said_serves_while_it_is_away(
    run: Run, trusted: Trusted, caplog: pytest.LogCaptureFixture
) -> None:
    stamina.set_testing(True)
    now = clock() - HOUR
    try:
        with StandInPccs(lambda _: trusted.simulator.collateral(now=now)) as pccs:
            url = pccs.url
            first = status(run, "--collateral", url)
            assert pccs.asked
        second = status(run, "--collateral", url)
    finally:
        stamina.set_testing(False)

    assert (first[0], second[0]) == (0, 0)
    assert first[1]["collateral_until"] == second[1]["collateral_until"]
    assert "CollateralSourceAway" in caplog.text


def test_it_looks_at_what_the_registrar_keeps_and_changes_nothing(
    run: Run, trusted: Trusted, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = home / ".phala-jobs" / "registrar" / "collateral"
    keep_recovery(trusted, folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 1

    with StandInPccs(lambda _: trusted.simulator.collateral(now=clock() - HOUR)) as pccs:
        code, row, _ = status(run, "--collateral", pccs.url)

    assert "CollateralWentBack" in caplog.text
    assert (code, row["tcb_evaluation"]) == (1, "20 / 21")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not (home / ".phala-jobs" / "client" / "collateral").exists()


def keep_recovery(trusted: Trusted, folder: Path) -> None:
    """Let a cache hold a recovery, confirmed."""
    newer = trusted.simulator.tcb_recovery(now=clock() - DAY)

    class Source:
        def collateral(self, _: bytes, *, now: int) -> Collateral:
            return newer.collateral(now=now)

        def close(self) -> None:
            """Nothing is open."""

    cache = CachedCollateral(Source(), folder, roots=[trusted.simulator.root_certificate])
    quote = trusted.simulator.quote(bytes(64))
    for ago in (3 * HOUR, 2 * HOUR):
        cache.newest(quote, now=(clock() - ago) // 1000 * 1000)


@pytest.mark.parametrize("which", ["registrar", "client"])
def test_what_a_cache_remembers_can_be_forgotten(
    run: Run, trusted: Trusted, home: Path, which: str
) -> None:
    folder = home / ".phala-jobs" / which / "collateral"
    keep_recovery(trusted, folder)
    (path,) = folder.iterdir()

    refused = run("trust", "forget-collateral")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert path.exists()

    ran = run("trust", "forget-collateral", "--yes", "--json")

    assert ran.exit_code == 0, ran.stderr
    assert ran.document == {"forgotten": [str(path)]}
    assert not path.exists()
    with StandInPccs(lambda _: trusted.simulator.collateral(now=clock() - HOUR)) as pccs:
        assert status(run, "--collateral", pccs.url)[0] == 0


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_forgetting_asks(
    run: Run,
    trusted: Trusted,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
    code: int,
) -> None:
    folder = home / ".phala-jobs" / "registrar" / "collateral"
    keep_recovery(trusted, folder)
    monkeypatch.setattr(trust, "is_interactive", lambda: True)

    ran = run("trust", "forget-collateral", stdin=answer)

    assert ran.exit_code == code
    assert "middleman" in ran.stderr
    assert len([*folder.iterdir()]) == code


def test_nothing_kept_is_nothing_forgotten(run: Run, trusted: Trusted) -> None:
    ran = run("trust", "forget-collateral", "--json")

    assert (ran.exit_code, ran.document) == (0, {"forgotten": []})


def test_a_revoked_measurement_is_told(run: Run, trusted: Trusted) -> None:
    measurement = trusted.simulator.guest.measurements().measurement
    with trusted.world.chain() as chain:
        chain.call(trusted.world.processor.revoke_measurement(measurement), signer=ADMIN)

    code, row, _ = status(run)

    assert (code, row["next_failure"]) == (1, "E14")


def test_a_worker_on_its_own_word_has_no_evidence(run: Run, trusted: Trusted) -> None:
    with trusted.world.chain() as chain:
        register_test_worker(
            chain,
            trusted.world.processor,
            EcdsaSigner.generate(),
            registrar=ADMIN,
            measurement=trusted.simulator.guest.measurements().measurement,
            evidence_hash=blake2_256(b""),
            valid_for=6 * DAY,
        )

    code, row, document = status(run)

    assert (code, row["trust"]) == (1, "fine")
    assert document["workers"][-1]["next_failure"] == "NoEvidence"


def test_a_policy_is_needed(run: Run, trusted: Trusted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PREFIX + "POLICY")

    ran = run("trust", "status")

    assert ran.exit_code == 2
    assert "--policy" in ran.stderr


def test_a_policy_without_the_workers_set_would_refuse_its_renewal(
    run: Run, trusted: Trusted
) -> None:
    text = trusted.policy.read_text()
    mrtd = trusted.simulator.guest.mrtd.hex()
    trusted.policy.write_text(text.replace(mrtd, "00" * 48))

    code, row, _ = status(run)

    assert (code, row["next_failure"]) == (1, "MeasurementNotInPolicy")


# What doctor says.


@pytest.fixture
def examined(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Ran, dict[str, dict[str, str]]]]:
    """Run doctor with endpoints that answer; what is not in order, by check."""

    async def ask(_: object) -> str:
        return ""

    monkeypatch.setattr(examination, "_ask_worker", ask)

    def examine(*words: object) -> tuple[Ran, dict[str, dict[str, str]]]:
        ran = run("doctor", "--json", *words)
        findings = ran.document["checks"]
        return ran, {one["check"]: one for one in findings if one["outcome"] != "ok"}

    return examine


Examined = Callable[..., tuple[Ran, dict[str, dict[str, str]]]]


def test_doctor_finds_all_in_order_and_says_that_it_is_simulated(
    examined: Examined, trusted: Trusted
) -> None:
    ran, found = examined()

    assert ran.exit_code == 0
    assert {name: one["outcome"] for name, one in found.items()} == {"policy": "warn"}
    assert "simulated: proves no TEE" in found["policy"]["hint"]


def test_doctor_warns_where_no_source_of_collateral_is_set(
    examined: Examined, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PREFIX + "COLLATERAL")

    ran, found = examined()

    assert ran.exit_code == 0
    assert found["collateral"]["outcome"] == "warn"
    assert (
        "judged by the collateral in the worker's evidence, valid until"
        in (found["collateral"]["found"])
    )
    assert "--collateral" in found["collateral"]["hint"]


def test_doctor_sends_and_writes_nothing(examined: Examined, trusted: Trusted, home: Path) -> None:
    with trusted.world.chain() as chain:
        before = chain.finalized_head()
    files = sorted(home.rglob("*"))

    examined()

    with trusted.world.chain() as chain:
        assert chain.finalized_head() == before
    assert sorted(home.rglob("*")) == files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (starter_policy(), "refuses everything"),
        ("version = 1\nmeasurement = 5\n", "measurement"),
        (None, "No such file"),
    ],
)
def test_doctor_fails_by_a_policy_that_is_empty_wrong_or_absent(
    examined: Examined, trusted: Trusted, text: str | None, words: str
) -> None:
    trusted.policy.unlink()
    if text is not None:
        trusted.policy.write_text(text)

    ran, found = examined()

    assert ran.exit_code == 1
    assert found["policy"]["outcome"] == "fail"
    assert words in found["policy"]["found"]
    for dependent in ("evidence", "collateral", "trust"):
        assert found[dependent]["found"] == "not judged, because of: policy"


def test_doctor_warns_of_evidence_that_is_missing(examined: Examined, trusted: Trusted) -> None:
    trusted.forget_evidence()

    ran, found = examined()

    assert ran.exit_code == 0
    assert found["evidence"]["outcome"] == "warn"
    assert "worker 3" in found["evidence"]["found"]


def test_doctor_fails_where_the_newest_collateral_would_refuse(
    examined: Examined, trusted: Trusted
) -> None:
    trusted.recover_tcb()

    ran, found = examined()

    assert ran.exit_code == 1
    assert found["trust"]["outcome"] == "fail"
    assert "worker 3: E05 now: " in found["trust"]["found"]


def test_doctor_warns_of_a_recovery_ahead(examined: Examined, trusted: Trusted) -> None:
    trusted.recover_tcb(effective_in=9 * DAY)

    ran, found = examined()

    assert ran.exit_code == 0
    assert found["trust"]["outcome"] == "warn"


def test_doctor_fails_by_a_registration_that_ends_inside_its_window_or_has_ended(
    examined: Examined, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, found = examined("--window", "7d")

    assert ran.exit_code == 1
    assert set(found) == {"policy", "registrations"}
    assert found["registrations"]["outcome"] == "fail"


def test_doctor_fails_by_collateral_that_ends_inside_its_window(
    examined: Examined, trusted: Trusted, tmp_path: Path
) -> None:
    folder = tmp_path / "collateral"
    folder.mkdir()
    short = trusted.simulator.collateral(now=clock() - HOUR, valid_for=2 * DAY)
    (folder / "one.json").write_text(dump_collateral_json(short))

    ran, found = examined("--collateral", f"folder:{folder}")

    assert ran.exit_code == 1
    assert set(found) == {"policy", "collateral"}
    assert found["collateral"]["outcome"] == "fail"


def test_doctor_can_not_tell_without_collateral(
    examined: Examined, trusted: Trusted, tmp_path: Path
) -> None:
    ran, found = examined("--collateral", f"folder:{tmp_path}")

    assert ran.exit_code == 3
    assert set(found) == {"policy", "collateral"}
    assert found["collateral"]["outcome"] == "unknown"


def test_without_a_policy_doctor_examines_no_evidence(
    examined: Examined, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PREFIX + "POLICY")

    ran, found = examined()

    assert (ran.exit_code, found) == (0, {})
