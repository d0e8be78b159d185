"""A chain with the contract on it, for tests."""

from dataclasses import dataclass, field
from hashlib import blake2b

from orchestrator.chain import Chain
from orchestrator.chain.bundle import Bundle, load_bundle
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto.keys import EncryptionKey
from orchestrator.encoding import registration_digest
from orchestrator.errors import InputError
from orchestrator.models import (
    Account,
    Mode,
    Parameters,
    Role,
    Signer,
    WorkerId,
    WorkerRegistration,
)

__all__ = ["FixedClock", "LocalAccount", "deploy_processor", "register_test_worker"]

# 2026-01-01T00:00:00Z: as good as any, and later than every default age limit.
_START = 1_767_225_600_000


@dataclass
class FixedClock:
    """A clock in ms that stands still until it is told to go on."""

    now: int = field(default=_START)

    def __call__(self) -> int:
        """Return the time."""
        return self.now

    def advance(self, milliseconds: int) -> None:
        """Go on by *milliseconds*."""
        self.now += milliseconds


@dataclass(frozen=True)
class LocalAccount:
    """An account of the embedded chain, which checks no signatures; it has no key to sign with."""

    account_id: bytes

    @classmethod
    def named(cls, name: str) -> "LocalAccount":
        """Return the account that belongs to *name*."""
        return cls(blake2b(name.encode(), digest_size=32).digest())

    def sign(self, message: bytes) -> bytes:
        """Refuse: this account has no key."""
        del message
        refusal = "a LocalAccount has no key; use AccountKey on a chain that checks signatures"
        raise InputError(refusal)


def deploy_processor(
    chain: Chain,
    *,
    admin: Account,
    parameters: Parameters | None = None,
    mode: Mode = Mode.RUNNING,
    roles: dict[Role, Account] | None = None,
    measurement: bytes | None = None,
    bundle: Bundle | None = None,
    salt: bytes = b"",
) -> JobProcessor:
    """
    Deploy the contract and return its processor.

    The *admin* gets every role unless *roles* says who gets which; *measurement*, if given, is
    allowed by whoever is registrar.
    """
    bundle = bundle or load_bundle()
    draft = JobProcessor(bytes(32), bundle)
    deployment = chain.deploy(
        bundle.code,
        draft.new(chain.genesis_hash, parameters or Parameters()),
        signer=admin,
        salt=salt,
    )
    processor = JobProcessor(deployment.contract, bundle)
    holders = dict.fromkeys(Role, admin) if roles is None else roles
    for role, holder in holders.items():
        chain.call(processor.grant_role(holder.account_id, role), signer=admin)
    if measurement is not None:
        registrar = holders[Role.REGISTRAR]
        chain.call(processor.allow_measurement(measurement), signer=registrar)
    if mode is not Mode.RUNNING:
        chain.call(processor.set_mode(mode), signer=admin)
    return processor


def register_test_worker(
    chain: Chain,
    processor: JobProcessor,
    signer: Signer,
    *,
    registrar: Account,
    measurement: bytes,
    encryption_key: bytes | None = None,
    endpoint: bytes | None = None,
    evidence_hash: bytes = blake2b(b"no evidence", digest_size=32).digest(),
    valid_for: int = 86_400_000,
) -> WorkerId:
    """
    Register a worker whose measurement is allowed, with an evidence hash of nothing at all.

    Its *endpoint* is its own unless it is given: of workers with one and the same, owners take the
    newest.
    """
    registration = WorkerRegistration(
        signing_key=signer.public_key,
        encryption_key=encryption_key or EncryptionKey.generate().public_key,
        measurement=measurement,
        evidence_hash=evidence_hash,
        endpoint=endpoint or b"http://127.0.0.1:1/" + signer.public_key.key.hex().encode(),
        valid_until=chain.now() + valid_for,
    )
    digest = registration_digest(
        registration, genesis_hash=chain.genesis_hash, contract=processor.contract
    )
    call = processor.register_worker(registration, signer.sign(digest))
    return chain.call(call, signer=registrar).value
