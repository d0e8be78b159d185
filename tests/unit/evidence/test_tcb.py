"""Intel's TCB documents: which versions are short, and what is no such document."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import EncodingError
from orchestrator.evidence.tcb import Svns, converged, parse_qe_identity, parse_tcb_info
from orchestrator.simulator import Simulator
from tests.properties.evidence_world import NOW

COLLATERAL = Simulator.create().collateral(now=NOW)
HAVE = Svns(sgx=(4, 4, 2, 2, 4, 1, 0, 5, *(0,) * 8), tdx=(11, 1, 4, *(0,) * 13), pce=11)


def changed(change: Callable[[dict[str, Any]], None]) -> str:
    document = json.loads(COLLATERAL.tcb_info)
    change(document)
    return json.dumps(document)


def module(**level: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["tdxModuleIdentities"][0]["tcbLevels"][0].update(level)

    return change


def test_a_platform_that_has_what_is_needed_matches() -> None:
    info = parse_tcb_info(COLLATERAL.tcb_info)

    assert info.match(HAVE) == ("UpToDate", ())
    assert info.shortfall(HAVE) == ()


def test_every_version_that_is_short_is_named() -> None:
    info = parse_tcb_info(COLLATERAL.tcb_info)
    old = Svns(sgx=(3, *HAVE.sgx[1:]), tdx=(11, 1, 3, *HAVE.tdx[3:]), pce=10)

    assert info.match(old) is None
    assert info.shortfall(old) == (
        "sgx_svn[0] is 3, must be 4",
        "tdx_svn[2] is 3, must be 4",
        "pce_svn is 10, must be 11",
    )


def test_the_tdx_modules_own_level_counts() -> None:
    advisories = ["SIMULATED-SA-00003"]
    outdated = parse_tcb_info(changed(module(tcbStatus="OutOfDate", advisoryIDs=advisories)))
    newer = parse_tcb_info(changed(module(tcb={"isvsvn": 12})))

    assert outdated.match(HAVE) == ("OutOfDate", ("SIMULATED-SA-00003",))
    assert newer.match(HAVE) is None
    assert newer.shortfall(HAVE) == ("the TDX module's SVN is 11, must be 12",)


def test_the_newest_level_is_that_of_the_newest_date() -> None:
    def add_newer(document: dict[str, Any]) -> None:
        first = document["tcbLevels"][0]
        document["tcbLevels"].append({**first, "tcbDate": "2026-01-01T00:00:00Z"})

    assert parse_tcb_info(changed(add_newer)).newest.date == 1_767_225_600


@pytest.mark.parametrize(
    ("platform", "enclave", "merged"),
    [
        ("UpToDate", "UpToDate", "UpToDate"),
        ("UpToDate", "OutOfDate", "OutOfDate"),
        ("ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
        ("UpToDate", "Revoked", "Revoked"),
        ("Revoked", "UpToDate", "Revoked"),
        ("UpToDate", "News", "News"),
    ],
)
def test_of_platform_and_quoting_enclave_the_worse_counts(
    platform: str, enclave: str, merged: str
) -> None:
    assert converged(platform, enclave) == merged


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(key)


def first_level(**level: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["tcbLevels"][0].update(level)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        changed(without("tcbLevels")),
        changed(without("tcbEvaluationDataNumber")),
        changed(lambda document: document.update(tcbLevels=[])),
        changed(lambda document: document.update(tcbEvaluationDataNumber=True)),
        changed(lambda document: document.update(tcbEvaluationDataNumber=-1)),
        changed(first_level(tcb=[])),
        changed(first_level(tcbDate="today")),
        changed(first_level(advisoryIDs="SIMULATED-SA-00001")),
        changed(lambda document: document["tcbLevels"][0]["tcb"].update(sgxtcbcomponents=4)),
        changed(module(tcb=None)),
    ],
)
def test_what_is_no_tcb_info_is_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        parse_tcb_info(text)


def test_what_is_no_qe_identity_is_refused() -> None:
    assert parse_qe_identity(COLLATERAL.qe_identity).match(5) is None
    for text in ("", "{}", '{"tcbEvaluationDataNumber": 1, "tcbLevels": [{}]}'):
        with pytest.raises(EncodingError, match="QE identity"):
            parse_qe_identity(text)
