"""
A simulator in a private folder: made once, loaded by every process that uses it.

`authority.json` holds the vendor's keys and `guest.json` what runs; both never change.
`machine-N.json` is the Nth state of the machine, `recovery-N.json` the Nth TCB recovery. Files are
added and never replaced, so that a reader never finds half a change. All are of mode 0600.
`root.pem`, for a policy, is the one without a secret.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from orchestrator.errors import InputError
from orchestrator.keystore.private_files import (
    ensure_private_directory,
    read_private_file,
    write_new_file,
)
from orchestrator.simulator.authority import Authority, Issued
from orchestrator.simulator.guest import Guest, RuntimeEvent
from orchestrator.simulator.platform import Platform, Simulator
from orchestrator.simulator.tcb import Svns

__all__ = ["create_simulator", "load_simulator", "store_recovery", "store_update"]

_MAX_BYTES: Final = 1 << 20
_AUTHORITY: Final = "authority.json"
_GUEST: Final = "guest.json"
_CAS: Final = ("root", "platform_ca", "tcb_signer")
_REGISTERS: Final = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "td_attributes", "xfam")


def create_simulator(folder: Path, *, guest: Guest | None = None) -> Simulator:
    """
    Make a simulator with new keys and keep it in *folder*.

    Raises:
        InputError: There is one already, or the folder is not private or can't be written.
    """
    ensure_private_directory(folder)
    if (folder / _AUTHORITY).exists():
        raise InputError(f"folder {folder}: there is a simulator already; nothing is overwritten")
    made = Simulator.create(guest=guest)
    _write(folder, _GUEST, _dump_guest(made.guest))
    _write(folder, "machine-0001.json", _dump_platform(made.platform))
    write_new_file(folder / "root.pem", made.root_pem.encode("ascii"))
    # Last: a folder with it is whole.
    _write(folder, _AUTHORITY, {name: _dump_issued(getattr(made.authority, name)) for name in _CAS})
    return made


def load_simulator(folder: Path) -> Simulator:
    """
    Return the simulator of *folder* as it is now, with its recoveries and updates.

    Raises:
        InputError: There is none, other users may read it, or a file is not of its form.
    """
    if not (folder / _AUTHORITY).exists():
        raise InputError(f"folder {folder}: no simulator in it; simulator init makes one")
    try:
        cas = _read(folder / _AUTHORITY)
        simulator = Simulator(
            authority=Authority(**{name: _load_issued(cas[name]) for name in _CAS}),
            platform=_load_platform(_read(_numbered(folder, "machine")[-1])),
            guest=_load_guest(_read(folder / _GUEST)),
        )
        for path in _numbered(folder, "recovery"):
            recovery = _read(path)
            simulator = simulator.tcb_recovery(
                now=int(recovery["published_at"]),
                effective_at=int(recovery["effective_at"]),
                advisories=tuple(recovery["advisories"]),
            )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"folder {folder}: not a simulator's: {error!r}") from error
    return simulator


def store_recovery(
    folder: Path, *, now: int, effective_at: int, advisories: tuple[str, ...]
) -> Simulator:
    """
    Inject a TCB recovery into the simulator of *folder*: known from *now*, in effect later (ms).

    Raises:
        InputError: As `load_simulator`; or another process injected one at the same time.
    """
    before = load_simulator(folder)
    after = before.tcb_recovery(now=now, effective_at=effective_at, advisories=advisories)
    document = {
        "published_at": now,
        "effective_at": effective_at,
        "advisories": list(advisories),
    }
    _write(folder, f"recovery-{len(before.releases):04}.json", document)
    return after


def store_update(folder: Path) -> Simulator:
    """
    Bring the machine of *folder* up to the newest TCB; its quotes are of new keys from now on.

    Raises:
        InputError: As `load_simulator`; or another process updated it at the same time.
    """
    after = load_simulator(folder).updated()
    number = len(_numbered(folder, "machine")) + 1
    _write(folder, f"machine-{number:04}.json", _dump_platform(after.platform))
    return after


def _numbered(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-[0-9][0-9][0-9][0-9].json"))


def _write(folder: Path, name: str, document: Mapping[str, object]) -> None:
    write_new_file(folder / name, json.dumps(document, indent=1).encode() + b"\n")


def _read(path: Path) -> dict[str, Any]:
    document = json.loads(read_private_file(path, max_bytes=_MAX_BYTES))
    if not isinstance(document, dict):
        raise TypeError(f"{path.name} is no object")
    return document


def _dump_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode("ascii"), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a key is not of an elliptic curve")
    return key


def _dump_issued(issued: Issued) -> dict[str, str]:
    return {"certificate": issued.pem, "key": _dump_key(issued.key)}


def _load_issued(document: Mapping[str, str]) -> Issued:
    return Issued(
        certificate=x509.load_pem_x509_certificate(document["certificate"].encode("ascii")),
        key=_load_key(document["key"]),
    )


def _dump_platform(platform: Platform) -> dict[str, object]:
    return {
        "ppid": platform.ppid.hex(),
        "piid": platform.piid.hex(),
        "fmspc": platform.fmspc.hex(),
        "sgx_svns": list(platform.svns.sgx),
        "tdx_svns": list(platform.svns.tdx),
        "pce_svn": platform.svns.pce_svn,
        "pck": _dump_issued(platform.pck),
        "attestation_key": _dump_key(platform.attestation_key),
    }


def _load_platform(document: Mapping[str, Any]) -> Platform:
    return Platform(
        ppid=bytes.fromhex(document["ppid"]),
        piid=bytes.fromhex(document["piid"]),
        fmspc=bytes.fromhex(document["fmspc"]),
        svns=Svns(
            sgx=tuple(document["sgx_svns"]),
            tdx=tuple(document["tdx_svns"]),
            pce_svn=document["pce_svn"],
        ),
        pck=_load_issued(document["pck"]),
        attestation_key=_load_key(document["attestation_key"]),
    )


def _dump_guest(guest: Guest) -> dict[str, object]:
    return {
        **{name: getattr(guest, name).hex() for name in _REGISTERS},
        "compose": guest.compose.hex(),
        "events": [{"name": event.name, "payload": event.payload.hex()} for event in guest.events],
    }


def _load_guest(document: Mapping[str, Any]) -> Guest:
    fields: dict[str, Any] = {
        name: bytes.fromhex(document[name]) for name in (*_REGISTERS, "compose")
    }
    return Guest(
        **fields,
        events=tuple(
            RuntimeEvent(name=event["name"], payload=bytes.fromhex(event["payload"]))
            for event in document["events"]
        ),
    )
