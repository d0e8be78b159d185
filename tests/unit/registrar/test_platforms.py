"""Whose machine evidence is from, where the library does not even refuse."""

from dataclasses import replace
from pathlib import Path

import dcap_qvl
import pytest

from orchestrator.crypto import EcdsaSigner
from orchestrator.errors import EncodingError
from orchestrator.evidence import EvidenceBundle, load_bundle
from orchestrator.evidence import qvl as library
from orchestrator.registrar.platforms import platform_ids, recorded_evidence
from orchestrator.simulator import Simulator
from orchestrator.testing.evidence import simulated_bundle


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.create()


@pytest.fixture(scope="module")
def bundle(simulator: Simulator) -> EvidenceBundle:
    return load_bundle(
        simulated_bundle(
            simulator,
            genesis_hash=bytes(32),
            contract=bytes(32),
            signing_key=EcdsaSigner.generate().public_key,
            encryption_key=bytes(32),
            collateral=None,
        )
    )


def test_the_machine_has_two_names(simulator: Simulator, bundle: EvidenceBundle) -> None:
    assert platform_ids(bundle) == {simulator.platform.ppid, simulator.platform.piid}


@pytest.mark.parametrize("quote", [b"", b"\x04" * 700])
def test_no_quote_is_bad_input(bundle: EvidenceBundle, quote: bytes) -> None:
    with pytest.raises(EncodingError, match="can't be read"):
        platform_ids(replace(bundle, quote=quote))


class Panic(BaseException):
    """What the library raises when it panics is no `Exception`."""


def test_a_panic_of_the_library_is_bad_input(
    bundle: EvidenceBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(_: bytes) -> object:
        raise Panic("index out of bounds")

    monkeypatch.setattr(dcap_qvl, "parse_quote", panic)

    with pytest.raises(EncodingError, match="index out of bounds"):
        platform_ids(bundle)


def test_a_certificate_that_names_no_machine_is_bad_input(
    bundle: EvidenceBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pck = library.read_pck(bundle.quote)
    assert isinstance(pck, library.Pck)
    nameless = replace(pck, ppid=b"", piid=None)
    monkeypatch.setattr("orchestrator.registrar.platforms.read_pck", lambda _: nameless)

    with pytest.raises(EncodingError, match="names no machine"):
        platform_ids(bundle)


def test_records_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    good = records / f"{'ab' * 32}.json"
    good.write_text('{"worker": 7}')
    for name, text in (
        ("short.json", '{"worker": 7}'),
        (f"{'cd' * 32}.json", '{"worker": true}'),
        (f"{'ce' * 32}.json", "{"),
        (f"{'cf' * 32}.json", "[]"),
    ):
        (records / name).write_text(text)

    assert recorded_evidence(tmp_path) == {7: {b"\xab" * 32}}
    assert recorded_evidence(tmp_path / "absent") == {}
