"""
What a worker does to get on the trusted list, and to stay on it: evidence, possession, new keys.

Evidence costs the platform a quote, and anybody may ask for it, so quotes are made one at a time
and few may wait; whoever has a token waits in a longer queue, which strangers can't fill, and comes
first. Whoever hangs up leaves the queue.
"""

import asyncio
import logging

from orchestrator.encoding import encode_binding, registration_digest, report_data
from orchestrator.errors import (
    BlobUnavailableError,
    ConfigError,
    EncodingError,
    InputError,
    QuoteUnavailableError,
)
from orchestrator.evidence import EvidenceBundle, dump_bundle, load_bundle
from orchestrator.models import PublicKey, Signature, WorkerRegistration
from orchestrator.quotes import QuoteSource
from orchestrator.worker.heads import Heads
from orchestrator.worker.identity import MAX_PAIRS, KeyRing, WorkerKeys
from orchestrator.worker.outcomes import HELD_MS, OutcomeStore, WorkerBlobs
from orchestrator.worker.quote_queue import QuoteQueue
from orchestrator.worker.refusal import RefusalError
from orchestrator.workers.wire import (
    EvidenceRequest,
    RegistrationRequest,
    RotationRequest,
    load_evidence_request,
)

__all__ = ["Enrolment"]

_log = logging.getLogger(__name__)

_NO_QUOTE_SECONDS = 10


class Enrolment:
    """
    Evidence, registration and rotation of one worker's keys.

    *quotes* is `None` for a worker that runs in no TEE. Without a chain (*has_chain*) measurements
    are kept, because nothing else tells what statements say.
    """

    def __init__(
        self,
        *,
        keys: KeyRing,
        heads: Heads,
        outcomes: OutcomeStore,
        blobs: WorkerBlobs,
        quotes: QuoteSource | None,
        version: str,
        has_chain: bool,
    ) -> None:
        self._keys = keys
        self._heads = heads
        self._outcomes = outcomes
        self._blobs = blobs
        self._quotes = quotes
        self._producer = f"phala-jobs worker {version}"
        self._has_chain = has_chain
        self._queue = QuoteQueue()
        self._rotating = asyncio.Lock()

    @property
    def tee(self) -> str | None:
        """What this worker says about its platform, `None` when it has none."""
        return None if self._quotes is None else self._quotes.name

    async def evidence(
        self, body: bytes, *, is_known: bool, has_gone: asyncio.Future[None]
    ) -> bytes:
        """
        Return the evidence bundle that *body* asks for, which nobody has verified yet.

        *has_gone* is done when whoever asks has hung up; no quote is begun after that.

        Raises:
            EncodingError: The body is not of the protocol.
            RefusalError: 501, there is no TEE; 422, not for this worker; 503, no quote now; 400,
                nobody waits for it any more.
        """
        if self._quotes is None:
            words = "this worker is a development worker, no TEE: it has no evidence to show"
            raise RefusalError(501, words)
        asked = load_evidence_request(body)
        self._check_contract(asked.genesis, asked.contract)
        pair = self._pair(asked.signing_key)
        try:
            async with self._queue.turn(is_known=is_known, has_gone=has_gone):
                return await self._make_bundle(asked, pair, self._quotes)
        except (QuoteUnavailableError, EncodingError) as error:
            # Strangers need not know what is wrong with this machine.
            _log.warning("no evidence: %s", error)
            words = "the platform gives no quote now"
            raise RefusalError(503, words, retry_after_seconds=_NO_QUOTE_SECONDS) from error

    async def _make_bundle(
        self, asked: EvidenceRequest, pair: WorkerKeys, quotes: QuoteSource
    ) -> bytes:
        binding = encode_binding(
            genesis_hash=asked.genesis,
            contract=asked.contract,
            signing_key=pair.signing_key,
            encryption_key=pair.encryption_key.public_key,
            challenge=asked.challenge,
        )
        given = await quotes.quote(report_data(binding))
        bundle = EvidenceBundle(
            producer=self._producer,
            genesis_hash=asked.genesis,
            contract=asked.contract,
            signing_key=pair.signing_key,
            encryption_key=pair.encryption_key.public_key,
            challenge=asked.challenge,
            quote=given.quote,
            collateral=given.collateral,
            event_log=given.event_log,
            compose=given.compose,
        )
        return dump_bundle(bundle)

    async def registration(self, asked: RegistrationRequest) -> Signature:
        """
        Return the possession signature (protocol 3.3) of the newest pair, or of the one named.

        Raises:
            RefusalError: 422, not for this worker.
        """
        self._check_contract(asked.genesis, asked.contract)
        pair = self._pair(asked.signing_key)
        registration = WorkerRegistration(
            signing_key=pair.signing_key,
            encryption_key=pair.encryption_key.public_key,
            measurement=asked.measurement,
            evidence_hash=asked.evidence_hash,
            endpoint=b"",
            valid_until=asked.valid_until,
        )
        digest = registration_digest(
            registration, genesis_hash=asked.genesis, contract=asked.contract
        )
        if not self._has_chain:
            await asyncio.to_thread(
                self._outcomes.set_measurement,
                asked.genesis,
                asked.contract,
                pair.signing_key,
                asked.measurement,
            )
        return pair.signer.sign(digest)

    async def rotate(self, asked: RotationRequest) -> None:
        """
        Make new keys; jobs that are sealed to the old ones still run.

        1. The newest pair is registered, so each rotation costs a registration.
        2. Pairs that no outcome can be recorded for go, with their evidence, when there is no room
           for one more.

        Raises:
            RefusalError: 422, not for this worker; 409 for 1., and for 2. when none can go; 503,
                the chain can't be read, or the keys could not be kept.
        """
        self._check_contract(asked.genesis, asked.contract)
        async with self._rotating:
            newest = self._keys.newest.signing_key
            if not await self._heads.is_registered(newest, asked.genesis, asked.contract):  # 1.
                raise RefusalError(409, "the newest keys are not registered yet")
            without: list[PublicKey] = []
            if len(self._keys.pairs) >= MAX_PAIRS:  # 2.
                without = await self._over()
            try:
                await asyncio.to_thread(self._keys.rotate, without=without)
            except ConfigError as error:
                _log.warning("no new keys: %s", error)
                raise RefusalError(503, "the worker can't store its keys now") from error
            except InputError as error:
                raise RefusalError(409, str(error)) from error
            if without:
                await self._drop_evidence()
            _log.info("new keys; jobs sealed to %d older pairs still run", len(self._keys.retired))

    async def _over(self) -> list[PublicKey]:
        """
        Return the keys of pairs that no outcome can be recorded for.

        The newest pair is registered at the block that was read, so one that is older and is not
        registered there never was.
        """
        keys = [pair.signing_key for pair in self._keys.retired]
        return [key for key in keys if await self._heads.is_over(key)]

    async def _drop_evidence(self) -> None:
        try:
            await asyncio.to_thread(self._blobs.drop_evidence, self._keys)
        except BlobUnavailableError as error:
            # There are new keys all the same, and what is left over goes later.
            _log.warning("evidence of keys that are gone is still there: %s", error)

    def keep_evidence(self, data: bytes) -> bytes:
        """
        Keep a bundle that was completed and verified by a registrar; return its hash.

        Whether it was is not checked here: it is kept for whoever wants to verify it again. What
        the chain says is in force stays, whatever comes.

        Raises:
            EncodingError: It is not a bundle.
            RefusalError: 422, it is not of this worker's keys, or for another contract; 503, the
                chain can't be read, or too many came at once that did not get into force.
            BlobUnavailableError: It could not be written.
        """
        bundle = load_bundle(data)
        self._check_contract(bundle.genesis_hash, bundle.contract)
        pair = self._keys.find(bundle.signing_key)
        if pair is None or pair.encryption_key.public_key != bundle.encryption_key:
            raise RefusalError(422, "evidence bundle: not of this worker's keys")
        if not self._has_chain:
            return self._blobs.put_evidence(data, pair.signing_key)
        in_force = self._heads.evidence_in_force(pair.signing_key)
        digest = self._blobs.put_newcomer(data, pair.signing_key, in_force=in_force)
        if digest is None:
            words = "too many evidence bundles came at once that are not in force"
            raise RefusalError(503, words, retry_after_seconds=HELD_MS // 1_000)
        return digest

    def _check_contract(self, genesis: bytes, contract: bytes) -> None:
        if not self._heads.knows(genesis, contract):
            raise RefusalError(422, "genesis, contract: not those that this worker works for")

    def _pair(self, signing_key: PublicKey | None) -> WorkerKeys:
        if signing_key is None:
            return self._keys.newest
        pair = self._keys.find(signing_key)
        if pair is None:
            raise RefusalError(422, "signing_key: not one of this worker's")
        return pair
