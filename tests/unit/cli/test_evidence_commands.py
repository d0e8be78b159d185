"""`evidence`, `submit --policy` and `result --policy`: simulated evidence, the real verifier."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.cli.output import shown_time
from orchestrator.cli.session import Session
from orchestrator.crypto import EcdsaSigner, EncryptionKey
from orchestrator.encoding import blake2_256
from orchestrator.evidence import EvidenceCheck, dump_bundle, dump_collateral_json, load_bundle
from orchestrator.evidence.event_log import runtime_events
from orchestrator.models import PublicKey
from orchestrator.simulator import Simulator
from orchestrator.testing import register_test_worker
from orchestrator.testing.evidence import simulated_bundle
from orchestrator.testing.pccs import StandInPccs
from orchestrator.workers import http

from .conftest import Ran, Run
from .world import ADMIN, MEASUREMENT, WorkerSecrets, World

DAY = 86_400_000
SIMULATED = "simulated: proves no TEE"


def _now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.create()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Worker 3 of a world, registered on simulated evidence, and the files about it."""

    world: World
    simulator: Simulator
    secrets: WorkerSecrets
    bundle: Path
    policy: Path

    def evidence(self, *, challenge: bytes = b"\xc4" * 32) -> bytes:
        """A bundle for the worker's keys."""
        with self.world.chain() as chain:
            genesis_hash = chain.genesis_hash
        return simulated_bundle(
            self.simulator,
            genesis_hash=genesis_hash,
            contract=self.world.contract,
            signing_key=self.secrets.signer.public_key,
            encryption_key=self.secrets.encryption_key.public_key,
            challenge=challenge,
            collateral=self.simulator.collateral(now=_now() - 60_000),
        )

    def job_count(self) -> int:
        with self.world.chain() as chain:
            return chain.read(self.world.processor.get_job_counter())


@pytest.fixture
def shown(
    run: Run,
    world: World,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Shown:
    secrets = WorkerSecrets(signer=EcdsaSigner.generate(), encryption_key=EncryptionKey.generate())
    made = Shown(
        world=replace(world, workers={**world.workers, 3: secrets}),
        simulator=simulator,
        secrets=secrets,
        bundle=tmp_path / "bundle",
        policy=tmp_path / "policy.toml",
    )
    data = made.evidence()
    made.bundle.write_bytes(data)
    world.blobs[blake2_256(data).hex()] = data
    with world.chain() as chain:
        measurement = simulator.guest.measurements().measurement
        chain.call(world.processor.allow_measurement(measurement), signer=ADMIN)
        endpoint = chain.read(world.processor.get_worker(1)).endpoint + b"/3"  # type: ignore[union-attr]  # it is there
        worker = register_test_worker(
            chain,
            world.processor,
            secrets.signer,
            registrar=ADMIN,
            measurement=measurement,
            encryption_key=secrets.encryption_key.public_key,
            endpoint=endpoint,
            evidence_hash=blake2_256(data),
        )
    assert worker == 3
    root = tmp_path / "root.pem"
    root.write_text(simulator.root_pem)
    strict = run(
        *("policy", "from-evidence", made.bundle, "-o", made.policy, "--root", f"simulated={root}")
    )
    assert strict.exit_code == 0, strict.stderr
    monkeypatch.setenv("PHALA_JOBS_KEYS_UNENCRYPTED", "true")
    monkeypatch.setenv("PHALA_JOBS_ACCOUNT", "owner")
    assert run("keys", "new", "owner").exit_code == 0
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"secret input")
    return path


def _outcomes(ran: Ran) -> dict[str, str]:
    return {row["code"]: row["outcome"] for row in ran.document["checks"]}


class TestVerify:
    def test_the_policy_made_from_evidence_accepts_it(self, run: Run, shown: Shown) -> None:
        ran = run("evidence", "verify", shown.bundle, "--policy", shown.policy)
        as_json = run("evidence", "verify", shown.bundle, "--policy", shown.policy, "--json")

        assert ran.exit_code == 0, ran.stderr
        assert [line.split()[0] for line in ran.stdout.splitlines() if line[:1] == "E"] == [
            check.value for check in EvidenceCheck
        ]
        assert SIMULATED in ran.stderr
        outcomes = _outcomes(as_json)
        assert as_json.document["accepted"] is True
        assert as_json.document["simulated"] is True
        assert as_json.document["evidence"]["tee"] == SIMULATED
        assert {code for code, outcome in outcomes.items() if outcome == "passed"} == {
            check.value for check in list(EvidenceCheck)[:12]
        }
        assert outcomes["E13"] == outcomes["E14"] == "not checked"

    def test_it_needs_no_chain(
        self, run: Run, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PHALA_JOBS_CHAIN")
        monkeypatch.delenv("PHALA_JOBS_CONTRACT")

        assert run("evidence", "verify", shown.bundle, "--policy", shown.policy).exit_code == 0

    def test_another_policy_refuses_and_says_which_check(
        self, run: Run, shown: Shown, tmp_path: Path
    ) -> None:
        starter = tmp_path / "starter.toml"
        assert run("policy", "init", starter).exit_code == 0

        ran = run("evidence", "verify", shown.bundle, "--policy", starter, "--json")

        assert ran.exit_code == 1
        assert ran.document["error"] == "E02"
        assert ran.document["accepted"] is False
        assert _outcomes(ran)["E02"] == "failed"

    @pytest.mark.parametrize("form", ["date", "milliseconds"])
    def test_as_of_another_time(self, run: Run, shown: Shown, form: str) -> None:
        late = _now() + 40 * DAY
        text = str(late)
        if form == "date":
            text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(late / 1_000))

        ran = run(
            *("evidence", "verify", shown.bundle, "--policy", shown.policy, "--at", text, "--json")
        )

        assert (ran.exit_code, ran.document["error"]) == (1, "E03")

    def test_the_chain_tells_about_the_keys(self, run: Run, shown: Shown) -> None:
        words = ("evidence", "verify", shown.bundle, "--policy", shown.policy, "--json")

        own = run(*words, "--worker", 3)
        others = run(*words, "--worker", 1)

        assert own.exit_code == 0, own.stderr
        assert own.document["is_on_chain"] is True
        assert _outcomes(own)["E14"] == "passed"
        assert others.exit_code == 1
        assert _outcomes(others)["E12"] == "failed"
        assert others.document["is_on_chain"] is False

    def test_a_revoked_worker_is_refused(self, run: Run, shown: Shown) -> None:
        with shown.world.chain() as chain:
            chain.call(shown.world.processor.revoke_worker(3, bytes(32)), signer=ADMIN)

        ran = run(
            *("evidence", "verify", shown.bundle, "--policy", shown.policy, "--worker", 3, "--json")
        )

        assert (ran.exit_code, ran.document["error"]) == (1, "E14")

    def test_a_worker_of_another_version_than_it_is_registered_as_is_refused(
        self, run: Run, shown: Shown
    ) -> None:
        secrets = WorkerSecrets(
            signer=EcdsaSigner.generate(), encryption_key=EncryptionKey.generate()
        )
        data = replace(shown, secrets=secrets).evidence()
        shown.bundle.write_bytes(data)
        with shown.world.chain() as chain:
            listed = register_test_worker(
                chain,
                shown.world.processor,
                secrets.signer,
                registrar=ADMIN,
                measurement=MEASUREMENT,
                encryption_key=secrets.encryption_key.public_key,
                evidence_hash=blake2_256(data),
            )
        words = ("evidence", "verify", shown.bundle, "--policy", shown.policy, "--json")

        compared = run(*words, "--worker", listed)

        assert run(*words).exit_code == 0, "by itself it is good"
        assert (compared.exit_code, compared.document["error"]) == (1, "E09")

    def test_without_collateral_nobody_can_tell_until_it_is_given(
        self, run: Run, shown: Shown, tmp_path: Path
    ) -> None:
        bare, source = tmp_path / "bare", tmp_path / "collateral.json"
        bundle = load_bundle(shown.bundle.read_bytes())
        assert bundle.collateral is not None
        bare.write_bytes(dump_bundle(replace(bundle, collateral=None)))
        source.write_text(dump_collateral_json(bundle.collateral))
        words = ("evidence", "verify", bare, "--policy", shown.policy)

        without = run(*words, "--json")
        given = run(*words, "--collateral", f"file:{source}")

        assert (without.exit_code, without.document["error"]) == (3, "CollateralUnavailableError")
        assert given.exit_code == 0, given.stderr

    def test_what_is_no_bundle_or_has_no_policy_is_bad_input(
        self, run: Run, shown: Shown, data: Path
    ) -> None:
        for words in (
            (data, "--policy", shown.policy),
            (shown.bundle,),
            (shown.bundle, "--policy", data),
            (shown.bundle, "--policy", shown.policy, "--at", "yesterday"),
        ):
            assert run("evidence", "verify", *words).exit_code == 2, words


def test_show_prints_claims_and_says_that_they_are_such(run: Run, shown: Shown) -> None:
    ran = run("evidence", "show", shown.bundle, "--json")

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["verified"] is False
    assert ran.document["signing_key"] == "0x" + shown.secrets.signer.public_key.key.hex()
    assert ran.document["mrtd"] == "0x" + shown.simulator.guest.mrtd.hex()
    assert ran.document["evidence_hash"] == "0x" + blake2_256(shown.bundle.read_bytes()).hex()
    assert "nothing of this is verified" in ran.stderr
    assert SIMULATED in ran.document["root"]


class _Identity:
    """What of a worker's identity is asked for."""

    def __init__(self, secrets: WorkerSecrets) -> None:
        self.signing_key = secrets.signer.public_key
        self.encryption_key = secrets.encryption_key.public_key


class TestFetch:
    @pytest.fixture
    def urls(self, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Workers answer, over a wire that is not there; the URLs that were asked."""
        return self._answering(shown, monkeypatch)

    def _answering(
        self, shown: Shown, monkeypatch: pytest.MonkeyPatch, *, answer: bytes | None = None
    ) -> list[str]:
        urls: list[str] = []

        class Client:
            def __init__(self, url: str, token: str | None) -> None:
                assert token is None
                urls.append(url)

            async def identity(self) -> _Identity:
                return _Identity(shown.secrets)

            async def evidence(
                self, *, genesis: bytes, contract: bytes, challenge: bytes, signing_key: PublicKey
            ) -> bytes:
                assert contract == shown.world.contract
                assert signing_key == shown.secrets.signer.public_key
                bundle = load_bundle(shown.evidence(challenge=challenge))
                assert bundle.genesis_hash == genesis
                return dump_bundle(bundle) if answer is None else answer

            async def close(self) -> None:
                """Nothing is open."""

        monkeypatch.setattr(http, "HttpWorkerClient", Client)
        return urls

    @pytest.mark.parametrize("target", ["https://worker.example.org", "3"])
    def test_a_challenge_of_ones_own_is_answered(
        self, run: Run, shown: Shown, urls: list[str], target: str, tmp_path: Path
    ) -> None:
        kept = tmp_path / "kept"

        ran = run("evidence", "fetch", target, "--policy", shown.policy, "-o", kept, "--json")
        again = run("evidence", "verify", kept, "--policy", shown.policy)

        assert ran.exit_code == 0, ran.stderr
        assert _outcomes(ran)["E13"] == _outcomes(ran)["E14"] == "passed"
        assert ran.document["simulated"] is True
        assert again.exit_code == 0, again.stderr
        assert urls[0].endswith("/3" if target == "3" else ".org")

    def test_each_challenge_is_new(self, run: Run, shown: Shown, urls: list[str]) -> None:
        words = ("evidence", "fetch", "3", "--policy", shown.policy, "--json")

        challenges = {run(*words).document["challenge"] for _ in range(2)}

        assert len(challenges) == len(urls) == 2

    def test_an_old_answer_is_refused(
        self, run: Run, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._answering(shown, monkeypatch, answer=shown.bundle.read_bytes())

        ran = run("evidence", "fetch", "3", "--policy", shown.policy, "--json")

        assert (ran.exit_code, ran.document["error"]) == (1, "E13")
        assert [code for code, outcome in _outcomes(ran).items() if outcome == "failed"] == ["E13"]

    def test_an_answer_that_is_no_bundle_says_nothing(
        self, run: Run, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._answering(shown, monkeypatch, answer=b"\xa0")

        ran = run("evidence", "fetch", "3", "--policy", shown.policy, "--json")

        assert (ran.exit_code, ran.document["error"]) == (3, "WorkerProtocolError")

    def test_without_a_policy_nothing_is_called_verified(
        self, run: Run, shown: Shown, urls: list[str]
    ) -> None:
        ran = run("evidence", "fetch", "3", "--json")

        assert ran.exit_code == 0, ran.stderr
        assert ran.document["verified"] is False
        assert "nothing of this is verified" in ran.stderr
        assert len(urls) == 1

    def test_a_first_policy_is_made_of_it_with_collateral_from_a_pccs(
        self, run: Run, shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        bare = replace(load_bundle(shown.evidence()), collateral=None)
        self._answering(shown, monkeypatch, answer=dump_bundle(bare))
        (tmp_path / "root.pem").write_text(shown.simulator.root_pem)
        kept, policy, client = tmp_path / "kept", tmp_path / "first.toml", tmp_path / "client"
        monkeypatch.setenv("PHALA_JOBS_CLIENT", str(client))

        with StandInPccs(lambda _: shown.simulator.collateral(now=_now() - 60_000)) as pccs:
            ran = run("evidence", "fetch", "3", "--collateral", pccs.url, "-o", kept)
        root = f"own={tmp_path / 'root.pem'}"
        made = run("policy", "from-evidence", kept, "--root", root, "-o", policy)
        again = run("evidence", "verify", kept, "--policy", policy)

        assert ran.exit_code == 0, ran.stderr
        assert made.exit_code == 0, made.stderr
        assert again.exit_code == 0, again.stderr
        assert not client.exists()  # nobody has said whose signatures to keep

    def test_a_worker_that_is_not_there_is_refused(self, run: Run, shown: Shown) -> None:
        ran = run("evidence", "fetch", "9", "--policy", shown.policy, "--json")

        assert (ran.exit_code, ran.document["error"]) == (1, "WorkerNotFound")


class TestShow:
    def test_compose_document_and_events_are_shown_as_they_are(
        self, run: Run, shown: Shown, tmp_path: Path
    ) -> None:
        bundle = load_bundle(shown.bundle.read_bytes())
        assert bundle.compose is not None
        first, *_ = events = runtime_events(bundle.event_log)

        document = run("evidence", "show", shown.bundle, "--compose")
        listed = run("evidence", "show", shown.bundle, "--events")
        told = run("evidence", "show", shown.bundle, "--compose", "--events", "--json").document

        assert document.stdout_bytes == bundle.compose + b"\n"
        assert "nothing of this is verified" in document.stderr
        assert all(one.name in listed.stdout for one in events)
        assert first.payload.hex() in listed.stdout
        assert told["compose"].encode() == bundle.compose
        assert [(one["event"], one["payload"]) for one in told["events"]] == [
            (one.name, one.payload.hex()) for one in events
        ]
        assert told["verified"] is False

    def test_what_a_worker_wrote_drives_no_terminal(
        self, run: Run, shown: Shown, tmp_path: Path
    ) -> None:
        hostile = tmp_path / "hostile"
        bundle = load_bundle(shown.bundle.read_bytes())
        hostile.write_bytes(dump_bundle(replace(bundle, compose=b"a\x1b[2J\xff\rb\n\tc")))

        ran = run("evidence", "show", hostile, "--compose")

        assert ran.stdout == "a\N{REPLACEMENT CHARACTER}[2J" + "\N{REPLACEMENT CHARACTER}" * 2 + (
            "b\n\tc\n"
        )

    def test_evidence_without_a_compose_document_says_so(
        self, run: Run, shown: Shown, tmp_path: Path
    ) -> None:
        bare = tmp_path / "bare"
        bundle = load_bundle(shown.bundle.read_bytes())
        bare.write_bytes(dump_bundle(replace(bundle, compose=None)))

        ran = run("evidence", "show", bare, "--compose", "--json")

        assert (ran.exit_code, ran.document["error"]) == (2, "InputError")
        assert "no compose document" in ran.document["message"]


class TestSubmit:
    def test_the_verdict_is_shown_in_short_and_whole_in_json(
        self, run: Run, shown: Shown, data: Path
    ) -> None:
        words = ("submit", "echo", data, "--policy", shown.policy)

        said = run(*words)
        told = run(*words, "--json")

        assert said.exit_code == told.exit_code == 0, said.stderr + told.stderr
        assert f"worker 3: evidence accepted: {SIMULATED}, root simulated" in said.stderr
        entries = {entry["worker"]: entry for entry in told.document["evidence"]}
        assert entries[3]["accepted"] is True
        assert entries[3]["simulated"] is True
        assert len(entries[3]["checks"]) == 14
        for job in (1, 2):
            assert run("status", job, "--json").document["workers"] == [3]

    def test_it_is_said_whose_collateral_judged(
        self, run: Run, shown: Shown, data: Path, tmp_path: Path
    ) -> None:
        bundle = load_bundle(shown.bundle.read_bytes())
        assert bundle.collateral is not None
        newest = tmp_path / "collateral.json"
        newest.write_text(dump_collateral_json(bundle.collateral))
        words = ("submit", "echo", data, "--policy", shown.policy, "--worker", 3)
        source = ("--collateral", f"file:{newest}")

        own, told = run(*words), run(*words, "--json").document
        named, told_named = run(*words, *source), run(*words, *source, "--json").document
        shown.world.attest(1, worker=3)
        result = ("result", 1, "--policy", shown.policy)
        results = [run(*result), run(*result, *source)]

        (entry,) = told["evidence"]
        ends = shown_time(entry["evidence"]["collateral_valid_until"])
        warning = f"warning: judged by the collateral in the worker's evidence, valid until {ends}"
        assert [warning in ran.stderr for ran in (own, named, *results)] == [
            *(True, False, True, False)
        ]
        assert told["collateral_source"] == "evidence"
        assert told_named["collateral_source"] == "settings"

    def test_a_named_worker_that_is_refused_gets_nothing(
        self, run: Run, shown: Shown, data: Path, tmp_path: Path
    ) -> None:
        lines = shown.policy.read_text().splitlines()
        other = tmp_path / "other.toml"
        other.write_text(
            "\n".join(
                f'mrtd = "{"ab" * 48}"' if line.startswith("mrtd") else line for line in lines
            )
        )

        ran = run("submit", "echo", data, "--policy", other, "--worker", 3, "--json")

        assert (ran.exit_code, ran.document["error"]) == (1, "E09")
        assert "worker 3" in ran.document["message"]
        assert shown.job_count() == 0

    def test_when_none_is_left_each_is_told_of(
        self, run: Run, shown: Shown, data: Path, tmp_path: Path
    ) -> None:
        starter = tmp_path / "starter.toml"
        assert run("policy", "init", starter).exit_code == 0

        ran = run("submit", "echo", data, policy=str(starter))

        assert ran.exit_code == 3  # workers 1 and 2 have no evidence that anybody could find
        assert "E02: the evidence of worker 3 " in ran.stderr
        assert "evidence of worker 1 " in ran.stderr
        assert shown.job_count() == 0

    def test_a_policy_that_can_not_be_read_seals_nothing(
        self, run: Run, shown: Shown, data: Path, tmp_path: Path
    ) -> None:
        typo = tmp_path / "typo.toml"
        typo.write_text(shown.policy.read_text().replace("statuses", "statusses"))

        for policy in (typo, tmp_path / "absent.toml"):
            ran = run("submit", "echo", data, "--policy", policy, "--json")
            assert ran.exit_code == 2, ran.stderr
        assert shown.job_count() == 0

    def test_a_dry_run_shows_it_too(self, run: Run, shown: Shown, data: Path) -> None:
        ran = run("submit", "echo", data, "--policy", shown.policy, "--dry-run", "--json")

        assert ran.exit_code == 0, ran.stderr
        assert {entry["worker"]: entry["accepted"] for entry in ran.document["evidence"]}[3]
        assert shown.job_count() == 0


class TestResult:
    def test_the_evidence_of_who_signed_is_shown(self, run: Run, shown: Shown, data: Path) -> None:
        run("submit", "echo", data, "--policy", shown.policy, "--worker", 3)
        shown.world.attest(1, worker=3)

        ran = run("result", 1, "--policy", shown.policy)
        told = run("result", 1, "--policy", shown.policy, "--json")

        assert ran.stdout_bytes == b"secret input"
        assert SIMULATED in ran.stderr
        assert told.document["evidence"]["simulated"] is True
        assert told.document["is_submission_known"] is True
        assert "note: " not in ran.stderr

    def test_a_policy_is_not_dropped_without_a_word(
        self, run: Run, shown: Shown, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("submit", "echo", data, "--policy", shown.policy, "--worker", 3)
        shown.world.attest(1, worker=3)

        trusting = run("result", 1)
        monkeypatch.setattr(Session, "is_trusted_chain", lambda _self, _url: False)
        refused = run("result", 1)
        opened = run("result", 1, "--policy", shown.policy)

        assert trusting.stdout_bytes == opened.stdout_bytes == b"secret input"
        warning = "warning: job 1 was sealed under a policy"
        assert warning in trusting.stderr
        assert warning not in opened.stderr
        assert (refused.exit_code, refused.stdout_bytes) == (2, b"")
        assert "was sealed under policy 0x" in refused.stderr
        assert "--policy" in refused.stderr

    def test_a_list_that_did_not_send_the_job_says_what_is_the_node_s_word(
        self, run: Run, shown: Shown, data: Path, tmp_path: Path
    ) -> None:
        run("submit", "echo", data, "--policy", shown.policy, "--worker", 3)
        shown.world.attest(1, worker=3)
        words = ("result", 1, "--policy", shown.policy, "--client", tmp_path / "elsewhere")

        ran = run(*words)
        told = run(*words, "--json")

        assert ran.stdout_bytes == b"secret input"
        assert "note: this machine's list did not send job 1: " in ran.stderr
        assert told.document["is_submission_known"] is False

    def test_a_result_by_a_key_that_no_evidence_is_accepted_for_is_refused(
        self, run: Run, shown: Shown, data: Path, tmp_path: Path
    ) -> None:
        run("submit", "echo", data, "--worker", 3)
        shown.world.attest(1, worker=3)
        starter = tmp_path / "starter.toml"
        assert run("policy", "init", starter).exit_code == 0

        ran = run("result", 1, "--policy", starter, "--json")

        assert (ran.exit_code, ran.document["error"]) == (1, "E02")
        assert "secret input" not in ran.stdout
