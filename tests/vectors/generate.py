"""
Makes the vector files of this folder: `python tests/vectors/generate.py [--check]`.

With `--check` nothing is written and any difference is an error. The bytes come from
`reference.py`, which shares no code with the product. sr25519 signatures are randomised: one that
a file holds already is kept as long as it is valid, so that running this twice changes nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1]))

from tests.vectors import reference  # noqa: E402 - the line above lets the script find it
from tests.vectors.envelopes import job_vectors, result_vectors  # noqa: E402 - the same
from tests.vectors.signatures import (  # noqa: E402 - the same
    ECDSA_SECRET,
    SEED,
    Signatures,
    ecdsa_public,
    named,
    refused_ecdsa,
    refused_sr25519,
    signed,
    sr25519_public,
)

ORIGIN = "made by tests/vectors/generate.py with tests/vectors/reference.py; signatures by {}"
SIGNERS = "coincurve 21 (ECDSA, RFC 6979) and py-sr25519-bindings 0.2 (sr25519)"

Document = dict[str, object]


STATEMENTS: dict[str, dict[str, object]] = {
    "completed": {
        "genesis_hash": named("genesis"),
        "contract": named("contract"),
        "job_id": "1",
        "payload_hash": named("payload"),
        "outcome": "Completed",
        "result_hash": named("result"),
        "units": 1_234,
        "measurement": named("measurement"),
        "started_at": 1_793_000_000_000,
        "finished_at": 1_793_000_001_500,
        "issued_at": 1_793_000_002_000,
    },
    "failed": {
        "genesis_hash": named("genesis"),
        "contract": named("contract"),
        "job_id": "18446744073709551617",
        "payload_hash": named("another payload"),
        "outcome": "Failed",
        "result_hash": named("failure report"),
        "units": 0,
        "measurement": named("measurement"),
        "started_at": 1_793_000_000_000,
        "finished_at": 1_793_000_000_000,
        "issued_at": 1_793_000_000_000,
    },
    "largest": {
        "genesis_hash": b"\xff" * 32,
        "contract": b"\xff" * 32,
        "job_id": str((1 << 128) - 1),
        "payload_hash": b"\xff" * 32,
        "outcome": "Completed",
        "result_hash": b"\xff" * 32,
        "units": (1 << 64) - 1,
        "measurement": b"\xff" * 32,
        "started_at": (1 << 64) - 1,
        "finished_at": (1 << 64) - 1,
        "issued_at": (1 << 64) - 1,
    },
    "smallest": {
        "genesis_hash": bytes(32),
        "contract": bytes(32),
        "job_id": "0",
        "payload_hash": bytes(32),
        "outcome": "Completed",
        "result_hash": bytes(32),
        "units": 0,
        "measurement": bytes(32),
        "started_at": 0,
        "finished_at": 0,
        "issued_at": 0,
    },
    # Every byte of every integer differs, so that a swapped order shows.
    "byte_order": {
        "genesis_hash": bytes(range(32)),
        "contract": bytes(range(32, 64)),
        "job_id": str(int.from_bytes(bytes(range(1, 17)), "little")),
        "payload_hash": bytes(range(64, 96)),
        "outcome": "Completed",
        "result_hash": bytes(range(96, 128)),
        "units": int.from_bytes(bytes(range(17, 25)), "little"),
        "measurement": bytes(range(128, 160)),
        "started_at": int.from_bytes(bytes(range(25, 33)), "little"),
        "finished_at": int.from_bytes(bytes(range(33, 41)), "little"),
        "issued_at": int.from_bytes(bytes(range(41, 49)), "little"),
    },
}

REGISTRATIONS: dict[str, dict[str, object]] = {
    "ordinary": {
        "genesis_hash": named("genesis"),
        "contract": named("contract"),
        "encryption_key": reference.public_key(named("worker encryption secret")),
        "measurement": named("measurement"),
        "evidence_hash": named("evidence"),
        "valid_until": 1_795_000_000_000,
    },
    "largest": {
        "genesis_hash": b"\xff" * 32,
        "contract": b"\xff" * 32,
        "encryption_key": b"\xff" * 32,
        "measurement": b"\xff" * 32,
        "evidence_hash": b"\xff" * 32,
        "valid_until": (1 << 64) - 1,
    },
    "byte_order": {
        "genesis_hash": bytes(range(32)),
        "contract": bytes(range(32, 64)),
        "encryption_key": bytes(range(64, 96)),
        "measurement": bytes(range(96, 128)),
        "evidence_hash": bytes(range(128, 160)),
        "valid_until": int.from_bytes(bytes(range(1, 9)), "little"),
    },
}


def _hexed(fields: dict[str, object]) -> Document:
    return {
        (f"{name}_hex" if isinstance(value, bytes) else name): (
            value.hex() if isinstance(value, bytes) else value
        )
        for name, value in fields.items()
    }


def statement_vectors(path: Path) -> Document:
    signatures = Signatures(path)
    cases: list[Document] = []
    for name, fields in STATEMENTS.items():
        encoded = reference.statement_bytes(fields)
        digest = reference.blake2_256(encoded)
        cases.append(
            {
                "name": name,
                "statement": _hexed(fields),
                "encoded_hex": encoded.hex(),
                "digest_hex": digest.hex(),
                "signatures": [
                    signed("ecdsa", ecdsa_public(), signatures.ecdsa(digest)),
                    signed("sr25519", sr25519_public(), signatures.sr25519(digest)),
                ],
            }
        )
    digest = reference.blake2_256(reference.statement_bytes(STATEMENTS["completed"]))
    other = reference.blake2_256(reference.statement_bytes(STATEMENTS["failed"]))
    return {
        "origin": ORIGIN.format(SIGNERS),
        "secrets": _secrets(),
        "cases": cases,
        "refused": refused_ecdsa(signatures, digest, other)
        + refused_sr25519(signatures, digest, other),
    }


def registration_vectors(path: Path) -> Document:
    signatures = Signatures(path)
    cases: list[Document] = []
    for name, fields in REGISTRATIONS.items():
        for scheme, key in (("ecdsa", ecdsa_public()), ("sr25519", sr25519_public())):
            encoded = reference.registration_bytes(fields, reference.signing_key_bytes(scheme, key))
            digest = reference.blake2_256(encoded)
            sign = signatures.ecdsa if scheme == "ecdsa" else signatures.sr25519
            cases.append(
                {
                    "name": f"{name}_{scheme}",
                    "registration": _hexed(fields),
                    "signing_key_hex": reference.signing_key_bytes(scheme, key).hex(),
                    "encoded_hex": encoded.hex(),
                    "digest_hex": digest.hex(),
                    "signatures": [signed(scheme, key, sign(digest))],
                }
            )
    ordinary, other = REGISTRATIONS["ordinary"], REGISTRATIONS["byte_order"]
    digests = {
        (scheme, name): reference.blake2_256(
            reference.registration_bytes(fields, reference.signing_key_bytes(scheme, key))
        )
        for scheme, key in (("ecdsa", ecdsa_public()), ("sr25519", sr25519_public()))
        for name, fields in (("ordinary", ordinary), ("other", other))
    }
    return {
        "origin": ORIGIN.format(SIGNERS),
        "secrets": _secrets(),
        "cases": cases,
        "refused": refused_ecdsa(
            signatures, digests["ecdsa", "ordinary"], digests["ecdsa", "other"]
        )
        + refused_sr25519(signatures, digests["sr25519", "ordinary"], digests["sr25519", "other"]),
    }


def _secrets() -> Document:
    return {
        "note": "test keys, known to everybody",
        "ecdsa_hex": ECDSA_SECRET.hex(),
        "sr25519_seed_hex": SEED.hex(),
    }


def binding_vectors(_path: Path) -> Document:
    fields = {
        "ordinary": {
            "genesis_hash": named("genesis"),
            "contract": named("contract"),
            "encryption_key": reference.public_key(named("worker encryption secret")),
            "challenge": named("challenge"),
        },
        "byte_order": {
            "genesis_hash": bytes(range(32)),
            "contract": bytes(range(32, 64)),
            "encryption_key": bytes(range(64, 96)),
            "challenge": bytes(range(96, 128)),
        },
    }
    cases: list[Document] = []
    for name, values in fields.items():
        for scheme, key in (("ecdsa", ecdsa_public()), ("sr25519", sr25519_public())):
            signing_key = reference.signing_key_bytes(scheme, key)
            encoded = reference.binding_bytes(values, signing_key)
            cases.append(
                {
                    "name": f"{name}_{scheme}",
                    "scheme": scheme,
                    "public_key_hex": key.hex(),
                    "signing_key_hex": signing_key.hex(),
                    "binding": _hexed(dict(values)),
                    "encoded_hex": encoded.hex(),
                    "report_data_hex": reference.sha512(encoded).hex(),
                }
            )
    return {"origin": ORIGIN.format("nobody"), "cases": cases}


def measurement_vectors(_path: Path) -> Document:
    registers = [bytes([place]) * 48 for place in range(4)]
    sets: dict[str, list[object]] = {
        "tdx": ["tdx", *registers, named("compose"), named("app")[:20]],
        "tdx_without_compose": ["tdx", *registers, None, None],
        "sgx": ["sgx", named("mrenclave"), None, None, None],
        "sgx_signer": ["sgx", None, named("mrsigner"), 7, 300],
    }
    cases: list[Document] = []
    for name, fields in sets.items():
        encoded = reference.measurement_bytes(fields)
        cases.append(
            {
                "name": name,
                "fields": [item.hex() if isinstance(item, bytes) else item for item in fields],
                "encoded_hex": encoded.hex(),
                "measurement_hex": reference.blake2_256(encoded).hex(),
            }
        )
    return {"origin": ORIGIN.format("nobody"), "cases": cases}


FILES: dict[str, Callable[[Path], Document]] = {
    "statement.json": statement_vectors,
    "registration.json": registration_vectors,
    "binding.json": binding_vectors,
    "measurement.json": measurement_vectors,
    "envelope.json": job_vectors,
    "result.json": result_vectors,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    is_check = parser.parse_args().check
    stale = []
    for name, make in FILES.items():
        path = FOLDER / name
        text = json.dumps(make(path), indent=1) + "\n"
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not is_check:
            path.write_text(text)
    if stale:
        print(f"{'differs' if is_check else 'written'}: {', '.join(stale)}")
    return 1 if stale and is_check else 0


if __name__ == "__main__":
    sys.exit(main())
