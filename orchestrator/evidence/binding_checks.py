"""Checks E12 to E14: whose keys these are, for which chain and contract, and asked for when."""

from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest

from orchestrator.errors import EncodingError
from orchestrator.evidence.bundle import EvidenceBundle
from orchestrator.evidence.finding import CheckFailedError
from orchestrator.evidence.instants import format_utc
from orchestrator.evidence.policy import Policy
from orchestrator.evidence.quote import Quote
from orchestrator.models import PublicKey, Worker, WorkerId, WorkerStatus

__all__ = [
    "ExpectedBinding",
    "IssuedChallenge",
    "KeyStanding",
    "check_challenge",
    "check_keys",
    "check_report_data",
]


@dataclass(frozen=True, kw_only=True)
class ExpectedBinding:
    """
    The keys, chain and contract that the evidence has to be for.

    `measurement` is what the worker is registered with: then only the policy's sets with that one
    count, because the contract allows and revokes workers by it. `None`: nobody is registered yet.
    """

    genesis_hash: bytes
    contract: bytes
    signing_key: PublicKey
    encryption_key: bytes
    measurement: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class IssuedChallenge:
    """A challenge as its issuer remembers it; `issued_at` in ms."""

    value: bytes
    issued_at: int
    is_used: bool = False


@dataclass(frozen=True, kw_only=True)
class KeyStanding:
    """
    What the chain says about the keys.

    `worker` is who is registered under the signing key, `renews` the worker that the keys must be;
    `None`: they must be nobody's yet. `is_measurement_revoked` is about that worker's measurement
    on the chain.

    A registrar that renews sets `is_renewal`: the contract renews workers that are suspended or
    expired as well. Whoever is about to use the keys leaves it: then only a worker that is trusted
    now will do.
    """

    worker: Worker | None
    renews: WorkerId | None
    is_measurement_revoked: bool = False
    is_renewal: bool = False


def check_report_data(
    bundle: EvidenceBundle,
    quote: Quote,
    expected: ExpectedBinding,
    report_data_of: Callable[[EvidenceBundle], bytes],
) -> str:
    """
    E12.

    1. The bundle is for the expected chain, contract and keys.
    2. The quote carries what the layout makes of them and of the bundle's challenge.
    """
    # 1.
    other = [
        name
        for name in ("genesis_hash", "contract", "signing_key", "encryption_key")
        if getattr(bundle, name) != getattr(expected, name)
    ]
    if other:
        names = ", ".join(name.replace("_", " ") for name in other)
        raise CheckFailedError(
            f"the bundle is for another {names}", "ask the worker for evidence for this contract"
        )
    # 2.
    try:
        wanted = report_data_of(bundle)
    except EncodingError as error:
        raise CheckFailedError(f"the binding can't be made: {error}") from error
    if not compare_digest(wanted, quote.report.report_data):
        raise CheckFailedError(
            "the quote's report data is not that of these keys, chain, contract and challenge",
            "the quote was made for something else: ask the worker again",
        )
    return "the quote carries these keys, chain, contract and challenge"


def check_challenge(
    bundle: EvidenceBundle, issued: IssuedChallenge, policy: Policy, now: int
) -> str:
    """
    E13.

    1. The bundle answers the challenge that was issued.
    2. It was not used before.
    3. It is not older than the policy allows, and not from the future.
    """
    # 1.
    if not compare_digest(bundle.challenge, issued.value):
        raise CheckFailedError("not the challenge that was issued", "ask the worker again")
    # 2.
    if issued.is_used:
        raise CheckFailedError("the challenge was used before", "issue a new one, ask again")
    # 3.
    age = now - issued.issued_at
    if age < 0:
        raise CheckFailedError(
            f"the challenge was issued at {format_utc(issued.issued_at)}, which is to come",
            "is the clock right?",
        )
    if age > policy.maximum_age:
        raise CheckFailedError(
            f"the challenge is {age} ms old, at most {policy.maximum_age}",
            "issue a new one, ask again",
        )
    return f"issued {age} ms ago, unused"


def check_keys(expected: ExpectedBinding, standing: KeyStanding, now: int) -> str:
    """
    E14.

    1. The keys belong to the worker that they must be of, or to nobody for a new one.
    2. That worker is not revoked, nor is its measurement.
    3. It is active and has not expired, unless it is about to be renewed.
    """
    worker = standing.worker
    # 1.
    if worker is None:
        if standing.renews is not None:
            raise CheckFailedError(
                f"the keys are not worker {standing.renews}'s: nobody is registered under them",
                "register them as a new worker",
            )
        # 2.
        if standing.is_measurement_revoked:
            raise CheckFailedError("the measurement is revoked on the chain")
        return "nobody's yet"
    if worker.status is WorkerStatus.REVOKED:  # 2., said first: nothing else matters then
        raise CheckFailedError(
            f"the keys are worker {worker.worker}'s, which is revoked",
            "rotate the worker's keys; find out first why these were revoked",
        )
    if standing.renews != worker.worker:
        other = "" if standing.renews is None else f", not worker {standing.renews}'s"
        raise CheckFailedError(
            f"the keys are worker {worker.worker}'s already{other}",
            "renew that worker, or rotate the keys",
        )
    if (worker.signing_key, worker.encryption_key) != (
        expected.signing_key,
        expected.encryption_key,
    ):
        raise CheckFailedError(
            f"worker {worker.worker} is registered with other keys", "rotate: register these anew"
        )
    # 2.
    if standing.is_measurement_revoked:
        raise CheckFailedError(
            f"the measurement of worker {worker.worker} is revoked on the chain",
            "register the worker anew, with keys of an allowed version",
        )
    # 3.
    expired = now > worker.valid_until
    state = f"{worker.status.value}, {'expired' if expired else 'valid until'} " + format_utc(
        worker.valid_until
    )
    if not standing.is_renewal and (expired or worker.status is not WorkerStatus.ACTIVE):
        raise CheckFailedError(
            f"worker {worker.worker} is not trusted now: {state}", "have it renewed or reinstated"
        )
    return f"worker {worker.worker}'s: {state}"
