"""
How a worker gets on the trusted list, and stays there: on verified evidence alone.

1. A random challenge of 32 bytes, made for this one attempt and used in no other.
2. The worker's identity, and its evidence for this chain, this contract and that challenge.
3. The bundle is completed: collateral from our own source where there is one, the policy's hash.
4. `examine_evidence`: all fourteen checks, with what the chain says about the keys.
5. The measurement is allowed at the contract, and all checks are made again: time has passed.
6. Possession: the worker signs its registration, and the signature is checked as the contract will.
7. The contract would take it from our account, which can pay. Only then bundle and policy are on
   our disk, and the bundle is at the worker.
8. `register_worker` or `renew_worker`, and it is read back. A record of it is written.

Whatever fails before 8 changes nothing on the chain.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from orchestrator.chain import Chain, ContractCall
from orchestrator.chain.processor import JobProcessor
from orchestrator.collateral import CollateralSource
from orchestrator.crypto.keys import verify_signature
from orchestrator.encoding import registration_digest
from orchestrator.errors import (
    BlobUnavailableError,
    ChainError,
    ChainUnavailableError,
    EncodingError,
    Error,
    RefusedError,
)
from orchestrator.evidence import (
    Collateral,
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
from orchestrator.models import Parameters, PublicKey, Signature, Worker, WorkerRegistration
from orchestrator.registrar.admission import Admission, Examined, registration_of
from orchestrator.registrar.archive import EvidenceArchive
from orchestrator.registrar.chain_calls import ChainCalls, in_thread
from orchestrator.registrar.talking import AskedWorker
from orchestrator.workers import WorkerIdentity

__all__ = ["Registrar"]

_LOG = logging.getLogger("orchestrator.registrar")
CHALLENGE_BYTES = 32
# The contract compares with its block's time, which may be behind the clock that we reckon by.
CLOCK_MARGIN_MS = 60_000
# A renewal costs a fee: it has to gain at least this much.
LEAST_GAIN_MS = 600_000


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
        self._asking = asyncio.Lock()

    async def examine(
        self, client: AskedWorker, *, url: str, renews: Worker | None = None
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
        expected = ExpectedBinding(
            genesis_hash=self.calls.genesis_hash,
            contract=self.processor.contract,
            signing_key=keys.signing_key,
            encryption_key=keys.encryption_key,
        )
        verdict = await self._verdict(completed, expected, issued, renews)  # 4.
        return Examined(
            url=url,
            verdict=verdict,
            renews=renews,
            bundle=completed,
            expected=expected,
            challenge=issued,
        )

    async def is_allowed(self, measurement: bytes) -> bool:
        """Whether the contract allows workers of this measurement."""
        call = self.processor.has_measurement(measurement)
        return await self.calls.read(lambda chain: chain.read(call))

    async def admit(
        self,
        client: AskedWorker,
        examined: Examined,
        *,
        valid_for: int | None = None,
        at_least_until: int = 0,
    ) -> Admission:
        """
        Register, or renew, the worker whose evidence was verified; steps 5 to 8.

        *valid_for* (ms) shortens what policy, collateral and contract allow. What would end before
        *at_least_until* (ms) is not worth its fee.

        Raises:
            EvidenceError: A check refused the evidence, then or now that it is to be sent.
            RefusedError: The contract does not allow the measurement, or nothing would be gained.
            VerificationError: The possession signature is not the worker's.
            WorkerError: The worker did not answer as it should.
            BlobError: The evidence can't be stored.
            InsufficientFundsError: The account can't pay.
            ChainError: The contract refused, or could not be asked.
        """
        examined = await self._examined_again(examined)
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
        if valid_until < at_least_until:
            raise RefusedError(
                "GainsTooLittle",
                f"it would end at {format_utc(valid_until)}, and be due again at once until"
                f" {format_utc(at_least_until)}: the least of what policy, collateral and contract"
                " allow",
            )
        registration = registration_of(
            evidence, endpoint=examined.url.encode("utf-8"), valid_until=valid_until
        )
        possession = await self._possession(client, registration)  # 6.
        call = self._call(registration, possession, renews)
        await self.calls.require_possible(call)  # 7.
        async with self._stored(client, examined.bundle):
            worker = await self._send(call, registration)  # 8.
        await self._record(examined, worker)
        too_long = await self._too_long(worker)
        return Admission(worker=worker, evidence=evidence, too_long=too_long)

    async def require_possession(self, client: AskedWorker, examined: Examined) -> None:
        """
        Have the worker sign what would be registered now, before anything else is paid for.

        Raises: what `admit` raises of the evidence, the possession signature and the worker.
        """
        valid_until = await self._valid_until(examined.evidence, None)
        registration = registration_of(
            examined.evidence, endpoint=examined.url.encode("utf-8"), valid_until=valid_until
        )
        await self._possession(client, registration)

    async def renew(
        self,
        client: AskedWorker,
        worker: Worker,
        *,
        valid_for: int | None = None,
        at_least_until: int = 0,
    ) -> Admission:
        """
        Renew a worker on new evidence.

        Raises: what `examine` and `admit` raise.
        """
        url = worker.endpoint.decode("utf-8", "replace")
        examined = await self.examine(client, url=url, renews=worker)
        return await self.admit(
            client, examined, valid_for=valid_for, at_least_until=at_least_until
        )

    async def worker_of(self, key: PublicKey) -> Worker | None:
        """Return the worker that has registered *key*, `None` when nobody has."""
        call = self.processor.worker_by_key(key)
        return await self.calls.read(lambda chain: chain.read(call))

    # Examining.

    async def _verdict(
        self,
        bundle: bytes,
        expected: ExpectedBinding,
        challenge: IssuedChallenge,
        renews: Worker | None,
    ) -> Verdict:
        return examine_evidence(
            bundle,
            policy=self._policy_for(renews),
            standing=await self._standing(expected.signing_key, renews),
            now=self._clock(),
            expected=expected,
            challenge=challenge,
        )

    async def _examined_again(self, examined: Examined) -> Examined:
        """Return it as it is now: somebody may have been asked something for hours meanwhile."""
        if examined.verdict.evidence is None:
            return examined
        verdict = await self._verdict(
            examined.bundle, examined.expected, examined.challenge, examined.renews
        )
        return replace(examined, verdict=verdict)

    async def _completed(self, data: bytes) -> bytes:
        """Return the bundle's bytes with collateral and policy; unreadable ones as they are."""
        try:
            bundle = load_bundle(data)
            if self.collateral is not None:
                found = await self._collateral_of(self.collateral, bundle.quote)
                bundle = replace(bundle, collateral=found)
            return dump_bundle(replace(bundle, policy_hash=self.policy.policy_hash))
        except EncodingError:
            return data  # the first check says what is wrong with it

    async def _collateral_of(self, source: CollateralSource, quote: bytes) -> Collateral:
        """Ask the source, for one quote at a time."""
        async with self._asking:
            return await in_thread(lambda: source.collateral(quote, now=self._clock()))

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
        def work(chain: Chain) -> tuple[int, Parameters]:
            return chain.now(), chain.read(self.processor.parameters())

        chain_now, contract = await self.calls.read(work)
        limits = [
            evidence.valid_until,
            chain_now + contract.max_registration - CLOCK_MARGIN_MS,
            # The policy's limit too is in the chain's time, should our clock be ahead of it.
            chain_now + self.policy.maximum_registration + contract.max_clock_skew,
        ]
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

    async def _possession(self, client: AskedWorker, registration: WorkerRegistration) -> Signature:
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

    @contextlib.asynccontextmanager
    async def _stored(self, client: AskedWorker, bundle: bytes) -> AsyncIterator[None]:
        """Keep the bundle, here and at the worker; here it goes again if it is not registered."""
        await asyncio.to_thread(self.archive.keep, bundle, self._policy_file)
        try:
            await client.put_evidence(bundle)
            yield
        except ChainUnavailableError:
            raise  # it may be registered all the same
        except (Error, OSError):
            await asyncio.to_thread(self.archive.discard, bundle)
            raise

    async def _record(self, examined: Examined, worker: Worker) -> None:
        """Write the record; it is for people, and does not undo what the chain has."""
        try:
            await asyncio.to_thread(
                self.archive.write_record,
                examined.verdict,
                url=examined.url,
                valid_until=worker.valid_until,
                worker=worker.worker,
            )
        except BlobUnavailableError as error:
            _LOG.error("ALARM: worker %d: no record is kept: %s", worker.worker, error)

    async def _too_long(self, worker: Worker) -> int:
        """Compare with the block's time: a node's `now` is never behind our own clock."""

        def work(chain: Chain) -> int:
            skew = chain.read(self.processor.parameters()).max_clock_skew
            return chain.finalized_head().timestamp + self.policy.maximum_registration + skew

        try:
            longest = await self.calls.read(work)
        except ChainError:
            return 0
        return max(0, worker.valid_until - longest)

    def _call(
        self, registration: WorkerRegistration, possession: Signature, renews: Worker | None
    ) -> ContractCall[object]:
        if renews is None:
            return self.processor.register_worker(registration, possession)
        return self.processor.renew_worker(
            renews.worker, registration.evidence_hash, registration.valid_until, possession
        )

    async def _send(self, call: ContractCall[object], registration: WorkerRegistration) -> Worker:
        def find(chain: Chain) -> Worker | None:
            found = chain.read(self.processor.worker_by_key(registration.signing_key))
            is_there = found is not None and found.evidence_hash == registration.evidence_hash
            return found if is_there else None

        return await self.calls.send(call, find=find)


def _require_same(identity: WorkerIdentity, worker: Worker) -> None:
    if not identity.serves(worker.signing_key):
        raise RefusedError(
            "AnotherWorkerAnswers",
            f"at {worker.endpoint.decode('utf-8', 'replace')} a worker answers that does not have"
            f" the keys of worker {worker.worker}: was its folder lost?",
        )
