"""
How a worker gets on the trusted list, and stays there: on verified evidence alone.

1. A random challenge of 32 bytes, made for this one attempt and used in no other.
2. The worker's identity, and its evidence for this chain, this contract and that challenge.
3. The bundle is completed: collateral from our own source where there is one, the policy's hash.
4. `examine_evidence`: all fourteen checks, with what the chain says about the keys.
5. The measurement is allowed at the contract.
6. Possession: the worker signs its registration, and the signature is checked as the contract will.
7. Bundle, policy and record are on our disk, and the bundle is at the worker.
8. `register_worker` or `renew_worker`, and it is read back.

Whatever fails before 8 changes nothing on the chain.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.collateral import CollateralSource
from orchestrator.crypto.keys import verify_signature
from orchestrator.encoding import registration_digest
from orchestrator.errors import EncodingError, RefusedError
from orchestrator.evidence import (
    EvidenceError,
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    Policy,
    Verdict,
    VerifiedEvidence,
    dump_bundle,
    examine_evidence,
    load_bundle,
)
from orchestrator.evidence.instants import format_utc
from orchestrator.models import PublicKey, Signature, Worker, WorkerId, WorkerRegistration
from orchestrator.registrar.archive import EvidenceArchive
from orchestrator.registrar.chain_calls import ChainCalls
from orchestrator.workers import WorkerClient, WorkerIdentity

__all__ = ["Admission", "Examined", "Registrar", "registration_of"]

CHALLENGE_BYTES = 32
# The contract compares with its block's time, which may be behind the clock that we reckon by.
CLOCK_MARGIN_MS = 60_000
# A renewal costs a fee: it has to gain at least this much.
LEAST_GAIN_MS = 600_000


@dataclass(frozen=True, kw_only=True)
class Examined:
    """
    What a worker showed, and what came of the checks; `renews` is the worker that it has to be.

    `evidence` raises `EvidenceError` where a check refused.
    """

    url: str
    verdict: Verdict
    renews: Worker | None

    @property
    def evidence(self) -> VerifiedEvidence:
        """The verified evidence."""
        if self.verdict.evidence is None:
            raise EvidenceError(self.verdict)
        return self.verdict.evidence


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A worker as the chain lists it after it was registered or renewed, and on what evidence."""

    worker: Worker
    evidence: VerifiedEvidence


def registration_of(
    evidence: VerifiedEvidence, *, endpoint: bytes, valid_until: int
) -> WorkerRegistration:
    """
    Return what is registered of verified evidence: its keys, its measurement, its hash.

    Raises:
        RefusedError: *valid_until* is later than the evidence allows.
    """
    if valid_until > evidence.valid_until:
        raise RefusedError(
            "ValidityOutOfRange",
            f"valid until {format_utc(valid_until)}, and policy and collateral allow until"
            f" {format_utc(evidence.valid_until)}",
        )
    return WorkerRegistration(
        signing_key=evidence.bundle.signing_key,
        encryption_key=evidence.bundle.encryption_key,
        measurement=evidence.measurement,
        evidence_hash=evidence.evidence_hash,
        endpoint=endpoint,
        valid_until=valid_until,
    )


class Registrar:
    """
    Admits and renews workers at one contract, by one policy.

    *policy_file* are the bytes that *policy* was read from, *clock* gives milliseconds. Without
    *collateral* the worker's own is used; it proves itself.
    """

    def __init__(
        self,
        *,
        calls: ChainCalls,
        processor: JobProcessor,
        policy: Policy,
        policy_file: bytes,
        archive: EvidenceArchive,
        collateral: CollateralSource | None,
        clock: Callable[[], int],
    ) -> None:
        self.calls = calls
        self.processor = processor
        self.policy = policy
        self._policy_file = policy_file
        self.archive = archive
        self.collateral = collateral
        self._clock = clock

    async def examine(
        self, client: WorkerClient, *, url: str, renews: Worker | None = None
    ) -> Examined:
        """
        Ask the worker for evidence and check all of it; steps 1 to 4. Nothing is changed.

        Raises:
            RefusedError: Somebody else answers than the worker that is to be renewed.
            WorkerError: The worker did not answer as it should.
            CollateralUnavailableError: There is none now.
            ChainError: The chain could not be asked.
        """
        challenge = secrets.token_bytes(CHALLENGE_BYTES)  # 1.
        issued = IssuedChallenge(value=challenge, issued_at=self._clock())
        identity = await client.identity()  # 2.
        keys: WorkerIdentity | Worker = identity
        if renews is not None:
            _require_same(identity, renews)
            keys = renews
        data = await client.evidence(
            genesis=self.calls.genesis_hash,
            contract=self.processor.contract,
            challenge=challenge,
            signing_key=keys.signing_key,
        )
        completed = await self._completed(data)  # 3.
        standing = await self._standing(keys.signing_key, renews)
        verdict = examine_evidence(  # 4.
            completed,
            policy=self._policy_for(renews),
            now=self._clock(),
            expected=ExpectedBinding(
                genesis_hash=self.calls.genesis_hash,
                contract=self.processor.contract,
                signing_key=keys.signing_key,
                encryption_key=keys.encryption_key,
            ),
            challenge=issued,
            standing=standing,
        )
        return Examined(url=url, verdict=verdict, renews=renews)

    async def is_allowed(self, measurement: bytes) -> bool:
        """Whether the contract allows workers of this measurement."""
        call = self.processor.has_measurement(measurement)
        return await self.calls.read(lambda chain: chain.read(call))

    async def admit(
        self, client: WorkerClient, examined: Examined, *, valid_for: int | None = None
    ) -> Admission:
        """
        Register, or renew, the worker whose evidence was verified; steps 5 to 8.

        *valid_for* (ms) shortens what policy, collateral and contract allow.

        Raises:
            EvidenceError: A check refused the evidence.
            RefusedError: The contract does not allow the measurement, or nothing would be gained.
            VerificationError: The possession signature is not the worker's.
            WorkerError: The worker did not answer as it should.
            BlobError: The evidence can't be stored.
            ChainError: The contract refused, or could not be asked.
        """
        evidence, renews = examined.evidence, examined.renews
        if not await self.is_allowed(evidence.measurement):  # 5.
            raise RefusedError(
                "MeasurementNotAllowed",
                f"measurement set {evidence.measurement_set} is not allowed at the contract:"
                f" phala-jobs measurements allow {evidence.measurement.hex()}",
            )
        valid_until = await self._valid_until(evidence, valid_for)
        if renews is not None and valid_until < renews.valid_until + LEAST_GAIN_MS:
            held, offered = format_utc(renews.valid_until), format_utc(valid_until)
            raise RefusedError(
                "NothingGained",
                f"worker {renews.worker} is valid until {held}, and would be until {offered}: the"
                " least of what policy, collateral, contract and --valid-for allow",
            )
        registration = registration_of(
            evidence, endpoint=examined.url.encode("utf-8"), valid_until=valid_until
        )
        possession = await self._possession(client, registration)  # 6.
        await self._store(client, examined, valid_until)  # 7.
        worker = await self._send(registration, possession, renews)  # 8.
        if renews is None:
            await asyncio.to_thread(self._record, examined, worker.valid_until, worker.worker)
        return Admission(worker=worker, evidence=evidence)

    async def renew(
        self, client: WorkerClient, worker: Worker, *, valid_for: int | None = None
    ) -> Admission:
        """
        Renew a worker on new evidence.

        Raises: what `examine` and `admit` raise.
        """
        url = worker.endpoint.decode("utf-8", "replace")
        examined = await self.examine(client, url=url, renews=worker)
        return await self.admit(client, examined, valid_for=valid_for)

    async def worker_of(self, key: PublicKey) -> Worker | None:
        """Return the worker that has registered *key*, `None` when nobody has."""
        call = self.processor.worker_by_key(key)
        return await self.calls.read(lambda chain: chain.read(call))

    # Examining.

    async def _completed(self, data: bytes) -> bytes:
        """Return the bundle's bytes with collateral and policy; unreadable ones as they are."""
        try:
            bundle = load_bundle(data)
            if self.collateral is not None:
                found = await asyncio.to_thread(
                    self.collateral.collateral, bundle.quote, now=self._clock()
                )
                bundle = replace(bundle, collateral=found)
            return dump_bundle(replace(bundle, policy_hash=self.policy.policy_hash))
        except EncodingError:
            return data  # the first check says what is wrong with it

    async def _standing(self, key: PublicKey, renews: Worker | None) -> KeyStanding:
        def work(chain: Chain) -> KeyStanding:
            worker = chain.read(self.processor.worker_by_key(key))
            return KeyStanding(
                worker=worker,
                renews=None if renews is None else renews.worker,
                is_measurement_revoked=worker is not None
                and not chain.read(self.processor.has_measurement(worker.measurement)),
                is_renewal=renews is not None,
            )

        return await self.calls.read(work)

    def _policy_for(self, renews: Worker | None) -> Policy:
        """
        Return the policy; a renewal has to match the very set that the worker is registered with.

        The contract keeps a worker's measurement for ever, and two sets may match one worker.
        """
        if renews is None:
            return self.policy
        same = tuple(
            known for known in self.policy.measurements if known.measurement == renews.measurement
        )
        if not same:
            raise RefusedError(
                "MeasurementNotInPolicy",
                f"worker {renews.worker} is registered with measurement"
                f" 0x{renews.measurement.hex()}, which the policy does not have any more: rotate"
                " it, or let it end",
            )
        return replace(self.policy, measurements=same)

    # Admitting.

    async def _valid_until(self, evidence: VerifiedEvidence, valid_for: int | None) -> int:
        def work(chain: Chain) -> tuple[int, int]:
            longest = chain.read(self.processor.parameters()).max_registration
            return chain.now(), longest

        chain_now, longest = await self.calls.read(work)
        limits = [evidence.valid_until, chain_now + longest - CLOCK_MARGIN_MS]
        if valid_for is not None:
            limits.append(self._clock() + valid_for)
        valid_until = min(limits)
        if valid_until <= chain_now:
            raise RefusedError(
                "ValidityOutOfRange",
                f"the registration would end at {format_utc(valid_until)}, and the chain's time is"
                f" {format_utc(chain_now)}",
            )
        return valid_until

    async def _possession(
        self, client: WorkerClient, registration: WorkerRegistration
    ) -> Signature:
        genesis, contract = self.calls.genesis_hash, self.processor.contract
        possession = await client.registration(
            genesis=genesis,
            contract=contract,
            measurement=registration.measurement,
            evidence_hash=registration.evidence_hash,
            valid_until=registration.valid_until,
            signing_key=registration.signing_key,
        )
        digest = registration_digest(registration, genesis_hash=genesis, contract=contract)
        verify_signature(registration.signing_key, possession, digest)
        return possession

    async def _store(self, client: WorkerClient, examined: Examined, valid_until: int) -> None:
        bundle = dump_bundle(examined.evidence.bundle)
        known = None if examined.renews is None else examined.renews.worker
        await asyncio.to_thread(self.archive.keep, bundle, self._policy_file)
        await asyncio.to_thread(self._record, examined, valid_until, known)
        await client.put_evidence(bundle)

    def _record(self, examined: Examined, valid_until: int, worker: WorkerId | None) -> None:
        self.archive.write_record(
            examined.verdict, url=examined.url, valid_until=valid_until, worker=worker
        )

    async def _send(
        self,
        registration: WorkerRegistration,
        possession: Signature,
        renews: Worker | None,
    ) -> Worker:
        processor = self.processor

        def find(chain: Chain) -> Worker | None:
            found = chain.read(processor.worker_by_key(registration.signing_key))
            is_there = found is not None and found.evidence_hash == registration.evidence_hash
            return found if is_there else None

        if renews is None:
            return await self.calls.send(
                processor.register_worker(registration, possession), find=find
            )
        renewal = processor.renew_worker(
            renews.worker, registration.evidence_hash, registration.valid_until, possession
        )
        return await self.calls.send(renewal, find=find)


def _require_same(identity: WorkerIdentity, worker: Worker) -> None:
    if not identity.serves(worker.signing_key):
        raise RefusedError(
            "AnotherWorkerAnswers",
            f"at {worker.endpoint.decode('utf-8', 'replace')} a worker answers that does not have"
            f" the keys of worker {worker.worker}: was its folder lost?",
        )
