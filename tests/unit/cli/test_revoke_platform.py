"""`workers revoke --platform`: what is wrong with one worker saves no other."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import dcap_qvl
import pytest

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.cli.session import Session
from orchestrator.client.chain_view import ChainView
from orchestrator.config import PREFIX
from orchestrator.crypto import EcdsaSigner, EncryptionKey
from orchestrator.encoding import blake2_256, registration_digest
from orchestrator.errors import ChainUnavailableError, ContractError
from orchestrator.evidence import dump_bundle, load_bundle
from orchestrator.models import Page, WorkerRegistration
from orchestrator.simulator import Simulator
from orchestrator.simulator.platform import Platform
from orchestrator.testing import register_test_worker
from orchestrator.testing.evidence import simulated_bundle

from .conftest import Ran, Run
from .world import ADMIN, World

DAY = 86_400_000


@dataclass
class Machines:
    """A chain whose workers 1 and 2 are revoked; evidence of others comes from machines."""

    world: World
    here: Simulator
    elsewhere: Simulator
    evidence: Path
    hashes: list[bytes] = field(default_factory=list)

    def bundle(self, machine: Simulator, signer: EcdsaSigner, encryption_key: bytes) -> bytes:
        with self.world.chain() as chain:
            return simulated_bundle(
                machine,
                genesis_hash=chain.genesis_hash,
                contract=self.world.contract,
                signing_key=signer.public_key,
                encryption_key=encryption_key,
                collateral=None,
            )

    def register(
        self,
        *machines: Simulator,
        change: Callable[[bytes], bytes] = lambda bundle: bundle,
    ) -> int:
        """Register a worker with evidence of the first machine, and renew it with the others'."""
        signer, key = EcdsaSigner.generate(), EncryptionKey.generate().public_key
        bundles = [change(self.bundle(machine, signer, key)) for machine in machines]
        hashes = [DirectoryBlobStore(self.evidence).put(bundle) for bundle in bundles]
        self.hashes += hashes
        processor = self.world.processor
        with self.world.chain() as chain:
            worker = register_test_worker(
                chain,
                processor,
                signer,
                registrar=ADMIN,
                measurement=self.here.guest.measurements().measurement,
                encryption_key=key,
                evidence_hash=hashes[0],
            )
            for number, digest in enumerate(hashes[1:], 2):
                listed = chain.read(processor.get_worker(worker))
                assert listed is not None
                renewal = WorkerRegistration(
                    signing_key=signer.public_key,
                    encryption_key=key,
                    measurement=listed.measurement,
                    evidence_hash=digest,
                    endpoint=listed.endpoint,
                    valid_until=chain.now() + number * DAY,
                )
                signed = signer.sign(
                    registration_digest(
                        renewal, genesis_hash=chain.genesis_hash, contract=self.world.contract
                    )
                )
                chain.call(
                    processor.renew_worker(worker, digest, renewal.valid_until, signed),
                    signer=ADMIN,
                )
        return worker


@pytest.fixture
def machines(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    here = Simulator.create()
    elsewhere = replace(here, platform=Platform.create(here.authority))
    with world.chain() as chain:
        for number in (1, 2):
            chain.call(world.processor.revoke_worker(number, bytes(32)), signer=ADMIN)
        chain.call(
            world.processor.allow_measurement(here.guest.measurements().measurement), signer=ADMIN
        )
    evidence = tmp_path / "evidence"
    evidence.mkdir(mode=0o700)
    monkeypatch.setenv(PREFIX + "EVIDENCE", str(evidence))
    return Machines(world=world, here=here, elsewhere=elsewhere, evidence=evidence)


def revoke(run: Run, machine: Simulator, *more: object) -> Ran:
    ppid = machine.platform.ppid.hex()
    return run("workers", "revoke", "--platform", ppid, "--reason", "stolen", *more)


def statuses(run: Run) -> list[str]:
    rows = run("workers", "list", "--json").document["workers"]
    return [row["status"] for row in rows if row["worker"] > 2]


def with_damaged_certificate(bundle: bytes) -> bytes:
    """Change one byte, so that the library finds no extension in the machine's certificate."""
    loaded = load_bundle(bundle)
    start = loaded.quote.find(b"-----BEGIN") + 28
    for place in range(start, start + 900):
        quote = bytearray(loaded.quote)
        quote[place] = ord("A") if quote[place] != ord("A") else ord("/")
        try:
            if dcap_qvl.parse_quote(bytes(quote)).pck_extension() is None:
                return dump_bundle(replace(loaded, quote=bytes(quote)))
        except ValueError:
            continue
    raise AssertionError


def test_when_all_could_be_judged_it_is_done(run: Run, machines: Machines) -> None:
    mine, other = machines.register(machines.here), machines.register(machines.elsewhere)

    ran = revoke(run, machines.here, "--json")

    assert (mine, other) == (3, 4)
    assert ran.exit_code == 0, ran.stderr
    assert ran.document == {
        "platform": "0x" + machines.here.platform.ppid.hex(),
        "revoked": [3],
        "unreadable": [],
        "failed": [],
        "earlier_unknown": None,
        "reason": "0x" + blake2_256(b"stolen").hex(),
    }
    assert statuses(run) == ["Revoked", "Active"]


def test_a_damaged_certificate_saves_no_other(run: Run, machines: Machines) -> None:
    machines.register(machines.here, change=with_damaged_certificate)
    machines.register(machines.here)

    ran = revoke(run, machines.here, "--json")

    assert ran.exit_code == 3
    assert ran.document["revoked"] == [4]
    assert [one["worker"] for one in ran.document["unreadable"]] == [3]
    assert "platform can't be read" in ran.document["unreadable"][0]["why"]
    assert "worker 3: its evidence can't be read" in ran.stderr
    assert statuses(run) == ["Active", "Revoked"]


def test_any_failure_of_reading_saves_no_other(
    run: Run, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that nobody thought of."""
    machines.register(machines.here)
    machines.register(machines.here)
    get = DirectoryBlobStore.get

    def fail(self: DirectoryBlobStore, digest: bytes, *, max_bytes: int) -> bytes:
        if not failed:
            failed.append(digest)
            raise RuntimeError("unthought of")
        return get(self, digest, max_bytes=max_bytes)

    failed: list[bytes] = []
    monkeypatch.setattr(DirectoryBlobStore, "get", fail)

    ran = revoke(run, machines.here, "--json")

    assert ran.exit_code == 3
    assert ran.document["revoked"] == [4]
    assert "unthought of" in ran.document["unreadable"][0]["why"]


@pytest.mark.parametrize(
    "refusal", [ContractError("WrongStatus"), ChainUnavailableError("away"), RuntimeError("bug")]
)
def test_a_transaction_that_fails_saves_no_other(
    run: Run, machines: Machines, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    machines.register(machines.here)
    machines.register(machines.here)
    send = Session.send

    def fail(self: Session, call: object, what: str) -> object:
        if what.endswith("worker 3"):
            raise refusal
        return send(self, call, what)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(Session, "send", fail)

    ran = revoke(run, machines.here, "--json")

    assert ran.exit_code == 1
    assert ran.document["revoked"] == [4]
    assert [one["worker"] for one in ran.document["failed"]] == [3]
    assert "worker 3: NOT revoked" in ran.stderr
    assert statuses(run) == ["Active", "Revoked"]


def test_one_that_somebody_else_has_just_revoked_is_revoked(
    run: Run, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.register(machines.here)

    def fail(_: Session, __: object, ___: str) -> object:
        raise ContractError("WorkerRevoked")

    monkeypatch.setattr(Session, "send", fail)

    ran = revoke(run, machines.here, "--json")

    assert (ran.exit_code, ran.document["revoked"]) == (0, [3])


def test_interrupted_it_says_what_was_done(
    run: Run, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.register(machines.here)
    machines.register(machines.here)
    send = Session.send

    def interrupt(self: Session, call: object, what: str) -> object:
        if what.endswith("worker 4"):
            raise KeyboardInterrupt
        return send(self, call, what)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(Session, "send", interrupt)

    ran = revoke(run, machines.here)

    assert ran.exit_code == 130
    assert "revoked" in ran.stdout
    assert statuses(run) == ["Revoked", "Active"]


# Earlier evidence.


def test_a_worker_that_was_there_earlier_is_revoked(run: Run, machines: Machines) -> None:
    machines.register(machines.here, machines.elsewhere, machines.elsewhere)
    machines.register(machines.elsewhere, machines.elsewhere)

    ran = revoke(run, machines.here, "--json")

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["revoked"] == [3]
    assert statuses(run) == ["Revoked", "Active"]


def test_earlier_evidence_that_is_not_to_be_had_is_told(run: Run, machines: Machines) -> None:
    machines.register(machines.elsewhere, machines.elsewhere)
    earlier = machines.hashes[0]
    DirectoryBlobStore(machines.evidence).delete(earlier)

    ran = revoke(run, machines.here, "--json")

    assert (ran.exit_code, ran.document["revoked"]) == (3, [])
    assert f"earlier evidence 0x{earlier.hex()}" in ran.document["unreadable"][0]["why"]


def test_without_events_the_registrars_records_are_looked_at(
    run: Run, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.register(machines.here, machines.elsewhere)
    earlier = machines.hashes[0]
    records = machines.evidence / "records"
    records.mkdir(exist_ok=True)
    (records / f"{earlier.hex()}.json").write_text(json.dumps({"worker": 3}))
    for name, text in (("ab.json", '{"worker": 3}'), ("zz.json", "{"), ("1.json", "[]")):
        (records / name).write_text(text)

    def fail(_: ChainView) -> dict[int, list[bytes]]:
        raise ChainUnavailableError("no events are kept")

    monkeypatch.setattr(ChainView, "evidence_by_worker", fail)

    ran = revoke(run, machines.here, "--json")

    assert (ran.exit_code, ran.document["revoked"]) == (3, [3])
    assert ran.document["earlier_unknown"] == "no events are kept"
    assert "earlier evidence is not known" in ran.stderr


# A node that lies.


@pytest.mark.parametrize(
    "words",
    [
        ("workers", "list"),
        ("workers", "revoke", "--platform", "ab" * 16, "--reason", "x"),
        ("workers", "revoke", "--measurement", "ab" * 32, "--reason", "x"),
        ("trust", "status"),
    ],
)
def test_pages_that_do_not_advance_end(
    run: Run,
    machines: Machines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n")
    monkeypatch.setenv(PREFIX + "POLICY", str(policy))
    read = EmbeddedChain.read

    def lie(self: EmbeddedChain, call: object) -> object:
        answer: object = read(self, call)  # type: ignore[arg-type]  # as it came
        asked.append(call)
        assert len(asked) < 100, "it goes on for ever"
        return replace(answer, next=1) if isinstance(answer, Page) else answer

    asked: list[object] = []
    monkeypatch.setattr(EmbeddedChain, "read", lie)

    ran = run(*words, "--json")

    assert ran.document["error"] == "ChainMismatchError"
    assert "go on at 1 after 1" in ran.document["message"]
