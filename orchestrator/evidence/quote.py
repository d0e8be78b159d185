"""
The structure of Intel's quotes: SGX version 3, TDX versions 4 and 5 (DCAP quote format).

Nothing is verified here. `dcap-qvl` does not mind lengths that do not fit each other, bytes after
the quote and loose PEM; here every byte has one place and one form, so that each is signed,
compared or zero, and two different byte strings are never the same quote.
"""

import binascii
import struct
from base64 import b64decode, b64encode
from dataclasses import dataclass

from orchestrator.errors import EncodingError
from orchestrator.evidence.bundle import MAX_QUOTE_BYTES

__all__ = ["Quote", "SgxReport", "TdxReport", "parse_quote"]

_SGX, _TDX = 0, 0x81
_ECDSA_P256 = 2
_HEADER = 48
_SGX_REPORT, _TD10_REPORT, _TD15_REPORT = 384, 584, 648
# Body types of version 5.
_TDX_BODIES = {2: _TD10_REPORT, 3: _TD15_REPORT}
# Certification data types: the PCK chain as PEM, and the quoting enclave's report around it.
_PCK_CHAIN, _QE_REPORT = 5, 6
_SIGNATURE_AND_KEY = 128
_ISV_SVN = slice(258, 260)
_QE_REPORT_AND_SIGNATURE = _SGX_REPORT + 64
_CHAIN_LENGTH = 3
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
_LINE = 64


@dataclass(frozen=True, kw_only=True)
class TdxReport:
    """A TD's report; registers are 48 bytes, `mr_service_td` is of version 5 only."""

    tee_tcb_svn: bytes
    attributes: bytes
    mrtd: bytes
    mr_config_id: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    mr_service_td: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class SgxReport:
    """An enclave's report; `attributes` are 16 bytes, flags first."""

    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes


@dataclass(frozen=True, kw_only=True)
class Quote:
    """
    A quote taken apart; `length` is without the zeros that platforms pad with.

    `certificates` are DER: the platform's (PCK), its CA's, and what calls itself the root;
    `qe_isv_svn` is the version of the quoting enclave.
    """

    version: int
    report: TdxReport | SgxReport
    certificates: tuple[bytes, bytes, bytes]
    qe_isv_svn: int
    length: int

    @property
    def tee(self) -> str:
        """`tdx` or `sgx`."""
        return "tdx" if isinstance(self.report, TdxReport) else "sgx"


class _Reader:
    """Takes fields off the front of some bytes."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self.offset = 0

    def take(self, length: int, field: str) -> bytes:
        end = self.offset + length
        if end > len(self._data):
            left = len(self._data) - self.offset
            raise EncodingError(f"{self._name}: {field} needs {length} bytes, {left} are left")
        value = self._data[self.offset : end]
        self.offset = end
        return value

    def number(self, length: int, field: str) -> int:
        return int.from_bytes(self.take(length, field), "little")

    def finish(self) -> None:
        if self.offset != len(self._data):
            left = len(self._data) - self.offset
            raise EncodingError(f"{self._name}: {left} bytes too many")


def parse_quote(data: bytes) -> Quote:
    """
    Return the quote that *data* is, with nothing but zeros after it.

    Does **not** verify anything.

    Raises:
        EncodingError: It is too long, cut off, of a version or type that is not known, its lengths
            do not fit each other, or something follows it.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise EncodingError(f"quote: {len(data)} bytes, at most {MAX_QUOTE_BYTES}")
    reader = _Reader(data, "quote")
    version, key_type, tee = struct.unpack_from("<HHI", reader.take(_HEADER, "its header"))
    if (version, tee) not in ((3, _SGX), (4, _TDX), (5, _TDX)):
        raise EncodingError(
            f"quote: version {version} of TEE type {tee:#x}; known are version 3 of SGX (0x0), "
            "4 and 5 of TDX (0x81)"
        )
    if key_type != _ECDSA_P256:
        raise EncodingError(f"quote: attestation key type {key_type}, must be {_ECDSA_P256}")
    report = _read_report(reader, version)
    signed = _Reader(reader.take(reader.number(4, "a length"), "its signature data"), "signature")
    length = reader.offset
    if data[length:].strip(b"\0"):
        raise EncodingError(f"quote: it ends at byte {length}, what follows must be zeros")
    qe_report, certificates = _read_certification(signed, version)
    return Quote(
        version=version,
        report=report,
        certificates=certificates,
        qe_isv_svn=int.from_bytes(qe_report[_ISV_SVN], "little"),
        length=length,
    )


def _read_report(reader: _Reader, version: int) -> TdxReport | SgxReport:
    if version == 3:
        return _sgx_report(reader.take(_SGX_REPORT, "the enclave's report"))
    size = _TD10_REPORT
    if version == 5:
        body, stated = reader.number(2, "the body's type"), reader.number(4, "the body's size")
        if _TDX_BODIES.get(body) != stated:
            raise EncodingError(f"quote: a body of type {body} and {stated} bytes is not known")
        size = stated
    return _tdx_report(reader.take(size, "the TD's report"))


def _tdx_report(body: bytes) -> TdxReport:
    # TDREPORT 1.0 is 584 bytes; 1.5 adds TEE_TCB_SVN_2 (16) and MRSERVICETD (48).
    return TdxReport(
        tee_tcb_svn=body[0:16],
        attributes=body[120:128],
        mrtd=body[136:184],
        mr_config_id=body[184:232],
        rtmr0=body[328:376],
        rtmr1=body[376:424],
        rtmr2=body[424:472],
        rtmr3=body[472:520],
        report_data=body[520:584],
        mr_service_td=body[600:648] if len(body) == _TD15_REPORT else None,
    )


def _sgx_report(body: bytes) -> SgxReport:
    return SgxReport(
        attributes=body[48:64],
        mrenclave=body[64:96],
        mrsigner=body[128:160],
        isv_prod_id=int.from_bytes(body[256:258], "little"),
        isv_svn=int.from_bytes(body[_ISV_SVN], "little"),
        report_data=body[320:384],
    )


def _read_certification(signed: _Reader, version: int) -> tuple[bytes, tuple[bytes, bytes, bytes]]:
    """Return the quoting enclave's report and the platform's certificates."""
    signed.take(_SIGNATURE_AND_KEY, "signature and attestation key")
    inner = signed
    if version > 3:
        inner = _Reader(_certification(signed, _QE_REPORT), "certification data")
        signed.finish()
    qe_report = inner.take(_QE_REPORT_AND_SIGNATURE, "the quoting enclave's report")
    inner.take(inner.number(2, "a length"), "the quoting enclave's data")
    chain = _certification(inner, _PCK_CHAIN)
    inner.finish()
    return qe_report, _certificates(chain)


def _certification(reader: _Reader, expected: int) -> bytes:
    kind = reader.number(2, "a certification type")
    if kind != expected:
        raise EncodingError(f"quote: certification data of type {kind}, must be {expected} here")
    return reader.take(reader.number(4, "a length"), "certification data")


def _certificates(pem: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the chain's three certificates; they must be exactly what a PEM writer writes."""
    # Intel's library ends the text with a zero byte.
    text = pem.removesuffix(b"\0")
    blocks = text.split(_BEGIN)
    if len(blocks) != _CHAIN_LENGTH + 1:
        raise EncodingError(f"quote: a chain of {len(blocks) - 1} certificates, must be 3")
    try:
        leaf, issuer, root = (
            b64decode(block.removesuffix(_END).replace(b"\n", b""), validate=True)
            for block in blocks[1:]
        )
    except (binascii.Error, ValueError) as error:
        raise EncodingError("quote: its certificates are not PEM") from error
    if b"".join(map(_pem, (leaf, issuer, root))) != text:
        raise EncodingError("quote: its certificates are not PEM as it is written (64 a line)")
    return leaf, issuer, root


def _pem(der: bytes) -> bytes:
    text = b64encode(der)
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return _BEGIN + b"\n".join(lines) + _END
