"""
What a worker does to get on the trusted list, and to stay on it: evidence, possession, new keys.

Evidence costs the platform a quote, and anybody may ask for it, so quotes are made one at a time
and few may wait; whoever has a token waits in a longer queue, which strangers can't fill.
"""

import asyncio
import logging

from orchestrator.encoding import encode_binding, registration_digest, report_data
from orchestrator.errors import ConfigError, EncodingError, InputError, QuoteUnavailableError
from orchestrator.evidence import EvidenceBundle, dump_bundle, load_bundle
from orchestrator.models import PublicKey, Signature, WorkerRegistration
from orchestrator.quotes import QuoteSource
from orchestrator.worker.heads import Heads, Standing
from orchestrator.worker.identity import MAX_PAIRS, KeyRing, WorkerKeys
from orchestrator.worker.outcomes import OutcomeStore, WorkerBlobs
from orchestrator.worker.refusal import RefusalError
from orchestrator.workers.wire import (
    EvidenceRequest,
    RegistrationRequest,
    RotationRequest,
    load_evidence_request,
)

__all__ = ["Enrolment"]

_log = logging.getLogger(__name__)

# Who asks and waits, the one whose quote is being made included.
_STRANGERS = 4
_ALL = 16
_RETRY_SECONDS = 2
_NO_QUOTE_SECONDS = 10


class Enrolment:
    """
    Evidence, registration and rotation of one worker's keys.

    *quotes* is `None` for a worker that runs in no TEE. *keeps_measurements* is for a worker
    without a chain: nothing else tells it what its statements say.
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
        keeps_measurements: bool,
    ) -> None:
        self._keys = keys
        self._heads = heads
        self._outcomes = outcomes
        self._blobs = blobs
        self._quotes = quotes
        self._producer = f"phala-jobs worker {version}"
        self._keeps_measurements = keeps_measurements
        self._waiting = 0
        self._quoting = asyncio.Lock()
        self._rotating = asyncio.Lock()

    @property
    def tee(self) -> str | None:
        """What this worker says about its platform, `None` when it has none."""
        return None if self._quotes is None else self._quotes.name

    async def evidence(self, body: bytes, *, is_known: bool) -> bytes:
        """
        Return the evidence bundle that *body* asks for, which nobody has verified yet.

        Raises:
            EncodingError: The body is not of the protocol.
            RefusalError: 501, there is no TEE; 422, not for this worker; 503, no quote now.
        """
        if self._quotes is None:
            words = "this worker is a development worker, no TEE: it has no evidence to show"
            raise RefusalError(501, words)
        asked = load_evidence_request(body)
        self._check_contract(asked.genesis, asked.contract)
        pair = self._pair(asked.signing_key)
        if self._waiting >= (_ALL if is_known else _STRANGERS):
            words = "too many ask for evidence at once"
            raise RefusalError(503, words, retry_after_seconds=_RETRY_SECONDS)
        self._waiting += 1
        try:
            async with self._quoting:
                return await self._make_bundle(asked, pair, self._quotes)
        except (QuoteUnavailableError, EncodingError) as error:
            # Strangers need not know what is wrong with this machine.
            _log.warning("no evidence: %s", error)
            words = "the platform gives no quote now"
            raise RefusalError(503, words, retry_after_seconds=_NO_QUOTE_SECONDS) from error
        finally:
            self._waiting -= 1

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
        if self._keeps_measurements:
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
        2. Pairs that no open job can be sealed to go, when there is no room for one more.

        Raises:
            RefusalError: 422, not for this worker; 409 for 1., and for 2. when none can go; 503,
                the chain can't be read, or the keys could not be kept.
        """
        self._check_contract(asked.genesis, asked.contract)
        async with self._rotating:
            newest = self._keys.newest.signing_key
            standing = await self._heads.standing(newest, asked.genesis, asked.contract)
            if standing is Standing.UNREGISTERED:  # 1.
                raise RefusalError(409, "the newest keys are not registered yet")
            without: list[PublicKey] = []
            if len(self._keys.pairs) >= MAX_PAIRS:  # 2.
                without = await self._over(asked)
            try:
                await asyncio.to_thread(self._keys.rotate, without=without)
            except ConfigError as error:
                _log.warning("no new keys: %s", error)
                raise RefusalError(503, "the worker can't store its keys now") from error
            except InputError as error:
                raise RefusalError(409, str(error)) from error
            _log.info("new keys; jobs sealed to %d older pairs still run", len(self._keys.retired))

    async def _over(self, asked: RotationRequest) -> list[PublicKey]:
        """
        Return the keys of pairs that no open job can be sealed to.

        The newest pair is registered at the block that was read, so one that is older and is not
        registered there never was.
        """
        over = []
        for pair in self._keys.retired:
            key = pair.signing_key
            standing = await self._heads.standing(key, asked.genesis, asked.contract)
            if standing is not Standing.IN_USE:
                over.append(key)
        return over

    def keep_evidence(self, data: bytes) -> bytes:
        """
        Keep a bundle that was completed and verified by a registrar; return its hash.

        Whether it was is not checked here: it is kept for whoever wants to verify it again.

        Raises:
            EncodingError: It is not a bundle.
            RefusalError: 422, it is not of this worker's keys, or for another contract.
            BlobUnavailableError: It could not be written.
        """
        bundle = load_bundle(data)
        self._check_contract(bundle.genesis_hash, bundle.contract)
        pair = self._keys.find(bundle.signing_key)
        if pair is None or pair.encryption_key.public_key != bundle.encryption_key:
            raise RefusalError(422, "evidence bundle: not of this worker's keys")
        return self._blobs.put_evidence(data, bundle.signing_key)

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
