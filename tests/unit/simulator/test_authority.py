"""What the simulator issues, judged by the quoting verification library itself."""

import json
from dataclasses import replace
from hashlib import sha384
from typing import Any

import dcap_qvl
import pytest
from cryptography import x509

from orchestrator.evidence import dump_collateral_json
from orchestrator.simulator import Guest, Platform, RuntimeEvent, Simulator
from orchestrator.simulator.authority import DISCLAIMER
from orchestrator.simulator.tcb import DAY

NOW = 1_790_000_000_123
REPORT_DATA = bytes(range(64))


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.create()


def claims(
    simulator: Simulator,
    *,
    quote: bytes | None = None,
    at: int = NOW,
    under_intel: bool = False,
    early: bool = False,
) -> dict[str, Any]:
    found = dcap_qvl.QuoteVerifier(
        None if under_intel else simulator.root_certificate
    ).verify_with_policy(
        simulator.quote(REPORT_DATA) if quote is None else quote,
        dcap_qvl.QuoteCollateralV3.from_json(
            dump_collateral_json(simulator.collateral(now=NOW, early=early))
        ),
        at // 1000,
        dcap_qvl.QuotePolicy.claims_only(at // 1000),
    )
    document: dict[str, Any] = json.loads(found.to_json())
    return document


def test_a_quote_verifies_under_the_simulators_root(simulator: Simulator) -> None:
    found = claims(simulator)
    assert found["tcb"] == {"status": "UpToDate", "advisory_ids": [], "eval_data_number": 20}
    body = found["report"]["TD10"]
    guest = simulator.guest
    assert body["mr_td"] == guest.mrtd.hex()
    assert [body[f"rt_mr{n}"] for n in range(4)] == [
        register.hex() for register in (guest.rtmr0, guest.rtmr1, guest.rtmr2, guest.rtmr3)
    ]
    assert body["report_data"] == REPORT_DATA.hex()
    assert body["mr_config_id"] == (b"\x01" + guest.compose_hash).ljust(48, b"\0").hex()


def test_the_machine_is_named_in_its_certificate(simulator: Simulator) -> None:
    machine = Platform.create(
        simulator.authority,
        ppid=b"p" * 16,
        piid=b"i" * 16,
        fmspc=b"fmspc!",
        dynamic_platform=True,
        smt=True,
    )
    pck = claims(replace(simulator, platform=machine))["platform"]["pck"]
    assert bytes(pck["ppid"]) == b"p" * 16
    assert bytes(pck["platform_instance_id"]) == b"i" * 16
    assert bytes(pck["fmspc"]) == b"fmspc!"
    assert bytes(pck["cpu_svn"]) == bytes(machine.svns.sgx)
    assert pck["pce_svn"] == machine.svns.pce_svn
    flags = [pck[name] for name in ("dynamic_platform", "cached_keys", "smt_enabled")]
    assert flags == ["True", "False", "True"]


def test_version_5_verifies_too(simulator: Simulator) -> None:
    assert "TD15" in claims(simulator, quote=simulator.quote(REPORT_DATA, version=5))["report"]


@pytest.mark.parametrize("version", [4, 5])
def test_intels_root_refuses_it(simulator: Simulator, version: int) -> None:
    quote = simulator.quote(REPORT_DATA, version=version)
    with pytest.raises(ValueError, match="Verification failed"):
        claims(simulator, quote=quote, under_intel=True)


def test_another_simulators_root_refuses_it(simulator: Simulator) -> None:
    quote = simulator.quote(REPORT_DATA)
    with pytest.raises(ValueError, match="Verification failed"):
        claims(Simulator.create(), quote=quote)


def test_every_certificate_says_what_it_is(simulator: Simulator) -> None:
    collateral = simulator.collateral(now=NOW)
    chains = (
        simulator.authority.pck_chain(simulator.platform.pck),
        collateral.tcb_info_issuer_chain,
        collateral.qe_identity_issuer_chain,
        collateral.pck_crl_issuer_chain,
    )
    names = [
        certificate.subject.rfc4514_string()
        for chain in chains
        for certificate in x509.load_pem_x509_certificates(chain.encode())
    ]
    assert len(names) == 9
    assert all(DISCLAIMER.replace(",", "\\,") in name for name in names)
    assert b"simulated, no TEE" in simulator.quote(REPORT_DATA)


def test_collateral_is_valid_from_its_issue_for_thirty_days(simulator: Simulator) -> None:
    end = (NOW + 30 * DAY) // 1000
    assert claims(simulator)["earliest_expiration_date"] == end
    assert claims(simulator, at=(end - 1) * 1000)["earliest_expiration_date"] == end
    for outside in (end * 1000, NOW - 1000):
        with pytest.raises(ValueError, match=r"expired|Expired|in the future|NotValidYet"):
            claims(simulator, at=outside)


def test_a_recovery_is_known_early_and_takes_effect_later(simulator: Simulator) -> None:
    recovered = simulator.tcb_recovery(now=NOW, effective_at=NOW + 90 * DAY)
    assert claims(recovered)["tcb"]["status"] == "UpToDate"
    assert claims(recovered, early=True)["tcb"] == {
        "status": "OutOfDate",
        "advisory_ids": ["SIMULATED-SA-00001"],
        "eval_data_number": 21,
    }
    assert recovered.release_at(NOW + 90 * DAY - 1).evaluation_number == 20
    assert recovered.release_at(NOW + 90 * DAY).evaluation_number == 21
    assert recovered.release_at(NOW - 1, early=True).evaluation_number == 20


def test_a_machine_is_updated_to_what_a_recovery_wants(simulator: Simulator) -> None:
    updated = simulator.tcb_recovery(now=NOW).updated()
    assert claims(updated)["tcb"]["status"] == "UpToDate"
    assert claims(updated)["tcb"]["eval_data_number"] == 21
    assert updated.platform.ppid == simulator.platform.ppid


def test_rtmr3_is_that_of_the_log() -> None:
    guest = Guest(events=(RuntimeEvent(name="extra", payload=b"\x01\x02"),))
    log = json.loads(guest.event_log)
    assert log[-1]["event"] == "extra"
    assert log[-1]["event_payload"] == "0102"
    register = bytes(48)
    for entry in log:
        payload = bytes.fromhex(entry["event_payload"])
        head = entry["event_type"].to_bytes(4, "little")
        digest = sha384(head + b":" + entry["event"].encode() + b":" + payload).digest()
        assert entry["digest"] == digest.hex()
        register = sha384(register + digest).digest()
    assert guest.rtmr3 == register


@pytest.mark.parametrize(
    "guest", [Guest(mrtd=b"short"), Guest(td_attributes=bytes(7)), Guest(rtmr2=bytes(49))]
)
def test_a_register_of_another_length_is_refused(simulator: Simulator, guest: Guest) -> None:
    with pytest.raises(ValueError, match="bytes where the quote has"):
        replace(simulator, guest=guest).quote(REPORT_DATA)


def test_other_versions_of_quotes_are_refused(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match="version 3"):
        simulator.quote(REPORT_DATA, version=3)
    with pytest.raises(ValueError, match="63 bytes"):
        simulator.quote(bytes(63))
