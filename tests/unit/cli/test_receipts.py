"""`receipt` and `verify`: files, folders, options, exit codes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain import url
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.config import PREFIX
from orchestrator.encoding import blake2_256, registration_digest, to_ss58
from orchestrator.evidence import dump_bundle, load_bundle
from orchestrator.models import WorkerRegistration
from orchestrator.simulator import Simulator
from tests.unit.receipts.proving_chain import ProvingChain
from tests.unit.receipts.world import (
    ADMIN,
    DAY,
    RESULT,
    ReceiptWorld,
    evidence_from,
    make_receipt_world,
    policy_text,
)

from .conftest import Run
from .world import World


class LastingChain(ProvingChain):
    """One that commands may close as often as they like."""

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Place:
    """A world with a job that can have a receipt; its evidence and policy are in a folder."""

    world: ReceiptWorld
    evidence: Path
    policy: bytes
    path: Path

    @property
    def chain(self) -> ProvingChain:
        assert isinstance(self.world.chain, ProvingChain)
        return self.world.chain


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.create()


def settle(
    world: ReceiptWorld, chain: str, policy: bytes, tmp_path: Path, patch: pytest.MonkeyPatch
) -> Place:
    folder = tmp_path / "evidence"
    kept = DirectoryBlobStore(folder)
    kept.put(world.evidence)
    kept.put(policy)
    for name, value in {
        "chain": chain,
        "contract": to_ss58(world.processor.contract),
        "evidence": str(folder),
    }.items():
        patch.setenv(PREFIX + name.upper(), value)
    patch.chdir(tmp_path)
    return Place(world=world, evidence=folder, policy=policy, path=tmp_path / "receipt-1.json")


def registered(chain: Any, simulator: Simulator, policy: bytes) -> ReceiptWorld:  # noqa: ANN401 - any chain
    return make_receipt_world(
        chain,
        measurement=simulator.guest.measurements().measurement,
        evidence_of=evidence_from(simulator, chain, policy),
    )


@pytest.fixture
def proving(
    home: Path, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """On a chain that proves its storage."""
    policy, chain = policy_text(simulator).encode(), LastingChain()
    monkeypatch.setattr(url, "open_chain", lambda *_, **__: chain)
    return settle(registered(chain, simulator, policy), "ws://node", policy, tmp_path, monkeypatch)


@pytest.fixture
def embedded(
    home: Path, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """On an embedded chain, which proves nothing."""
    policy, file = policy_text(simulator).encode(), tmp_path / "chain.db"
    chain = EmbeddedChain(file)
    world = registered(chain, simulator, policy)
    yield settle(world, f"local:{file}", policy, tmp_path, monkeypatch)
    chain.close()


def outcomes(document: Any) -> dict[str, str]:  # noqa: ANN401 - JSON
    return {row["step"]: row["outcome"] for row in document["steps"]}


def test_a_receipt_is_written_and_verified_with_the_block_that_one_trusts(
    run: Run, proving: Place
) -> None:
    written = run("receipt", 1, "--json")
    assert written.exit_code == 0, written.stderr
    block = written.document["block_hash"]

    words = ("verify", proving.path, "--trusted-block", block, "--json")
    verified = run(*words, "--receipts-policy")
    nobodys = run(*words)

    assert written.document["bytes"] == proving.path.stat().st_size
    assert verified.exit_code == 0, verified.stderr
    document = verified.document
    assert document["verified"] is True
    assert document["policy"] == "receipt"
    assert document["job_id"] == 1
    assert document["evidence"]["simulated"] is True
    left = {name for name, outcome in outcomes(document).items() if outcome != "passed"}
    assert left == {"result", "E13 challenge fresh", "events", "finality"}
    assert "simulated: proves no TEE; job 1: worker 1 signed this result" in verified.stderr
    assert "bound to what the registrar's policy allows, as of 20" in verified.stderr
    # A stranger's policy names a stranger's root: nothing is verified by that alone.
    assert nobodys.exit_code == 3
    assert (nobodys.document["verified"], nobodys.document["policy"]) == (False, None)
    assert outcomes(nobodys.document)["policy"] == "not checked"
    assert nobodys.stderr == (
        "note: not everything could be checked: policy; simulated: proves no TEE\n"
    )


def test_people_see_every_step_in_a_sentence(run: Run, proving: Place) -> None:
    block = run("receipt", 1, "--json").document["block_hash"]

    shown = run("verify", proving.path, "--trusted-block", block, "--receipts-policy")

    assert shown.exit_code == 0
    assert "not checked: " not in shown.stdout
    for word in ("canonical form", "storage proof", "E02 signatures", "job's row", "finality"):
        assert word in shown.stdout


def test_without_a_trusted_block_nobody_can_tell(run: Run, proving: Place) -> None:
    run("receipt", 1)

    verified = run("verify", proving.path, "--json")

    assert verified.exit_code == 3
    assert verified.document["error"] == "NotChecked"
    assert verified.document["verified"] is False
    assert outcomes(verified.document)["block"] == "not checked"
    assert "note: not everything could be checked: block" in verified.stderr
    assert "error" not in verified.stderr


def test_another_block_another_result_and_a_changed_file_are_refused(
    run: Run, proving: Place
) -> None:
    block = run("receipt", 1, "--json").document["block_hash"]
    result = proving.path.with_name("result")
    result.write_bytes(RESULT)
    good = ("verify", proving.path, "--trusted-block", block, "--result", result)
    assert run(*good, "--receipts-policy").exit_code == 0

    other_block = run("verify", proving.path, "--trusted-block", "11" * 32, "--json")
    result.write_bytes(RESULT + b"!")
    other_result = run(*good)
    proving.path.write_bytes(proving.path.read_bytes().replace(b'"units": 7', b'"units": 8'))
    changed = run("verify", proving.path, "--trusted-block", block)
    proving.path.write_bytes(proving.path.read_bytes() + b"\n")
    reformed = run("verify", proving.path, "--trusted-block", block)

    assert other_block.exit_code == 1
    assert other_block.document["error"] == "NotVerified"
    assert outcomes(other_block.document)["block"] == "failed"
    assert other_result.exit_code == 1
    assert "NotVerified: result:" in other_result.stderr
    assert other_result.stderr.endswith("; simulated: proves no TEE\n")
    assert changed.exit_code == 1
    assert "job's row: the contract has recorded something else" in changed.stderr
    assert reformed.exit_code == 1
    assert "canonical form: written differently" in reformed.stderr


def test_the_reader_s_own_policy_and_time_decide(
    run: Run, proving: Place, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = run("receipt", 1, "--json").document["block_hash"]
    own = proving.path.with_name("own.toml")
    good = ("verify", proving.path, "--trusted-block", block)
    own.write_text(policy_text(simulator, minimum_evaluation_number=1_000))
    refused = run(*good, "--policy", own)
    own.write_text(policy_text(simulator) + "# mine\n")
    accepted = run(*good, "--policy", own, "--json")
    later = run(*good, "--policy", own, "--at", "2031-01-01T00:00:00Z")
    recorded = accepted.document["recorded_at"]
    earlier = run(*good, "--policy", own, "--at", recorded - 1)
    at_most_one = run(*good, "--policy", own, "--receipts-policy")
    monkeypatch.setenv("PHALA_JOBS_POLICY", str(own))
    own.write_text(policy_text(simulator, minimum_evaluation_number=1_000))
    setting = run(*good, "--json")
    instead_of_setting = run(*good, "--receipts-policy", "--json")
    own.write_text("not a policy")

    assert refused.exit_code == 1
    assert "E07 TCB evaluation number" in refused.stderr
    assert accepted.exit_code == 0
    assert accepted.document["policy"] == "reader"
    assert outcomes(accepted.document)["receipt's policy"] == "passed"
    assert later.exit_code == 1
    assert "E03 collateral valid at the time" in later.stderr
    assert earlier.exit_code == 3
    assert "could be checked: time of judging;" in earlier.stderr
    assert "before the statement was recorded at" in " ".join(earlier.stdout.split())
    assert at_most_one.exit_code == 2
    assert (setting.exit_code, setting.document["policy"]) == (1, "reader")
    assert instead_of_setting.exit_code == 0
    assert instead_of_setting.document["policy"] == "receipt"
    assert run(*good, "--policy", own).exit_code == 2
    assert run(*good, "--at", "some day").exit_code == 2
    assert run("verify", proving.path, "--trusted-block", "11").exit_code == 2


def test_an_envelope_is_signed_by_the_account_and_verified_the_same(
    run: Run,
    proving: Place,
    secret_file: Any,  # noqa: ANN401 - a fixture's function
) -> None:
    account = secret_file("account", "//Alice\n")
    written = run("receipt", 1, "--dsse", "--json", "--account-file", account)
    assert written.exit_code == 0, written.stderr

    verified = run(
        *("verify", proving.path, "--receipts-policy", "--json"),
        *("--trusted-block", written.document["block_hash"]),
    )

    envelope = json.loads(proving.path.read_text())
    assert envelope["payloadType"] == "application/vnd.phala-jobs.receipt+json"
    assert envelope["signatures"][0]["keyid"] == to_ss58(ADMIN.account_id)
    assert verified.exit_code == 0, verified.stderr
    assert outcomes(verified.document)["envelope signature"] == "passed"


def test_a_chain_without_proofs_gives_a_receipt_that_says_so(run: Run, embedded: Place) -> None:
    written = run("receipt", 1, "--json")
    verified = run("verify", embedded.path, "--json")
    no_block = run("receipt", 1, "--block", 1, "-o", "other.json")

    assert written.exit_code == 0, written.stderr
    assert written.document["block_hash"] is None
    assert "this chain gives no proofs" in written.stderr
    assert verified.exit_code == 3
    found = outcomes(verified.document)
    assert found["block"] == found["storage proof"] == found["worker's row"] == "not checked"
    assert found["signature"] == found["E12 binds keys, chain, contract, challenge"] == "passed"
    assert no_block.exit_code == 2
    assert not Path("other.json").exists()


def test_evidence_and_policy_may_be_given_as_files(run: Run, embedded: Place) -> None:
    evidence, policy = Path("bundle.cbor"), Path("registrar.toml")
    evidence.write_bytes(embedded.world.evidence)
    policy.write_bytes(embedded.policy)
    empty = ("--evidence", "nothing-here")
    given = ("--evidence-file", evidence, "--policy", policy)

    no_evidence = run("receipt", 1, *empty, "--policy", policy)
    no_policy = run("receipt", 1, *empty, "--evidence-file", evidence)
    policy.write_bytes(embedded.policy + b"\n")
    other_policy = run("receipt", 1, *empty, *given)
    evidence.write_bytes(b"other")
    other_evidence = run("receipt", 1, *empty, *given)
    assert not embedded.path.exists()
    policy.write_bytes(embedded.policy)
    evidence.write_bytes(embedded.world.evidence)
    written = run("receipt", 1, *empty, *given)

    assert no_evidence.exit_code == 2
    assert "give it with --evidence-file" in no_evidence.stderr
    assert no_policy.exit_code == other_policy.exit_code == 2
    assert "ask the registrar for it" in no_policy.stderr
    assert other_evidence.exit_code == 2
    assert "not what worker 1 is registered with" in other_evidence.stderr
    assert written.exit_code == 0, written.stderr


def test_evidence_that_names_no_policy_is_nobody_s_registration(
    run: Run, home: Path, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, chain = policy_text(simulator).encode(), LastingChain()
    monkeypatch.setattr(url, "open_chain", lambda *_, **__: chain)
    complete = evidence_from(simulator, chain, policy)
    world = make_receipt_world(
        chain,
        measurement=simulator.guest.measurements().measurement,
        evidence_of=lambda *given: dump_bundle(
            replace(load_bundle(complete(*given)), policy_hash=None)
        ),
    )
    place = settle(world, "ws://node", policy, tmp_path, monkeypatch)

    refused = run("receipt", 1)

    assert refused.exit_code == 1
    assert "NoPolicy" in refused.stderr
    assert not place.path.exists()


def test_what_would_not_be_accepted_is_not_written(run: Run, proving: Place) -> None:
    proving.chain.call(proving.world.processor.revoke_worker(1, bytes(32)), signer=ADMIN)

    refused = run("receipt", 1)

    assert refused.exit_code == 1
    assert "this receipt would not be accepted: E14" in refused.stderr
    assert not proving.path.exists()


def test_evidence_of_a_later_renewal_was_not_valid_when_the_job_was_recorded(
    run: Run, proving: Place, simulator: Simulator
) -> None:
    """The keys are the same; an older block has the evidence of then."""
    chain, world = proving.chain, proving.world
    chain.time += 2 * DAY
    worker = chain.read(world.processor.get_worker(1))
    assert worker is not None
    bundle = load_bundle(world.evidence)
    renewed = dump_bundle(replace(bundle, collateral=simulator.collateral(now=chain.time - DAY)))
    registration = WorkerRegistration(
        signing_key=worker.signing_key,
        encryption_key=worker.encryption_key,
        measurement=worker.measurement,
        evidence_hash=blake2_256(renewed),
        endpoint=worker.endpoint,
        valid_until=chain.time + DAY,
    )
    digest = registration_digest(
        registration, genesis_hash=chain.genesis_hash, contract=world.processor.contract
    )
    possession = world.signer.sign(digest)
    call = world.processor.renew_worker(
        1, registration.evidence_hash, registration.valid_until, possession
    )
    chain.call(call, signer=ADMIN)
    DirectoryBlobStore(proving.evidence).put(renewed)

    refused = run("receipt", 1)

    assert refused.exit_code == 1
    assert "E03 collateral valid at the time" in refused.stderr
    assert "an earlier --block may be one where it was" in refused.stderr


def test_a_file_that_is_there_is_not_written_over(run: Run, embedded: Place) -> None:
    embedded.path.write_text("mine")

    assert run("receipt", 1).exit_code == 2
    assert embedded.path.read_text() == "mine"


def test_jobs_without_attestation_have_no_receipt(run: Run, embedded: Place) -> None:
    job = embedded.world.submit()

    assert run("receipt", job).exit_code == 1
    assert run("receipt", job + 1).exit_code == 2


def test_options_that_would_do_nothing_are_refused(run: Run, embedded: Place) -> None:
    run("receipt", 1)
    receipt, attestation = embedded.path, Path("attestation.json")
    attestation.write_text(
        json.dumps(json.loads(receipt.read_text())["attestation"], indent=2) + "\n"
    )

    assert run("verify", attestation).exit_code == 3
    for words in (
        ("verify", attestation, "--trusted-block", "11" * 32),
        ("verify", attestation, "--at", "1"),
        ("verify", 1, "--at", "1"),
        ("verify", attestation, "--receipts-policy"),
        ("verify", receipt, "--against-chain"),
        ("verify", receipt, "--accept-key", "02" + "11" * 32),
    ):
        refused = run(*words)
        assert refused.exit_code == 2, words
        assert " no --" in refused.stderr


def test_a_receipt_with_a_damaged_beginning_is_still_examined_as_one(
    run: Run, proving: Place
) -> None:
    run("receipt", 1)
    whole = proving.path.read_bytes()

    for mark in (b"phala-jobs receipt", b'"attestation": {', b'"version"'):
        proving.path.write_bytes(whole.replace(mark, mark[:-1] + b"!", 1))
        refused = run("verify", proving.path)
        assert refused.exit_code == 1
        assert "NotVerified: canonical form:" in refused.stderr


def test_the_contract_of_the_settings_is_the_one_that_is_expected(run: Run, proving: Place) -> None:
    block = run("receipt", 1, "--json").document["block_hash"]
    good = ("verify", proving.path, "--trusted-block", block, "--json")

    assert outcomes(run(*good).document)["expected contract"] == "passed"
    refused = run(*good, "--contract", to_ss58(bytes(32)))
    assert refused.exit_code == 1
    assert outcomes(refused.document)["expected contract"] == "failed"


def test_what_is_neither_is_bad_input(run: Run, world: World) -> None:
    neither = Path(world.path.parent / "neither.json")
    neither.write_text('{"format": "a letter"}')

    assert run("verify", neither).exit_code == 2
