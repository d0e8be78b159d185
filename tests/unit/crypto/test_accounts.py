"""Accounts of secret URIs, held against substrate-interface and the documented addresses."""

import hashlib

import pytest
import sr25519
from substrateinterface import Keypair

from orchestrator.crypto import AccountKey, generate_mnemonic
from orchestrator.encoding import to_ss58
from orchestrator.errors import InputError

PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"
DEV_PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("//Alice", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"),
        ("//Bob", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"),
        ("//Charlie", "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y"),
        ("//Alice//stash", "5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY"),
    ],
)
def test_development_accounts_have_their_well_known_addresses(uri: str, address: str) -> None:
    assert to_ss58(AccountKey.from_uri(uri).account_id) == address


@pytest.mark.parametrize(
    "uri",
    [
        PHRASE,
        f"{PHRASE}//hard",
        f"{PHRASE}/soft",
        f"{PHRASE}//hard/soft//0/1//18446744073709551615",
        f"{PHRASE}//a path element that is longer than thirty-two bytes",
        f"{PHRASE}//" + "x" * 31,
        f"{PHRASE}//" + "x" * 32,
        f"{PHRASE}//" + "x" * 64,
        f"{PHRASE}//" + "x" * 5_000,
        f"{PHRASE}//\u00fcber",
        "//Alice",
        "/Alice",
        "//Alice/1//x",
    ],
)
def test_uris_lead_to_the_account_of_substrate_interface(uri: str) -> None:
    assert AccountKey.from_uri(uri).account_id == Keypair.create_from_uri(uri).public_key


def test_a_number_beyond_64_bits_is_a_name() -> None:
    """As `DeriveJunction::from` of sp-core, where the number does not parse as u64."""
    number = 1 << 64
    text = str(number).encode()
    chain_code = (bytes([len(text) << 2]) + text).ljust(32, b"\0")
    root = Keypair.create_from_uri(PHRASE)
    expected = sr25519.hard_derive_keypair((chain_code, root.public_key, root.private_key), b"")

    assert AccountKey.from_uri(f"{PHRASE}//{number}").account_id == expected[1]


def test_a_seed_in_hex_is_the_account_of_that_seed() -> None:
    seed = bytes(range(32))
    account = AccountKey.from_uri("0x" + seed.hex())

    assert account.account_id == Keypair.create_from_seed(seed.hex()).public_key
    assert account.account_id == AccountKey.from_seed(seed).account_id
    child = AccountKey.from_uri(f"0x{seed.hex()}//1")
    assert child.account_id not in (account.account_id, AccountKey.from_uri("//1").account_id)


def test_a_password_is_part_of_the_seed() -> None:
    """
    substrate-bip39: PBKDF2 of the entropy, salted with "mnemonic" and the password.

    The phrase's entropy is sixteen times 0x7f (BIP-39's own test vectors).
    """
    entropy = b"\x7f" * 16
    salt = b"mnemonic" + b"secret/pass"
    seed = hashlib.pbkdf2_hmac("sha512", entropy, salt, 2048)[:32]

    account = AccountKey.from_uri(f"{PHRASE}///secret/pass")

    assert account.account_id == AccountKey.from_seed(seed).account_id
    with_path = AccountKey.from_uri(f"{PHRASE}//a///secret/pass")
    assert with_path.account_id == AccountKey.from_uri(f"0x{seed.hex()}//a").account_id


def test_surplus_spaces_do_not_matter() -> None:
    spaced = "  " + PHRASE.replace(" ", "  \n ") + " "

    assert AccountKey.from_uri(spaced).account_id == AccountKey.from_uri(PHRASE).account_id


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "  ",
        "Alice",
        "/",
        "//",
        PHRASE + " yellow",
        PHRASE.replace("yellow", "winner"),
        PHRASE.replace("legal", "illegal"),
        PHRASE.upper(),
        f"{PHRASE}//",
        f"{PHRASE}//a//",
        "0x1234",
        "0x" + "0" * 63,
        "0x" + "g" * 64,
        "0x" + "0" * 64 + "///password",
        f"{PHRASE}//" + "x" * 16_384,
        "//winner\ud800",
        f"{PHRASE}///winner\udfff",
    ],
)
def test_other_uris_are_refused_without_quoting_them(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        AccountKey.from_uri(uri)

    message = str(caught.value)
    assert message.startswith("account: ")
    assert not any(word in message for word in ("winner", "thank", "0x1", "ggg", "0000"))
    assert caught.value.__cause__ is None
    assert not isinstance(caught.value.__context__, UnicodeError), "it would hold the text"


def test_an_account_signs_raw_bytes() -> None:
    account = AccountKey.from_uri("//Alice")
    message = b"a transaction"

    signature = account.sign(message)

    assert len(signature) == 64
    assert sr25519.verify(signature, message, account.account_id)
    assert not sr25519.verify(signature, b"<Bytes>" + message + b"</Bytes>", account.account_id)


def test_an_account_is_loaded_from_its_bytes() -> None:
    account = AccountKey.from_uri("//Alice//stash")

    loaded = AccountKey.from_bytes(account.to_bytes())

    assert loaded.account_id == account.account_id
    assert sr25519.verify(loaded.sign(b"x"), b"x", account.account_id)


@pytest.mark.parametrize("secret_key", [b"", b"\1" * 63, b"\1" * 65])
def test_a_secret_key_has_64_bytes(secret_key: bytes) -> None:
    with pytest.raises(InputError, match="must be 64"):
        AccountKey.from_bytes(secret_key)


def test_bytes_that_are_no_secret_key_are_refused() -> None:
    with pytest.raises(InputError, match="not an sr25519 secret key"):
        AccountKey.from_bytes(b"\xff" * 64)


def test_generated_accounts_and_phrases_differ() -> None:
    assert AccountKey.generate().account_id != AccountKey.generate().account_id
    first, second = generate_mnemonic(), generate_mnemonic(24)
    assert (len(first.split()), len(second.split())) == (12, 24)
    assert len(AccountKey.from_uri(first).account_id) == 32
    with pytest.raises(InputError, match="words: 13"):
        generate_mnemonic(13)


def test_the_development_phrase_is_the_one_of_substrate() -> None:
    assert (
        AccountKey.from_uri(DEV_PHRASE).account_id == Keypair.create_from_uri(DEV_PHRASE).public_key
    )
    assert AccountKey.from_uri(f"{DEV_PHRASE}//Alice").account_id == (
        AccountKey.from_uri("//Alice").account_id
    )
