"""`simulator init|show|collateral|recover-tcb|update`."""

import json
from pathlib import Path

import pytest
from cryptography import x509

from orchestrator.evidence import load_collateral_json
from orchestrator.simulator import Guest, load_simulator

from .conftest import Run


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    folder = tmp_path / "simulator"
    assert run("simulator", "init", folder).exit_code == 0
    return folder


def test_what_a_policy_needs_is_shown(run: Run, folder: Path) -> None:
    shown = run("simulator", "show", folder, "--json").document
    simulator = load_simulator(folder)
    pem = shown["root_certificate"].encode()
    assert x509.load_pem_x509_certificate(pem) == simulator.authority.root.certificate
    assert shown["ppid"] == "0x" + simulator.platform.ppid.hex()
    assert shown["measurement"] == "0x" + simulator.guest.measurements().measurement.hex()
    assert shown["simulated"] == "proves no TEE"
    assert (folder / "root.pem").read_bytes() == pem


def test_text_output_says_that_it_is_simulated(run: Run, folder: Path) -> None:
    ran = run("simulator", "show", folder)
    assert "proves no TEE" in ran.stdout
    assert "BEGIN CERTIFICATE" in ran.stdout
    assert "PRIVATE KEY" not in ran.stdout


def test_the_application_is_measured(run: Run, tmp_path: Path) -> None:
    compose = tmp_path / "compose.json"
    compose.write_bytes(b'{"name":"mine"}')
    made = run("simulator", "init", tmp_path / "other", "--compose", compose, "--json").document
    guest = Guest(compose=compose.read_bytes())
    assert made["compose_hash"] == "0x" + guest.compose_hash.hex()
    assert load_simulator(tmp_path / "other").guest == guest


def test_init_replaces_nothing(run: Run, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ran = run("simulator", "init", folder)
    assert ran.exit_code == 2
    assert "a simulator already" in ran.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_collateral_is_printed_or_written(run: Run, folder: Path, tmp_path: Path) -> None:
    printed = run("simulator", "collateral", folder)
    assert json.loads(load_collateral_json(printed.stdout).tcb_info)["id"] == "TDX"
    file = tmp_path / "collateral.json"
    assert run("simulator", "collateral", folder, "-o", file).exit_code == 0
    assert load_collateral_json(file.read_bytes()).qe_identity
    assert run("simulator", "collateral", folder, "-o", file).exit_code == 2


def test_a_recovery_takes_effect_when_told(run: Run, folder: Path) -> None:
    ran = run(
        "simulator", "recover-tcb", folder, "--effective-in", "2d", "--advisory", "A-1", "--json"
    )
    assert ran.document["evaluation_number"] == 20
    assert ran.document["newest_evaluation_number"] == 21

    def number(*more: str) -> int:
        printed = run("simulator", "collateral", folder, *more).stdout
        info = json.loads(load_collateral_json(printed).tcb_info)
        assert isinstance(info["tcbEvaluationDataNumber"], int)
        return info["tcbEvaluationDataNumber"]

    assert number() == 20
    assert number("--early") == 21
    assert load_simulator(folder).releases[-1].levels[1].advisories == ("A-1",)


def test_an_update_brings_the_machine_up(run: Run, folder: Path) -> None:
    assert run("simulator", "recover-tcb", folder).exit_code == 0
    assert run("simulator", "update", folder).exit_code == 0
    simulator = load_simulator(folder)
    assert simulator.platform.svns == simulator.releases[-1].levels[0].svns


def test_a_folder_without_one_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("simulator", "show", tmp_path)
    assert ran.exit_code == 2
    assert "no simulator in it" in ran.stderr
