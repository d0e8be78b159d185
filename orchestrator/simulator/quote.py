"""The bytes of a TDX quote, field by field, as Intel's quoting library lays them out."""

import struct
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orchestrator.simulator.authority import sign
from orchestrator.simulator.guest import Guest
from orchestrator.simulator.tcb import QE_ATTRIBUTES, QE_MRSIGNER, QE_PRODUCT, Svns

__all__ = ["encode_quote"]

# The one quoting enclave that the format knows how to name; the certificates say who signs.
_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_USER_DATA: Final = b"simulated, no TEE"
_TEE_TDX: Final = 0x81
_ECDSA_P256: Final = 2
_TD_15: Final = 3
_PCK_CHAIN: Final = 5
_QE_REPORT: Final = 6


def encode_quote(
    guest: Guest,
    *,
    svns: Svns,
    qe_svn: int,
    report_data: bytes,
    attestation_key: ec.EllipticCurvePrivateKey,
    pck_key: ec.EllipticCurvePrivateKey,
    pck_chain: str,
    version: int = 4,
) -> bytes:
    """
    Return a quote over these 64 bytes: version 4 of TDX 1.0, or version 5 of TDX 1.5.

    Raises:
        ValueError: A field has not its length.
    """
    signed = _header(version) + _body(guest, svns, report_data, version)
    public = attestation_key.public_key().public_bytes(
        Encoding.X962, PublicFormat.UncompressedPoint
    )[1:]
    qe_auth = bytes(range(32))
    qe_report = _qe_report(svns, qe_svn, sha256(public + qe_auth).digest())
    chain = pck_chain.encode("ascii")
    certification = b"".join(
        (
            qe_report,
            sign(pck_key, qe_report),
            struct.pack("<H", len(qe_auth)),
            qe_auth,
            struct.pack("<HI", _PCK_CHAIN, len(chain)),
            chain,
        )
    )
    signature = b"".join(
        (
            sign(attestation_key, signed),
            public,
            struct.pack("<HI", _QE_REPORT, len(certification)),
            certification,
        )
    )
    return signed + struct.pack("<I", len(signature)) + signature


def _header(version: int) -> bytes:
    if version not in (4, 5):
        raise ValueError(f"version {version}: this makes quotes of version 4 and 5")
    return struct.pack("<HHIHH16s20s", version, _ECDSA_P256, _TEE_TDX, 0, 0, _VENDOR, _USER_DATA)


def _body(guest: Guest, svns: Svns, report_data: bytes, version: int) -> bytes:
    tee_tcb_svn = bytes(svns.tdx)
    td10 = b"".join(
        (
            _exactly(16, tee_tcb_svn),
            bytes(48),  # MRSEAM: not judged by anybody but Intel's module identity
            bytes(48),  # MRSIGNERSEAM: zeros are Intel's
            bytes(8),
            _exactly(8, guest.td_attributes),
            _exactly(8, guest.xfam),
            _exactly(48, guest.mrtd),
            (b"\x01" + guest.compose_hash).ljust(48, b"\0"),  # MRCONFIGID, as dstack sets it
            bytes(48),
            bytes(48),
            _exactly(48, guest.rtmr0),
            _exactly(48, guest.rtmr1),
            _exactly(48, guest.rtmr2),
            guest.rtmr3,
            _exactly(64, report_data),
        )
    )
    if version == 4:
        return td10
    td15 = td10 + tee_tcb_svn + bytes(48)
    return struct.pack("<HI", _TD_15, len(td15)) + td15


def _qe_report(svns: Svns, qe_svn: int, report_data: bytes) -> bytes:
    return struct.pack(
        "<16s4x28x16s32s32x32s96xHH60x64s",
        bytes(svns.sgx),
        QE_ATTRIBUTES,
        sha256(QE_MRSIGNER).digest(),
        QE_MRSIGNER,
        QE_PRODUCT,
        qe_svn,
        report_data,
    )


def _exactly(length: int, value: bytes) -> bytes:
    if len(value) != length:
        raise ValueError(f"{len(value)} bytes where the quote has {length}")
    return value
