"""Intel's extension of a PCK certificate: which machine a key belongs to, and its TCB."""

from collections.abc import Iterable
from typing import Final

from orchestrator.simulator.tcb import Svns

__all__ = ["SGX_EXTENSION", "encode_sgx_extension"]

SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
_BOOLEAN, _INTEGER, _OCTETS, _OID, _ENUMERATED, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x30
_SGX_TYPE_SCALABLE = 1


def encode_sgx_extension(
    *,
    ppid: bytes,
    piid: bytes,
    fmspc: bytes,
    svns: Svns,
    dynamic_platform: bool,
    cached_keys: bool,
    smt: bool,
) -> bytes:
    """Return the extension's DER, of a platform (not a processor) with PCE 0."""
    components = [
        _entry(f"2.{number}", _integer(svn)) for number, svn in enumerate(svns.sgx, start=1)
    ]
    tcb = [
        *components,
        _entry("2.17", _integer(svns.pce_svn)),
        _entry("2.18", _tlv(_OCTETS, bytes(svns.sgx))),
    ]
    flags = [
        _entry(f"7.{number}", _tlv(_BOOLEAN, b"\xff" if flag else b"\0"))
        for number, flag in enumerate((dynamic_platform, cached_keys, smt), start=1)
    ]
    return _sequence(
        [
            _entry("1", _tlv(_OCTETS, ppid)),
            _entry("2", _sequence(tcb)),
            _entry("3", _tlv(_OCTETS, b"\0\0")),
            _entry("4", _tlv(_OCTETS, fmspc)),
            _entry("5", _tlv(_ENUMERATED, bytes([_SGX_TYPE_SCALABLE]))),
            _entry("6", _tlv(_OCTETS, piid)),
            _entry("7", _sequence(flags)),
        ]
    )


def _entry(suffix: str, value: bytes) -> bytes:
    return _sequence([_oid(f"{SGX_EXTENSION}.{suffix}"), value])


def _sequence(parts: Iterable[bytes]) -> bytes:
    return _tlv(_SEQUENCE, b"".join(parts))


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def _integer(value: int) -> bytes:
    # One bit more than the value has: DER's integers are signed.
    return _tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    return _tlv(_OID, b"".join(map(_base128, [first * 40 + second, *rest])))


def _base128(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))
