"""The structure of quotes: every byte has one place and one form."""

import struct

import pytest

from orchestrator.errors import EncodingError
from orchestrator.evidence import SgxReport, TdxReport, parse_quote
from orchestrator.evidence.bundle import MAX_QUOTE_BYTES
from orchestrator.simulator import Simulator
from tests.unit.evidence import real

SIMULATOR = Simulator.create()
REPORT_DATA = bytes(range(64))
QUOTE = SIMULATOR.quote(REPORT_DATA)
# Of a quote of version 4: where its signature data, its certification and its chain begin.
SIGNATURE_LENGTH = 48 + 584
OUTER = SIGNATURE_LENGTH + 4 + 128
INNER = OUTER + 6 + 448
CHAIN = INNER + 2 + 32


def put(offset: int, form: str, value: int) -> bytes:
    changed = bytearray(QUOTE)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


def chain_text() -> bytes:
    return QUOTE[CHAIN + 6 :]


def with_chain(text: bytes) -> bytes:
    """Return the quote with another text in its place, all lengths right."""
    inner = QUOTE[OUTER + 6 : CHAIN] + struct.pack("<HI", 5, len(text)) + text
    outer = QUOTE[SIGNATURE_LENGTH + 4 : OUTER] + struct.pack("<HI", 6, len(inner)) + inner
    return QUOTE[:SIGNATURE_LENGTH] + struct.pack("<I", len(outer)) + outer


@pytest.mark.parametrize("version", [4, 5])
def test_a_td_quote_is_taken_apart(version: int) -> None:
    data = SIMULATOR.quote(REPORT_DATA, version=version)

    quote = parse_quote(data + bytes(70))

    guest = SIMULATOR.guest
    assert isinstance(quote.report, TdxReport)
    assert (quote.version, quote.tee, quote.length) == (version, "tdx", len(data))
    assert quote.report.report_data == REPORT_DATA
    assert quote.report.attributes == guest.td_attributes
    for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"):
        assert getattr(quote.report, name) == getattr(guest, name)
    assert quote.report.tee_tcb_svn == bytes(SIMULATOR.platform.svns.tdx)
    assert quote.report.mr_service_td == (bytes(48) if version == 5 else None)
    assert quote.qe_isv_svn == 6
    assert quote.certificates[2] == SIMULATOR.root_certificate


def test_a_real_sgx_quote_is_taken_apart() -> None:
    quote = parse_quote(real.real_quote("sgx_quote"))

    assert isinstance(quote.report, SgxReport)
    assert (quote.version, quote.tee, quote.length) == (3, "sgx", 4_600)
    assert quote.report.report_data.rstrip(b"\0") == b"Hello, world!"
    assert quote.report.mrenclave.hex().startswith("33d8736db756ed49")
    assert quote.report.mrsigner.hex().startswith("815f42f11cf64430")
    assert (quote.report.isv_prod_id, quote.report.isv_svn) == (0, 0)
    assert quote.qe_isv_svn == 10


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(MAX_QUOTE_BYTES + 1), "16385 bytes, at most 16384"),
        (QUOTE + b"\0\1", "what follows must be zeros"),
        (put(0, "<H", 3), "version 3 of TEE type 0x81"),
        (put(4, "<I", 0), "version 4 of TEE type 0x0"),
        (put(2, "<H", 3), "attestation key type 3"),
        (put(SIGNATURE_LENGTH, "<I", len(QUOTE)), "are left"),
        (
            QUOTE[:SIGNATURE_LENGTH] + b"\4" + bytes(7),
            "signature and attestation key needs 128 bytes",
        ),
        (put(OUTER, "<H", 5), "certification data of type 5, must be 6"),
        (put(CHAIN, "<H", 3), "certification data of type 3, must be 5"),
        (put(INNER, "<H", 33), "certification data of type"),
        (with_chain(chain_text().removesuffix(b"\0") + b"\0\0"), "not PEM"),
        (with_chain(chain_text().replace(b"\n", b"\r\n")), "a chain of 0 certificates"),
        (with_chain(chain_text().replace(b"\nMII", b"\n\nMII", 1)), "as it is written"),
        (with_chain(chain_text() + chain_text()), "a chain of 6 certificates"),
        (with_chain(b"x" + chain_text()), "as it is written"),
        (with_chain(b""), "a chain of 0 certificates"),
    ],
)
def test_what_does_not_fit_together_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        parse_quote(data)


def test_the_lengths_of_the_parts_have_to_fill_their_whole() -> None:
    inner_longer = bytearray(with_chain(chain_text()) + b"\0")
    (length,) = struct.unpack_from("<I", inner_longer, SIGNATURE_LENGTH)
    struct.pack_into("<I", inner_longer, SIGNATURE_LENGTH, length + 1)

    with pytest.raises(EncodingError, match="signature: 1 bytes too many"):
        parse_quote(bytes(inner_longer))

    struct.pack_into("<I", inner_longer, OUTER + 2, length - 128 - 6 + 1)
    with pytest.raises(EncodingError, match="certification data: 1 bytes too many"):
        parse_quote(bytes(inner_longer))


@pytest.mark.parametrize(("body", "size"), [(1, 384), (2, 648), (3, 584), (4, 648)])
def test_a_body_of_version_5_has_the_size_of_its_type(body: int, size: int) -> None:
    quote = bytearray(SIMULATOR.quote(REPORT_DATA, version=5))
    struct.pack_into("<HI", quote, 48, body, size)

    with pytest.raises(EncodingError, match=f"a body of type {body} and {size} bytes"):
        parse_quote(bytes(quote))


def test_base64_has_one_form() -> None:
    """The last character before padding has bits that decode to nothing: they must be zero."""
    chains = (chain_of(Simulator.create()) for _ in range(100))
    text = next(chain for chain in chains if b"=\n-----END" in chain)
    place = text.index(b"=\n-----END") - 1
    place -= text[place : place + 1] == b"="
    loose = text[:place] + bytes([text[place] + 1]) + text[place + 1 :]

    parse_quote(with_chain(text))
    with pytest.raises(EncodingError, match="as it is written"):
        parse_quote(with_chain(loose))


def chain_of(simulator: Simulator) -> bytes:
    return simulator.authority.pck_chain(simulator.platform.pck).encode()
