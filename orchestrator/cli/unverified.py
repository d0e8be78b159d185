"""
A worker registered on its own word alone: for development, and no TEE proof at all.

Nothing else here registers without verified evidence.
"""

from typing import TYPE_CHECKING

from orchestrator.cli.admission import explained_refusal, no_answer
from orchestrator.cli.output import to_json
from orchestrator.errors import ContractError, WorkerUnavailableError

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.models import Signature, WorkerRegistration

NOT_A_TEE = (
    "This worker is registered on its own word: development worker, no TEE. Nothing here proves"
    " where its keys are or what software it runs."
)


def register_unverified(
    session: "Session", url: str, *, measurement: bytes, valid_until: int, token: str | None
) -> None:
    """Register the worker at *url* with the measurement as given, and say what that is worth."""
    import asyncio

    session.output.say(NOT_A_TEE)
    with session.output.progress(f"Asking {url} for its signature"):
        try:
            registration, possession = asyncio.run(
                ask_registration(
                    url,
                    token=token,
                    genesis_hash=session.chain.genesis_hash,
                    contract=session.contract,
                    measurement=measurement,
                    valid_until=valid_until,
                )
            )
        except WorkerUnavailableError as error:
            raise no_answer(url, error) from error
    call = session.processor.register_worker(registration, possession)
    try:
        receipt = session.send(call, "Registering the worker")
    except ContractError as refusal:
        if refusal.variant == "MeasurementNotAllowed":
            allow = f"phala-jobs measurements allow {measurement.hex()}"
            raise ContractError(refusal.variant, allow) from refusal
        raise explained_refusal(session, refusal) from refusal
    session.output.result(
        {
            "worker": receipt.value,
            "endpoint": url,
            "valid_until": valid_until,
            "measurement": to_json(measurement),
            "signing_key": to_json(registration.signing_key.key),
            "encryption_key": to_json(registration.encryption_key),
            "verified": False,
            "tee": "none: development worker, no TEE",
        }
    )


async def ask_registration(
    url: str,
    *,
    token: str | None,
    genesis_hash: bytes,
    contract: bytes,
    measurement: bytes,
    valid_until: int,
) -> "tuple[WorkerRegistration, Signature]":
    """
    The worker's keys, and its signature over its registration, verified.

    Does **not** check where those keys are: this is no TEE proof.

    Raises:
        WorkerError: The worker did not answer as it should.
        InvalidSignatureError: The signature is not one that the contract would take.
    """
    from orchestrator.crypto.keys import verify_signature
    from orchestrator.encoding import blake2_256, registration_digest
    from orchestrator.models import WorkerRegistration
    from orchestrator.workers.http import HttpWorkerClient

    client = HttpWorkerClient(url, token)
    try:
        identity = await client.identity()
        registration = WorkerRegistration(
            signing_key=identity.signing_key,
            encryption_key=identity.encryption_key,
            measurement=measurement,
            evidence_hash=blake2_256(b""),  # the hash of the evidence that there is: none
            endpoint=url.encode("utf-8"),
            valid_until=valid_until,
        )
        possession = await client.registration(
            genesis=genesis_hash,
            contract=contract,
            measurement=measurement,
            evidence_hash=registration.evidence_hash,
            valid_until=valid_until,
        )
    finally:
        await client.close()
    digest = registration_digest(registration, genesis_hash=genesis_hash, contract=contract)
    verify_signature(registration.signing_key, possession, digest)
    return registration, possession
