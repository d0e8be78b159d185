"""What a worker signs about one job, made from what the contract takes."""

from orchestrator.crypto import verify_signature
from orchestrator.encoding import statement_digest
from orchestrator.errors import EncodingError, InvalidSignatureError
from orchestrator.models import Completion, Signature, Signer, Statement


def sign_statement(statement: Statement, signer: Signer) -> Signature:
    """
    Return the worker's signature over *statement*.

    Raises:
        EncodingError: A field does not fit its width.
    """
    return signer.sign(statement_digest(statement))


def statement_of(
    completion: Completion,
    *,
    genesis_hash: bytes,
    contract: bytes,
    payload_hash: bytes,
    measurement: bytes,
) -> Statement:
    """
    Return the statement that *completion* carries.

    What a carrier could lie about comes from elsewhere: chain, contract, payload hash and
    measurement are those that the caller knows, as the contract rebuilds it from its own storage.
    """
    proof = completion.attestation_proof
    return Statement(
        genesis_hash=genesis_hash,
        contract=contract,
        job_id=completion.job_id,
        payload_hash=payload_hash,
        outcome=proof.outcome,
        result_hash=completion.result_hash,
        units=proof.units,
        measurement=measurement,
        started_at=proof.started_at,
        finished_at=proof.finished_at,
        issued_at=proof.issued_at,
    )


def verify_completion_signature(
    completion: Completion,
    *,
    genesis_hash: bytes,
    contract: bytes,
    payload_hash: bytes,
    measurement: bytes,
) -> Statement:
    """
    Return the statement in *completion* if its key signed it.

    1. The signature is of the key's scheme: `KeyMismatch`.
    2. It covers the statement rebuilt from the arguments: `BadSignature`.

    Does **not** check whose key it is: anybody can sign with a key of their own.

    Raises:
        InvalidSignatureError: A check failed.
    """
    key, signature = completion.tee_worker_pubkey, completion.attestation_proof.signature
    # 1.
    if signature.scheme is not key.scheme:
        raise InvalidSignatureError("KeyMismatch", "the signature is of another scheme")
    # 2.
    statement = statement_of(
        completion,
        genesis_hash=genesis_hash,
        contract=contract,
        payload_hash=payload_hash,
        measurement=measurement,
    )
    try:
        digest = statement_digest(statement)
    except EncodingError as error:
        # What has no encoding can't have been signed.
        raise InvalidSignatureError("BadSignature", str(error)) from error
    verify_signature(key, signature, digest)
    return statement
