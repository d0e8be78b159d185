"""
What stands in the contract's storage cells, and under which keys (by ink!'s own names for them).

Places and types are the metadata's; what a job's row packs into bytes is drawn in the contract's
`job_row.rs` and is of its storage version, which the contract's own cell begins with.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.chain.bundle import CONTRACT_VERSIONS, Bundle
from orchestrator.chain.interface import ADAPTERS
from orchestrator.chain.registry import Registry, bytes_at, int_at, object_at, objects_at, text_at
from orchestrator.chain.scale import Codec, Variant, decode, encode
from orchestrator.errors import ChainMismatchError, EncodingError
from orchestrator.models import (
    AttestationProof,
    JobHead,
    JobId,
    JobStatus,
    Outcome,
    Scheme,
    Signature,
    Worker,
    WorkerId,
)

__all__ = ["ContractCells", "StoredAttestation", "StoredJob"]

_STATUSES = tuple(JobStatus)
_SCHEMES = {1: (Scheme.SR25519, 64), 2: (Scheme.ECDSA, 65)}
_MOST_WORKERS = 4
# Lengths in a job's row: what comes before the list of workers, a failure, and the last record.
_HEAD = 131
_FAILURE = 49
_LAST = 139
_ABSENT = 0xFF


@dataclass(frozen=True, kw_only=True)
class StoredAttestation:
    """The statement that a job's row keeps; `recorded_at` is the block time (ms) of recording."""

    worker: WorkerId
    result_hash: bytes
    proof: AttestationProof
    recorded_at: int


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    """A job's row without its failures and its payload."""

    head: JobHead
    attestation: StoredAttestation | None


class ContractCells:
    """
    The cells of the contract that *bundle* is of; it takes a millisecond to make, so keep it.

    Raises:
        ChainMismatchError: The metadata has no such cells.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        types = Registry(objects_at(bundle.metadata, "types"), ADAPTERS)
        root = object_at(object_at(bundle.metadata, "storage"), "root")
        fields = _fields(object_at(root, "layout"))
        # The contract's own cell is read by its first two fields alone.
        if list(fields)[:2] != ["version", "genesis_hash"]:
            raise ChainMismatchError("the contract's own cell begins with something else")
        self.root = bytes_at(root, "root_key")
        self._jobs = _Mapping(types, fields, "jobs", "rows")
        self._workers = _Mapping(types, fields, "workers", "rows")
        self._measurements = _Mapping(types, fields, "workers", "measurements")

    def job(self, job_id: JobId) -> bytes:
        """Return the key of a job's row."""
        return self._jobs.key(job_id)

    def worker(self, worker: WorkerId) -> bytes:
        """Return the key of a worker's row."""
        return self._workers.key(worker)

    def measurement(self, measurement: bytes) -> bytes:
        """Return the key of what is said of a measurement."""
        return self._measurements.key(measurement)

    def read_genesis(self, cell: bytes) -> bytes:
        """
        Return the genesis hash that the contract was deployed with, from its own cell.

        Raises:
            EncodingError: The cell is of a storage version that is not known here.
        """
        version = int.from_bytes(cell[:4], "little")
        if len(cell) < 36 or version not in CONTRACT_VERSIONS:
            raise EncodingError(f"the contract's storage is of version {version}, unknown here")
        return cell[4:36]

    def read_job(self, job_id: JobId, cell: bytes) -> StoredJob:
        """
        Return a job from its row; *job_id* is what the row is kept under.

        Raises:
            EncodingError: It is no row.
        """
        row = self._jobs.read(cell)
        data = row.get("bytes") if isinstance(row, Mapping) else None
        if not isinstance(data, bytes):
            raise EncodingError("a job's row is not bytes")
        return _read_row(job_id, data)

    def read_worker(self, cell: bytes) -> Worker:
        """Return a worker from its row; raises as `read_job`."""
        worker = self._workers.read(cell)
        if not isinstance(worker, Worker):
            raise EncodingError("a worker's row is none")
        return worker

    def read_is_revoked(self, cell: bytes) -> bool:
        """Return whether a measurement is revoked; raises as `read_job`."""
        status = self._measurements.read(cell)
        if not isinstance(status, Variant) or status.name not in ("Allowed", "Revoked"):
            raise EncodingError("what is said of a measurement has another form")
        return status.name == "Revoked"


class _Mapping:
    """One `Mapping` of the contract: where its cells are, and what they hold."""

    def __init__(self, types: Registry, fields: Mapping[str, object], *path: str) -> None:
        found = object_at({"field": fields.get(path[0])}, "field")
        root = object_at(object_at({"field": _fields(found).get(path[1])}, "field"), "root")
        key, value = types.parameters(int_at(root, "ty"))[:2]
        self._prefix = bytes_at(root, "root_key")
        self._key: Codec = types.codec(key)
        self._value: Codec = types.codec(value)

    def key(self, key: object) -> bytes:
        return self._prefix + encode(self._key, key)

    def read(self, cell: bytes) -> object:
        return decode(self._value, cell)


def _fields(layout: Mapping[str, object]) -> dict[str, object]:
    listed = objects_at(object_at(layout, "struct"), "fields")
    return {text_at(field, "name"): field.get("layout") for field in listed}


def _read_row(job_id: JobId, row: bytes) -> StoredJob:
    if len(row) < _HEAD:
        raise EncodingError("a job's row ends early")
    status, failures, count = row[48], row[129], row[130]
    last = _HEAD + 4 * count + _FAILURE * max(0, count - 1)
    if status >= len(_STATUSES) or not 1 <= count <= _MOST_WORKERS or len(row) < last + _LAST:
        raise EncodingError("a job's row has another form")
    head = JobHead(
        job_id=job_id,
        owner=row[:32],
        status=_STATUSES[status],
        created_at=_u64(row, 32),
        deadline=_u64(row, 40),
        payload_hash=row[49:81],
        workers=tuple(
            int.from_bytes(row[at : at + 4], "little") for at in range(_HEAD, _HEAD + 4 * count, 4)
        ),
        processed_at=_u64(row, 121) if _STATUSES[status] is JobStatus.PROCESSED else None,
    )
    # The last worker's failure takes the place of the attestation.
    is_attested = failures != count and row[last] != _ABSENT
    record = row[last : last + _LAST]
    return StoredJob(
        head=head, attestation=_read_attestation(record, head.workers) if is_attested else None
    )


def _read_attestation(record: bytes, workers: tuple[WorkerId, ...]) -> StoredAttestation:
    position, known = record[0], _SCHEMES.get(record[1])
    if position >= len(workers) or known is None:
        raise EncodingError("an attestation in a job's row has another form")
    scheme, length = known
    units, started_at, finished_at, issued_at, recorded_at = (
        _u64(record, at) for at in range(99, _LAST, 8)
    )
    return StoredAttestation(
        worker=workers[position],
        result_hash=record[67:99],
        proof=AttestationProof(
            outcome=Outcome.COMPLETED,
            units=units,
            started_at=started_at,
            finished_at=finished_at,
            issued_at=issued_at,
            signature=Signature(scheme=scheme, data=record[2 : 2 + length]),
        ),
        recorded_at=recorded_at,
    )


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
