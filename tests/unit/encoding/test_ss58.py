"""Addresses, held against the addresses that everybody knows and another implementation."""

import pytest
from scalecodec.utils.ss58 import ss58_encode

from orchestrator.encoding import from_ss58, to_ss58
from orchestrator.errors import InputError

ALICE = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")
ALICE_ADDRESS = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def test_alice_has_her_address() -> None:
    assert to_ss58(ALICE) == ALICE_ADDRESS
    assert from_ss58(ALICE_ADDRESS) == ALICE
    assert from_ss58("0x" + ALICE.hex()) == ALICE
    assert from_ss58("0x" + ALICE.hex().upper()) == ALICE


@pytest.mark.parametrize("prefix", [0, 2, 5, 42, 63, 64, 72, 255, 256, 1284, 16382, 16383])
@pytest.mark.parametrize(
    "account", [ALICE, bytes(32), b"\xff" * 32], ids=["alice", "zeros", "ones"]
)
def test_agrees_with_scalecodec_for_every_size_of_prefix(prefix: int, account: bytes) -> None:
    address = to_ss58(account, prefix)

    assert address == ss58_encode(account, ss58_format=prefix)
    assert from_ss58(address) == account


@pytest.mark.parametrize("place", range(len(ALICE_ADDRESS)))
def test_a_typing_mistake_is_noticed(place: int) -> None:
    other = "1" if ALICE_ADDRESS[place] != "1" else "2"

    with pytest.raises(InputError):
        from_ss58(ALICE_ADDRESS[:place] + other + ALICE_ADDRESS[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0x",
        "0x" + "0" * 63,
        "0x" + "0" * 66,
        "0x" + "g" * 64,
        "0x" + " " * 2 + "0" * 62,
        ALICE.hex(),
        ALICE_ADDRESS[:-1],
        ALICE_ADDRESS + "1",
        "1" + ALICE_ADDRESS,
        " " + ALICE_ADDRESS,
        ALICE_ADDRESS.replace("z", "0"),
        "z" * 50,
        "1" * 35,
        "5" * 1_000_000,
    ],
)
def test_other_text_is_refused_and_shortened_in_the_message(text: str) -> None:
    with pytest.raises(InputError, match="address") as caught:
        from_ss58(text)

    assert len(str(caught.value)) < 300


def test_a_long_form_of_a_short_prefix_is_refused() -> None:
    """Prefix 42 written in two bytes, with a right checksum."""
    from orchestrator.encoding.ss58 import _checksum, _to_base58  # noqa: PLC0415 - only here

    payload = bytes([0x40 | 42 >> 2, (42 & 3) << 6]) + ALICE

    with pytest.raises(InputError, match="shortest"):
        from_ss58(_to_base58(payload + _checksum(payload)))


@pytest.mark.parametrize("prefix", [-1, 46, 47, 1 << 14])
def test_reserved_prefixes_are_refused(prefix: int) -> None:
    with pytest.raises(InputError, match="prefix"):
        to_ss58(ALICE, prefix)


def test_an_account_has_32_bytes() -> None:
    with pytest.raises(InputError, match="31 bytes"):
        to_ss58(ALICE[:31])
