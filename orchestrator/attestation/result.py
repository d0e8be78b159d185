"""Decides whether an owner accepts a sealed result (protocol section 3.4, "An owner accepts")."""

import hmac
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.attestation.statement import verify_completion_signature
from orchestrator.crypto import ResultHeader, read_result_header
from orchestrator.encoding import blake2_256
from orchestrator.errors import OpenError, RefusedError
from orchestrator.models import Completion, PublicKey, Statement


@dataclass(frozen=True, kw_only=True)
class ExpectedResult:
    """
    What the owner knows about a job's result before it is fetched.

    `completion` is the job's attestation or failure as the chain or a receipt has it, `measurement`
    that of its worker's registration; `accepted_keys` are the worker keys that the owner accepts.
    """

    genesis_hash: bytes
    contract: bytes
    payload_hash: bytes
    completion: Completion
    measurement: bytes
    accepted_keys: Collection[PublicKey]


def verify_result(envelope: bytes, *, expected: ExpectedResult) -> Statement:
    """
    Return the statement about a result once the result is shown to be the one it names.

    1. The bytes hash to the recorded result hash: `ResultHashMismatch`.
    2. The worker's key is one that the owner accepts: `WorkerNotAccepted`.
    3. The signature is of the key's scheme and covers the statement: `KeyMismatch`,
       `BadSignature`.
    4. The header is a result header of version 1: `ResultUnreadable`.
    5. It names this chain, contract, job, payload and worker: `GenesisMismatch`,
       `ContractMismatch`, `JobMismatch`, `PayloadMismatch`, `WorkerMismatch`.

    Does **not** open the result, nor check whether the worker is trusted today. The header is
    authentic only once `open_result` has opened it.

    Raises:
        RefusedError: A check failed; `code` says which.
    """
    completion = expected.completion
    # 1.
    if not hmac.compare_digest(blake2_256(envelope), completion.result_hash):
        raise RefusedError("ResultHashMismatch", "these are not the bytes that the worker signed")
    # 2.
    key = completion.tee_worker_pubkey
    if key not in expected.accepted_keys:
        raise RefusedError("WorkerNotAccepted", f"worker key {key.key.hex()}")
    # 3.
    statement = verify_completion_signature(
        completion,
        genesis_hash=expected.genesis_hash,
        contract=expected.contract,
        payload_hash=expected.payload_hash,
        measurement=expected.measurement,
    )
    # 4.
    try:
        header = read_result_header(envelope)
    except OpenError as error:
        raise RefusedError("ResultUnreadable", "not a sealed result of version 1") from error
    _check_header(header, expected)  # 5.
    return statement


def _check_header(header: ResultHeader, expected: ExpectedResult) -> None:
    completion = expected.completion
    if header.genesis != expected.genesis_hash:
        raise RefusedError("GenesisMismatch", "the result is for another chain")
    if header.contract != expected.contract:
        raise RefusedError("ContractMismatch", "the result is for another contract")
    if header.job_id != completion.job_id:
        raise RefusedError("JobMismatch", f"for job {header.job_id}, not {completion.job_id}")
    if header.payload_hash != expected.payload_hash:
        raise RefusedError("PayloadMismatch", "the result is for another payload")
    if header.worker_key != completion.tee_worker_pubkey:
        raise RefusedError("WorkerMismatch", "the result names another worker")
