"""The promises of the `CollateralSource` port, on every adapter; and what each has of its own."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dcap_qvl
import httpx
import pytest
import stamina
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from orchestrator.collateral import CollateralSource, files
from orchestrator.collateral.facts import is_signed, platform_of, read_facts
from orchestrator.collateral.files import FileCollateral, FolderCollateral
from orchestrator.collateral.opening import open_collateral, open_early_collateral
from orchestrator.collateral.pccs import PccsCollateral
from orchestrator.errors import CollateralUnavailableError, ConfigError, EncodingError
from orchestrator.evidence import Collateral, dump_collateral_json, load_collateral_json
from orchestrator.evidence.instants import parse_utc
from orchestrator.evidence.intel_root import INTEL_ROOT
from orchestrator.simulator import Simulator, create_simulator, load_simulator, store_recovery
from orchestrator.testing.pccs import StandInPccs
from tests.unit.evidence.real import fixtures_folder

NOW = 1_800_000_000_000
DAY = 86_400_000
ADAPTERS = ("file", "folder", "pccs", "cached pccs", "simulated")


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Retries come at once, as many as in earnest."""
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


@pytest.fixture(scope="module")
def simulator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulators") / "one"
    create_simulator(folder)
    return folder


@pytest.fixture(scope="module")
def simulator(simulator_folder: Path) -> Simulator:
    return load_simulator(simulator_folder)


@pytest.fixture
def served(simulator: Simulator) -> Collateral:
    return simulator.collateral(now=NOW - DAY)


@pytest.fixture
def quote(simulator: Simulator) -> bytes:
    return simulator.quote(bytes(64))


@pytest.fixture
def pccs(served: Collateral) -> Iterator[StandInPccs]:
    with StandInPccs(lambda _: served) as running:
        yield running


@pytest.fixture
def text_of(
    tmp_path: Path, served: Collateral, pccs: StandInPccs, simulator_folder: Path
) -> Callable[[str], str]:
    """The setting that names each adapter."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "one.json").write_text(dump_collateral_json(served))

    def text(name: str) -> str:
        return {
            "file": f"file:{folder / 'one.json'}",
            "folder": f"folder:{folder}",
            "pccs": pccs.url,
            "cached pccs": pccs.url,
            "simulated": f"simulated:{simulator_folder}",
        }[name]

    return text


@pytest.fixture
def source(
    request: pytest.FixtureRequest,
    text_of: Callable[[str], str],
    tmp_path: Path,
    simulator: Simulator,
) -> Iterator[CollateralSource]:
    cache = tmp_path / "cache" if request.param == "cached pccs" else None
    opened = open_collateral(
        text_of(request.param), cache_folder=cache, roots=[simulator.root_certificate]
    )
    yield opened
    opened.close()


on_all = pytest.mark.parametrize("source", ADAPTERS, indirect=True)
on_stored = pytest.mark.parametrize("source", ADAPTERS[:4], indirect=True)


@on_all
def test_what_is_served_verifies_the_quote(
    source: CollateralSource, quote: bytes, simulator: Simulator
) -> None:
    found = source.collateral(quote, now=NOW)

    report = dcap_qvl.verify_with_root_ca(
        quote,
        dcap_qvl.QuoteCollateralV3.from_json(dump_collateral_json(found)),
        simulator.root_certificate,
        NOW // 1_000,
    )
    assert report.status == "UpToDate"


@on_stored
def test_it_is_served_unchanged(source: CollateralSource, quote: bytes, served: Collateral) -> None:
    assert source.collateral(quote, now=NOW) == served


@on_all
def test_another_kind_of_platform_gets_none(source: CollateralSource, simulator: Simulator) -> None:
    other = replace(
        simulator, platform=type(simulator.platform).create(simulator.authority, fmspc=b"OTHER!")
    )

    with pytest.raises(CollateralUnavailableError):
        source.collateral(other.quote(bytes(64)), now=NOW)


@on_all
@pytest.mark.parametrize("quote", [b"", b"no quote", bytes(700), bytes(16_385)])
def test_what_is_no_quote_is_bad_input(source: CollateralSource, quote: bytes) -> None:
    with pytest.raises(EncodingError, match="quote"):
        source.collateral(quote, now=NOW)


@on_stored
def test_it_is_served_from_its_first_to_its_last_millisecond(
    source: CollateralSource, quote: bytes, served: Collateral
) -> None:
    facts = read_facts(served)
    assert facts.expires_at == NOW + 29 * DAY

    assert source.collateral(quote, now=facts.expires_at) == served
    with pytest.raises(CollateralUnavailableError, match="has ended"):
        source.collateral(quote, now=facts.expires_at + 1)

    assert source.collateral(quote, now=facts.issued_at) == served
    with pytest.raises(CollateralUnavailableError):
        source.collateral(quote, now=facts.issued_at - 1)


def test_the_facts_are_those_of_what_ends_first(simulator: Simulator) -> None:
    facts = read_facts(simulator.collateral(now=NOW, crls_valid_for=3 * DAY))

    assert facts.kind == platform_of(simulator.quote(bytes(64)))
    assert (facts.issued_at, facts.expires_at) == (NOW, NOW + 3 * DAY)
    assert facts.evaluation_number == 20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tcb_info", "{}"),
        ("tcb_info", "[1]"),
        ("tcb_info", "not JSON"),
        ("tcb_info", "[" * 100_000),
        ("qe_identity", '{"issueDate":"2026-01-01"}'),
        ("root_ca_crl", b"\x30\x00"),
        ("pck_crl", b""),
        ("tcb_info_issuer_chain", "no certificate"),
        ("qe_identity_issuer_chain", "\N{SNOWMAN}"),
        ("pck_crl_issuer_chain", ""),
    ],
)
def test_collateral_that_is_none_is_bad_input(
    served: Collateral, field: str, value: str | bytes
) -> None:
    changes: dict[str, Any] = {field: value}
    changed = replace(served, **changes)

    with pytest.raises(EncodingError, match="collateral"):
        read_facts(changed)
    assert not is_signed(changed, [b"any"])


# Who signed it.


def test_what_an_allowed_root_signed_is_signed(served: Collateral, simulator: Simulator) -> None:
    assert is_signed(served, [b"another", simulator.root_certificate])


def test_what_another_root_signed_is_not(served: Collateral) -> None:
    assert not is_signed(served, [Simulator.create().root_certificate])
    assert not is_signed(served, [])


@pytest.mark.parametrize(
    "field", ["tcb_info", "qe_identity", "tcb_info_signature", "qe_identity_signature"]
)
def test_a_changed_document_is_not_signed(
    served: Collateral, simulator: Simulator, field: str
) -> None:
    value = getattr(served, field)
    changed = value.replace("20", "21", 1) if isinstance(value, str) else bytes(64)
    changes: dict[str, Any] = {field: changed}

    assert not is_signed(replace(served, **changes), [simulator.root_certificate])


@pytest.mark.parametrize("field", ["root_ca_crl", "pck_crl", "pck_crl_issuer_chain"])
def test_lists_of_another_authority_are_not_signed(
    served: Collateral, simulator: Simulator, field: str
) -> None:
    other = Simulator.create().collateral(now=NOW - DAY)

    changed = replace(served, **{field: getattr(other, field)})

    assert not is_signed(changed, [simulator.root_certificate])


def test_a_signer_that_the_root_did_not_issue_is_not_believed(
    served: Collateral, simulator: Simulator
) -> None:
    """Anybody can put the root's certificate behind a signer of their own."""
    stranger = Simulator.create()
    theirs = stranger.tcb_recovery(now=0).collateral(now=NOW - DAY)
    chain = stranger.authority.tcb_signer.pem + simulator.root_pem

    for changed in (
        replace(
            served,
            tcb_info=theirs.tcb_info,
            tcb_info_signature=theirs.tcb_info_signature,
            tcb_info_issuer_chain=chain,
        ),
        replace(
            served,
            qe_identity=theirs.qe_identity,
            qe_identity_signature=theirs.qe_identity_signature,
            qe_identity_issuer_chain=chain,
        ),
        replace(
            served,
            pck_crl=theirs.pck_crl,
            pck_crl_issuer_chain=stranger.authority.platform_ca.pem + simulator.root_pem,
        ),
    ):
        assert not is_signed(changed, [simulator.root_certificate])


def test_collateral_ends_with_its_certificates_at_the_latest(simulator: Simulator) -> None:
    facts = read_facts(simulator.collateral(now=NOW, valid_for=20_000 * DAY))

    assert facts.expires_at == parse_utc("2049-12-31T00:00:00Z") * 1_000


# Files.


def test_of_a_folder_the_newest_valid_one_is_served(
    tmp_path: Path, simulator: Simulator, quote: bytes
) -> None:
    old, new, coming = (
        simulator.collateral(now=NOW - 3 * DAY),
        simulator.collateral(now=NOW - DAY),
        simulator.collateral(now=NOW + DAY),
    )
    ended = simulator.collateral(now=NOW - DAY // 2, valid_for=DAY // 4)
    for name, one in (("d", old), ("c", new), ("b", coming), ("a", ended)):
        (tmp_path / f"{name}.json").write_text(dump_collateral_json(one))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "read.me").write_text("not looked at")

    assert FolderCollateral(tmp_path).collateral(quote, now=NOW) == new


def test_a_folder_without_any_says_why(tmp_path: Path, quote: bytes) -> None:
    with pytest.raises(CollateralUnavailableError, match=r"no \.json file"):
        FolderCollateral(tmp_path).collateral(quote, now=NOW)

    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(CollateralUnavailableError, match=r"broken\.json: collateral: not JSON"):
        FolderCollateral(tmp_path).collateral(quote, now=NOW)

    with pytest.raises(CollateralUnavailableError, match="No such file"):
        FolderCollateral(tmp_path / "absent").collateral(quote, now=NOW)


def test_a_file_is_not_read_beyond_what_collateral_can_be(tmp_path: Path, quote: bytes) -> None:
    path = tmp_path / "bomb.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)

    with pytest.raises(CollateralUnavailableError, match="at most"):
        FileCollateral(path).collateral(quote, now=NOW)
    with pytest.raises(CollateralUnavailableError, match="No such file"):
        FileCollateral(tmp_path / "absent").collateral(quote, now=NOW)


def test_a_folder_of_too_many_files_is_not_read(
    tmp_path: Path, quote: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 1)
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text("{")

    with pytest.raises(CollateralUnavailableError, match="2 files, at most 1"):
        FolderCollateral(tmp_path).collateral(quote, now=NOW)


def test_without_its_simulator_a_simulated_source_has_nothing(tmp_path: Path, quote: bytes) -> None:
    with pytest.raises(CollateralUnavailableError, match="no simulator"):
        open_collateral(f"simulated:{tmp_path}").collateral(quote, now=NOW)


def test_a_signature_by_a_key_of_another_kind_is_none(
    served: Collateral, simulator: Simulator
) -> None:
    """Nothing that a stranger sends raises anything but what is announced."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another kind")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2049, 1, 1, tzinfo=UTC))
        .sign(key, None)
    )
    chain = certificate.public_bytes(Encoding.PEM).decode()
    changed = replace(served, tcb_info_issuer_chain=chain)

    assert not is_signed(changed, [certificate.public_bytes(Encoding.DER)])


# A PCCS.


def test_a_pccs_is_asked_what_intels_own_client_asks(pccs: StandInPccs, quote: bytes) -> None:
    """The library's client is the oracle: the same questions, the same answers."""
    found = PccsCollateral(pccs.url).collateral(quote, now=NOW)
    asked = list(pccs.asked)
    pccs.asked.clear()

    async def ask() -> str:
        return str((await dcap_qvl.get_collateral(pccs.url, quote)).to_json())

    expected = json.loads(asyncio.run(ask()))
    expected.pop("pck_certificate_chain")  # the quote's own, which the library copies
    assert json.loads(dump_collateral_json(found)) == expected
    assert asked == pccs.asked


def test_a_call_may_come_from_a_coroutine(
    pccs: StandInPccs, quote: bytes, served: Collateral
) -> None:
    async def call() -> Collateral:
        return PccsCollateral(pccs.url).collateral(quote, now=NOW)

    assert asyncio.run(call()) == served


def test_the_interfaces_own_path_may_stand_in_the_url(
    pccs: StandInPccs, quote: bytes, served: Collateral
) -> None:
    for path in ("/", "/sgx/certification/v4", "/tdx/certification/v4/"):
        assert PccsCollateral(pccs.url + path).collateral(quote, now=NOW) == served


def test_documents_are_taken_exactly_as_they_were_signed(
    pccs: StandInPccs, quote: bytes, served: Collateral
) -> None:
    """Spaces and the order of keys are signed, so nothing may be written anew."""
    spaced = served.tcb_info.replace(",", " ,\n ").replace(":[", ": [")
    _, headers, _ = pccs.answer("/tdx/certification/v4/tcb?fmspc=53494D000000")
    body = f'{{ "signature":"{"00" * 64}" , "tcbInfo" : {spaced} }}'.encode()
    pccs.answers["tcb"] = (200, headers, body)

    assert PccsCollateral(pccs.url).collateral(quote, now=NOW).tcb_info == spaced


def test_revocation_lists_come_as_der_or_as_hex(
    pccs: StandInPccs, quote: bytes, served: Collateral
) -> None:
    _, headers, body = pccs.answer("/sgx/certification/v4/pckcrl?ca=platform&encoding=der")
    pccs.answers["pckcrl"] = (200, headers, body.hex().encode())
    pccs.answers["rootcacrl"] = (200, {}, served.root_ca_crl)

    assert PccsCollateral(pccs.url).collateral(quote, now=NOW) == served


def test_intels_own_service_names_its_root_list_elsewhere(
    pccs: StandInPccs, quote: bytes, served: Collateral
) -> None:
    asked: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.host == "certificates.trustedservices.intel.com":
            return httpx.Response(200, stream=httpx.ByteStream(served.root_ca_crl))
        status, headers, body = pccs.answer(request.url.raw_path.decode())
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    source = PccsCollateral(
        "https://api.trustedservices.intel.com", transport=httpx.MockTransport(answer)
    )

    assert source.collateral(quote, now=NOW) == served
    assert asked[-1] == "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"


@pytest.mark.parametrize("name", ["pckcrl", "tcb", "identity", "rootcacrl"])
@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"", "answered 404 to"),
        (302, b"", "answered 302 to"),
        (200, b"", "127"),
        (200, b"{}", "127"),
        (200, b"\xff\xfe", "127"),
        (200, b"[" * 100_000, "127"),
        (200, b" " * 262_145, "more than 262144 bytes"),
    ],
)
def test_an_answer_that_is_none_is_no_collateral(
    pccs: StandInPccs, quote: bytes, name: str, status: int, body: bytes, words: str
) -> None:
    headers = {"location": pccs.url + "/elsewhere"} if status == 302 else {}
    pccs.answers[name] = (status, headers, body)

    with pytest.raises(CollateralUnavailableError, match=words):
        PccsCollateral(pccs.url).collateral(quote, now=NOW)
    assert not [path for path in pccs.asked if "elsewhere" in path]
    assert len(pccs.asked) <= 4  # an answer is an answer: it is not asked for again


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("pckcrl", "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"),
        ("tcb", "/tdx/certification/v4/tcb?fmspc=53494D000000"),
        ("identity", "/tdx/certification/v4/qe/identity"),
    ],
)
def test_an_answer_without_its_chain_is_no_collateral(
    pccs: StandInPccs, quote: bytes, name: str, path: str
) -> None:
    pccs.answers[name] = (200, {}, pccs.answer(path)[2])

    with pytest.raises(CollateralUnavailableError, match="no header"):
        PccsCollateral(pccs.url).collateral(quote, now=NOW)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_service_in_trouble_is_asked_again(
    pccs: StandInPccs, quote: bytes, served: Collateral, status: int
) -> None:
    troubles = [status, status]
    original = pccs.answer

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        return (troubles.pop(), {}, b"later") if "/tcb" in path and troubles else original(path)

    pccs.answer = answer  # type: ignore[method-assign]  # two troubles first

    assert PccsCollateral(pccs.url).collateral(quote, now=NOW) == served
    assert sum("/tcb" in path for path in pccs.asked) == 3


def test_a_service_that_stays_in_trouble_is_asked_three_times(
    pccs: StandInPccs, quote: bytes
) -> None:
    pccs.answers["tcb"] = (503, {}, b"later")

    with pytest.raises(CollateralUnavailableError, match="answered 503 to tcb"):
        PccsCollateral(pccs.url).collateral(quote, now=NOW)
    assert sum("/tcb" in path for path in pccs.asked) == 3


def test_nobody_there_is_told_without_an_error_of_the_library(quote: bytes) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    with pytest.raises(CollateralUnavailableError, match="no answer to pckcrl"):
        PccsCollateral(f"http://127.0.0.1:{port}").collateral(quote, now=NOW)


def test_a_service_that_says_nothing_holds_nobody_up(quote: bytes) -> None:
    with _silent_server() as url, pytest.raises(CollateralUnavailableError, match=r"0\.2 s"):
        PccsCollateral(url, timeout_seconds=0.2).collateral(quote, now=NOW)


@contextmanager
def _silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in accepted:
                one.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://user:secret@pccs.example.org",
        "https://pccs.example.org/?key=secret",
        "https://pccs.example.org/#secret",
        "http://a..b",
    ],
)
def test_a_url_that_can_not_be_a_services_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="collateral: ") as refusal:
        open_collateral(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "folder:", "file", "ftp://x", "somewhere"])
def test_a_setting_that_names_no_source_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="folder:PATH"):
        open_collateral(text)


# What will be in effect.


def test_what_is_published_and_not_yet_in_effect_is_to_be_had_early(
    tmp_path: Path, quote: bytes
) -> None:
    folder = tmp_path / "simulator"
    create_simulator(folder)
    after = store_recovery(folder, now=NOW - DAY, effective_at=NOW + DAY, advisories=("SA",))
    quote = after.quote(bytes(64))
    with StandInPccs(lambda update: after.collateral(now=NOW, early=update == "early")) as pccs:
        for text in (pccs.url, f"simulated:{folder}"):
            early = open_early_collateral(text)
            assert early is not None
            standard = open_collateral(text)

            numbers = [
                read_facts(source.collateral(quote, now=NOW)).evaluation_number
                for source in (standard, early)
            ]

            assert numbers == [20, 21]


def test_files_have_nothing_early() -> None:
    assert open_early_collateral("folder:/somewhere") is None
    assert open_early_collateral("file:/somewhere") is None
    with pytest.raises(ConfigError):
        open_early_collateral("nowhere")


# Real collateral.

REAL = {
    "near-mpc": ("2026-08-13T10:45:38Z", "2026-09-11T23:57:11Z", 19),
    "tdx_quote": ("2025-06-19T10:32:27Z", "2025-07-19T10:00:35Z", 17),
    "sgx_quote": ("2025-06-19T10:56:11Z", "2025-07-19T10:01:18Z", 17),
}


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest) -> tuple[str, bytes, Collateral]:
    """A real quote and its collateral, which ended long ago."""
    folder = fixtures_folder()
    name = str(request.param)
    if name == "near-mpc":
        quote = bytes(json.loads((folder / name / "quote.json").read_text()))
        path = folder / name / "collateral.json"
    else:
        quote = (folder / "dcap-qvl" / name).read_bytes()
        path = folder / "dcap-qvl" / f"{name}_collateral.json"
    return name, quote, load_collateral_json(path.read_bytes())


def test_of_real_collateral_the_facts_are_known_and_intels_root_signed_it(
    real: tuple[str, bytes, Collateral],
) -> None:
    name, quote, collateral = real
    begin, end, number = REAL[name]

    facts = read_facts(collateral)

    assert facts.kind == platform_of(quote)
    assert facts.issued_at == parse_utc(begin) * 1_000
    assert facts.expires_at == parse_utc(end) * 1_000
    assert facts.evaluation_number == number
    assert is_signed(collateral, [INTEL_ROOT])
    assert not is_signed(collateral, [Simulator.create().root_certificate])


def test_real_collateral_comes_through_a_pccs_as_it_was(
    real: tuple[str, bytes, Collateral],
) -> None:
    _, quote, collateral = real
    with StandInPccs(lambda _: collateral) as pccs:

        async def ask() -> str:
            return str((await dcap_qvl.get_collateral(pccs.url, quote)).to_json())

        expected = load_collateral_json(asyncio.run(ask()))
        found = PccsCollateral(pccs.url).collateral(quote, now=read_facts(collateral).expires_at)

    assert found == replace(expected, pck_certificate_chain=None)
    assert found == replace(collateral, pck_certificate_chain=None)
