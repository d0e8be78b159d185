"""Signatures for the vector files: good ones, and bad ones of every kind that libraries accept."""

from pathlib import Path

import coincurve
import sr25519

from tests.vectors import reference

Document = dict[str, object]

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def named(name: str) -> bytes:
    """Return 32 bytes that are the same each time and belong to *name* alone."""
    return reference.blake2_256(b"phala-jobs test vectors: " + name.encode())


ECDSA_SECRET, OTHER_ECDSA_SECRET = named("ecdsa secret"), named("another ecdsa secret")
SEED, OTHER_SEED = named("sr25519 seed"), named("another sr25519 seed")


class Signatures:
    """Signs for the vectors; keeps the randomised signatures of the file that is there."""

    def __init__(self, path: Path) -> None:
        text = path.read_text() if path.exists() else ""
        self._kept = [
            bytes.fromhex(word) for word in text.split('"') if len(word) == 128 and _is_hex(word)
        ]

    def ecdsa(self, digest: bytes, secret: bytes = ECDSA_SECRET) -> bytes:
        return coincurve.PrivateKey(secret).sign_recoverable(digest, hasher=None)

    def sr25519(self, message: bytes, seed: bytes = SEED) -> bytes:
        pair = sr25519.pair_from_seed(seed)
        for signature in self._kept:
            if _is_valid(signature, message, pair[0]):
                return signature
        return bytes(sr25519.sign(pair, message))


def _is_valid(signature: bytes, message: bytes, key: bytes) -> bool:
    try:
        return bool(sr25519.verify(signature, message, key))
    except ValueError:
        # Some of the refused ones can't even be read.
        return False


def _is_hex(text: str) -> bool:
    return set(text) <= set("0123456789abcdef")


def ecdsa_public(secret: bytes = ECDSA_SECRET) -> bytes:
    return coincurve.PrivateKey(secret).public_key.format()


def sr25519_public(seed: bytes = SEED) -> bytes:
    return bytes(sr25519.pair_from_seed(seed)[0])


def signed(scheme: str, key: bytes, signature: bytes) -> Document:
    return {"scheme": scheme, "public_key_hex": key.hex(), "signature_hex": signature.hex()}


def refused_ecdsa(signatures: Signatures, digest: bytes, other: bytes) -> list[Document]:
    valid = signatures.ecdsa(digest)
    r, s, v = valid[:32], valid[32:64], valid[64]
    twin = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    zero, order = bytes(32), ORDER.to_bytes(32, "big")
    above_half = (ORDER // 2 + 1).to_bytes(32, "big")
    broken = {
        "twin_n_minus_s": r + twin + bytes([v ^ 1]),
        "n_minus_s_alone": r + twin + bytes([v]),
        "s_just_above_half": r + above_half + bytes([v]),
        "other_v": r + s + bytes([v ^ 1]),
        "v_plus_2": r + s + bytes([v + 2]),
        "v_4": r + s + bytes([4]),
        "v_27_as_on_ethereum": r + s + bytes([27 + v]),
        "v_255": r + s + bytes([255]),
        "r_zero": zero + s + bytes([v]),
        "s_zero": r + zero + bytes([v]),
        "r_is_n": order + s + bytes([v]),
        "r_above_n": b"\xff" * 32 + s + bytes([v]),
        "s_is_n": r + order + bytes([v]),
        "s_all_ones": r + b"\xff" * 32 + bytes([v]),
        "all_zero": bytes(65),
        "all_ones": b"\xff" * 65,
        "v_first": bytes([v]) + r + s,
        "halves_swapped": s + r + bytes([v]),
        "other_key_signed": signatures.ecdsa(digest, OTHER_ECDSA_SECRET),
        "other_digest_signed": signatures.ecdsa(other),
    }
    cases = [
        _refused(f"ecdsa_{name}", "ecdsa", ecdsa_public(), signature, digest)
        for name, signature in broken.items()
    ]
    point = ecdsa_public()
    mirrored = bytes([point[0] ^ 1]) + point[1:]
    cases += [
        _refused("ecdsa_mirrored_key", "ecdsa", mirrored, valid, digest),
        _refused("ecdsa_key_not_a_point", "ecdsa", b"\x02" + b"\xff" * 32, valid, digest),
        _refused("ecdsa_key_all_zero", "ecdsa", bytes(33), valid, digest),
    ]
    return cases


def refused_sr25519(signatures: Signatures, digest: bytes, other: bytes) -> list[Document]:
    valid = signatures.sr25519(digest)
    broken = {
        "first_bit": bytes([valid[0] ^ 1]) + valid[1:],
        "bit_of_s": valid[:40] + bytes([valid[40] ^ 1]) + valid[41:],
        "without_marker": valid[:63] + bytes([valid[63] & 0x7F]),
        "s_not_reduced": valid[:32] + b"\xff" * 32,
        "all_zero": bytes(64),
        "all_ones": b"\xff" * 64,
        "halves_swapped": valid[32:] + valid[:32],
        "other_key_signed": signatures.sr25519(digest, OTHER_SEED),
        "other_digest_signed": signatures.sr25519(other),
        "wrapped_as_by_browser_wallets": signatures.sr25519(b"<Bytes>" + digest + b"</Bytes>"),
    }
    cases = [
        _refused(f"sr25519_{name}", "sr25519", sr25519_public(), signature, digest)
        for name, signature in broken.items()
    ]
    cases += [
        _refused("sr25519_key_not_a_point", "sr25519", b"\xff" * 32, valid, digest),
        _refused("sr25519_key_all_zero", "sr25519", bytes(32), valid, digest),
    ]
    return cases


def _refused(name: str, scheme: str, key: bytes, signature: bytes, digest: bytes) -> Document:
    return {
        "name": name,
        **signed(scheme, key, signature),
        "digest_hex": digest.hex(),
        "error": "BadSignature",
    }
