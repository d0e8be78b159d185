"""Real evidence of other people's machines, where this machine has it."""

import json
import os
from dataclasses import dataclass
from hashlib import sha3_384
from pathlib import Path

import pytest

from orchestrator.evidence import Collateral, load_collateral_json

VARIABLE = "PHALA_JOBS_FIXTURES"
NEAR_NOW = 1_786_622_400_000
# Inside the window of each sample's collateral, ms.
NOW = {
    "near": NEAR_NOW,
    "tdx_quote": 1_750_400_000_000,
    "sgx_quote": 1_750_400_000_000,
    "tdx_quote_outdated": 1_772_000_000_000,
}
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Near:
    """What near/mpc's node shows besides its quote; `report_data` is of its own layout."""

    event_log: bytes
    compose: bytes
    report_data: bytes
    registers: dict[str, bytes]


def real_quote(name: str) -> bytes:
    if name == "near":
        return bytes(json.loads((fixtures_folder() / "near-mpc/quote.json").read_text()))
    return (fixtures_folder() / "dcap-qvl" / name).read_bytes()


def real_collateral(name: str) -> Collateral:
    path = "near-mpc/collateral.json" if name == "near" else f"dcap-qvl/{name}_collateral.json"
    return load_collateral_json((fixtures_folder() / path).read_bytes())


def near() -> Near:
    """Read the rest of near/mpc's evidence; the layout is `0x0001 ‖ sha3-384(both keys) ‖ 0`."""
    folder = fixtures_folder() / "near-mpc"
    info = json.loads((folder / "tcb_info.json").read_text())
    keys = b"".join(
        _near_key((folder / f"near_{kind}_public_key.pub").read_text())
        for kind in ("p2p", "account")
    )
    names = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "compose_hash")
    return Near(
        event_log=json.dumps(info["event_log"]).encode(),
        compose=(folder / "app_compose.json").read_bytes(),
        report_data=b"\0\1" + sha3_384(keys).digest() + bytes(14),
        registers={name: bytes.fromhex(info[name]) for name in names},
    )


def _near_key(text: str) -> bytes:
    number = 0
    for character in text.strip().removeprefix("ed25519:"):
        number = number * 58 + _BASE58.index(character)
    return number.to_bytes(32, "big")


def fixtures_folder() -> Path:
    """Return the folder of real evidence; without one the test is skipped."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"no real evidence: set {VARIABLE} to the folder of fixtures")
    return Path(folder)
