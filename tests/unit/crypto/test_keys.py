"""Keys sign, derive, refuse, and keep their secrets."""

import copy
import pickle
from dataclasses import replace

import coincurve
import pytest
import sr25519
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from orchestrator.crypto import (
    AccountKey,
    EcdsaSigner,
    EncryptionKey,
    OwnerSecret,
    Sr25519Signer,
    load_signer,
    schnorrkel,
    verify_reply_key,
    verify_signature,
)
from orchestrator.errors import InputError, InvalidSignatureError
from orchestrator.models import PublicKey, Scheme, Signature
from tests.vectors import reference

SECRET = b"\x17" * 32
DIGEST = b"\x2a" * 32
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SIGNERS = [EcdsaSigner, Sr25519Signer]
FIELD = 2**255 - 19
# https://cr.yp.to/ecdh.html#validate, the list that libsodium refuses, the high bit included.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("signer_type", SIGNERS)
def test_a_signature_is_that_key_over_that_digest_alone(
    signer_type: type[EcdsaSigner | Sr25519Signer],
) -> None:
    signer, other = signer_type.generate(), signer_type.generate()
    signature = signer.sign(DIGEST)

    verify_signature(signer.public_key, signature, DIGEST)
    for key, digest in ((other.public_key, DIGEST), (signer.public_key, b"\x2b" * 32)):
        with pytest.raises(InvalidSignatureError) as caught:
            verify_signature(key, signature, digest)
        assert caught.value.code == "BadSignature"


@pytest.mark.parametrize("signer_type", SIGNERS)
def test_every_flipped_bit_of_a_signature_is_refused(
    signer_type: type[EcdsaSigner | Sr25519Signer],
) -> None:
    signer = signer_type.from_bytes(SECRET)
    data = signer.sign(DIGEST).data
    accepted = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        signature = Signature(scheme=signer.public_key.scheme, data=bytes(flipped))
        try:
            verify_signature(signer.public_key, signature, DIGEST)
        except InvalidSignatureError:
            continue
        accepted.append(bit)

    assert accepted == []


@pytest.mark.parametrize("signer_type", SIGNERS)
def test_a_signer_is_loaded_from_its_bytes(
    signer_type: type[EcdsaSigner | Sr25519Signer],
) -> None:
    signer = signer_type.generate()

    loaded = load_signer(signer.public_key.scheme, signer.to_bytes())

    assert loaded.public_key == signer.public_key
    verify_signature(signer.public_key, loaded.sign(DIGEST), DIGEST)


@pytest.mark.parametrize("signer_type", SIGNERS)
def test_only_32_byte_digests_are_signed(
    signer_type: type[EcdsaSigner | Sr25519Signer],
) -> None:
    with pytest.raises(InputError, match="digest: 31 bytes"):
        signer_type.from_bytes(SECRET).sign(b"\0" * 31)


def test_openssl_accepts_our_ecdsa_signatures() -> None:
    signer = EcdsaSigner.from_bytes(SECRET)
    data = signer.sign(DIGEST).data
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), signer.public_key.key)
    der = utils.encode_dss_signature(
        int.from_bytes(data[:32], "big"), int.from_bytes(data[32:64], "big")
    )

    key.verify(der, DIGEST, ec.ECDSA(utils.Prehashed(SHA256())))


def test_the_twin_that_libraries_recover_is_refused() -> None:
    """For (r, n - s, v ^ 1) recovery gives the same key: the pre-check alone refuses it."""
    signer = EcdsaSigner.from_bytes(SECRET)
    data = signer.sign(DIGEST).data
    s = ORDER - int.from_bytes(data[32:64], "big")
    twin = data[:32] + s.to_bytes(32, "big") + bytes([data[64] ^ 1])
    recovered = coincurve.PublicKey.from_signature_and_message(twin, DIGEST, hasher=None)

    assert recovered.format() == signer.public_key.key
    with pytest.raises(InvalidSignatureError):
        verify_signature(signer.public_key, Signature(scheme=Scheme.ECDSA, data=twin), DIGEST)


def test_the_wrapping_of_browser_wallets_is_refused() -> None:
    pair = sr25519.pair_from_seed(SECRET)
    signer = Sr25519Signer.from_bytes(SECRET)
    wrapped = sr25519.sign(pair, b"<Bytes>" + DIGEST + b"</Bytes>")

    with pytest.raises(InvalidSignatureError):
        verify_signature(
            signer.public_key, Signature(scheme=Scheme.SR25519, data=bytes(wrapped)), DIGEST
        )


@pytest.mark.parametrize("signer_type", SIGNERS)
@pytest.mark.parametrize("part", ["signature", "key", "digest"])
@pytest.mark.parametrize("change", [-1, 1])
def test_other_lengths_are_refused(
    signer_type: type[EcdsaSigner | Sr25519Signer], part: str, change: int
) -> None:
    signer = signer_type.from_bytes(SECRET)
    key, signature, digest = signer.public_key, signer.sign(DIGEST), DIGEST

    def resized(data: bytes) -> bytes:
        return data[:-1] if change < 0 else data + b"\0"

    if part == "signature":
        signature = replace(signature, data=resized(signature.data))
    elif part == "key":
        key = replace(key, key=resized(key.key))
    else:
        digest = resized(digest)

    with pytest.raises(InvalidSignatureError):
        verify_signature(key, signature, digest)


@pytest.mark.parametrize("signer_type", SIGNERS)
def test_a_signature_of_the_other_scheme_is_refused(
    signer_type: type[EcdsaSigner | Sr25519Signer],
) -> None:
    signer = signer_type.from_bytes(SECRET)
    other = Scheme.ECDSA if signer.public_key.scheme is Scheme.SR25519 else Scheme.SR25519
    signature = replace(signer.sign(DIGEST), scheme=other)

    with pytest.raises(InvalidSignatureError):
        verify_signature(signer.public_key, signature, DIGEST)


@pytest.mark.parametrize("secret", [bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_an_ecdsa_secret_is_a_number_below_the_order(secret: bytes) -> None:
    with pytest.raises(InputError, match="order of secp256k1"):
        EcdsaSigner.from_bytes(secret)


@pytest.mark.parametrize(
    "make",
    [
        EcdsaSigner.from_bytes,
        Sr25519Signer.from_bytes,
        EncryptionKey.from_bytes,
        OwnerSecret.from_bytes,
        AccountKey.from_seed,
    ],
    ids=lambda make: make.__qualname__,
)
def test_secrets_have_32_bytes(make: object) -> None:
    assert callable(make)
    for length in (0, 31, 33, 64):
        with pytest.raises(InputError, match=f"{length} bytes, must be 32"):
            make(b"\x11" * length)


def test_reply_keys_follow_from_the_owner_secret_and_the_nonce() -> None:
    secret = OwnerSecret.from_bytes(SECRET)
    nonce = bytes(range(16))

    assert secret.reply_key(nonce).to_bytes() == reference.reply_secret(SECRET, nonce)
    assert secret.reply_key(nonce).public_key == OwnerSecret(SECRET).reply_key(nonce).public_key
    assert secret.reply_key(nonce).public_key != secret.reply_key(bytes(16)).public_key
    with pytest.raises(InputError, match="nonce: 15 bytes"):
        secret.reply_key(nonce[:15])


def test_an_encryption_key_is_loaded_from_its_bytes() -> None:
    key = EncryptionKey.generate()

    assert EncryptionKey.from_bytes(key.to_bytes()).public_key == key.public_key
    assert key.public_key == reference.public_key(key.to_bytes())


@pytest.mark.parametrize(
    "value",
    [
        EcdsaSigner.from_bytes(SECRET),
        Sr25519Signer.from_bytes(SECRET),
        EncryptionKey.from_bytes(SECRET),
        OwnerSecret.from_bytes(SECRET),
        AccountKey.from_seed(SECRET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_secrets_are_neither_shown_nor_pickled_nor_copied(
    value: EcdsaSigner | Sr25519Signer | EncryptionKey | OwnerSecret | AccountKey,
) -> None:
    secret = value.to_bytes()

    for text in (repr(value), str(value), f"{value}"):
        assert SECRET.hex() not in text
        assert secret.hex()[:64] not in text
        assert repr(SECRET)[2:-1] not in text
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            leak(value)


def test_a_pair_does_not_show_its_secret_key() -> None:
    pair = schnorrkel.pair_from_seed(SECRET)

    assert repr(pair) == f"Pair(public={pair.public.hex()})"


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("high_bit", [0, 0x80])
def test_points_of_small_order_are_no_reply_keys(point: str, high_bit: int) -> None:
    key = bytes.fromhex(point)
    key = key[:31] + bytes([key[31] | high_bit])
    exchange = X25519PrivateKey.generate().exchange

    with pytest.raises(ValueError, match="shared key"):
        exchange(X25519PublicKey.from_public_bytes(key))
    with pytest.raises(InputError):
        verify_reply_key(key)


@pytest.mark.parametrize("number", [FIELD, FIELD + 2, FIELD + 18, 2**255, 2**255 + 9, 2**256 - 1])
def test_encodings_that_no_key_has_are_no_reply_keys(number: int) -> None:
    with pytest.raises(InputError, match="canonical"):
        verify_reply_key(number.to_bytes(32, "little"))


@pytest.mark.parametrize("number", [2, 9, FIELD - 2])
def test_canonical_points_are_reply_keys(number: int) -> None:
    verify_reply_key(number.to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_reply_key_has_32_bytes(length: int) -> None:
    with pytest.raises(InputError, match=f"{length} bytes"):
        verify_reply_key(b"\x09" * length)


def test_a_thousand_generated_keys_are_reply_keys() -> None:
    for _ in range(1_000):
        verify_reply_key(EncryptionKey.generate().public_key)


def test_a_public_key_that_is_no_point_is_refused() -> None:
    signature = EcdsaSigner.from_bytes(SECRET).sign(DIGEST)

    with pytest.raises(InvalidSignatureError):
        verify_signature(
            PublicKey(scheme=Scheme.ECDSA, key=b"\2" + b"\xff" * 32), signature, DIGEST
        )
