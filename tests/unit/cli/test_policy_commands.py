"""`policy`: files are written, explained, compared."""

import json
from pathlib import Path

import pytest

from orchestrator.encoding import blake2_256
from orchestrator.evidence.policy_file import load_policy, policy_schema
from orchestrator.evidence.policy_text import starter_policy

from .conftest import Run

SET = f"""
[[tdx]]
name = "app"
mrtd = "{"11" * 48}"
rtmr0 = "{"22" * 48}"
rtmr1 = "{"33" * 48}"
rtmr2 = "{"44" * 48}"
compose_hash = "{"55" * 32}"
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(starter_policy() + SET)
    return path


def test_the_file_to_begin_with_allows_nothing_and_says_so(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new.toml"

    written = run("policy", "init", path)
    printed = run("policy", "init")
    checked = run("policy", "check", path, "--json")

    assert (written.exit_code, printed.exit_code, checked.exit_code) == (0, 0, 0)
    assert path.read_text() == printed.stdout == starter_policy()
    assert any("nothing is allowed" in warning for warning in checked.document["warnings"])
    assert "warning: nothing is allowed" in checked.stderr


def test_nothing_is_overwritten(run: Run, policy: Path) -> None:
    before = policy.read_bytes()

    ran = run("policy", "init", policy)

    assert ran.exit_code != 0
    assert policy.read_bytes() == before


def test_show_has_the_measurement_for_the_chain(run: Run, policy: Path) -> None:
    (measured,) = load_policy(policy.read_bytes()).measurements

    said = run("policy", "show", policy)
    told = run("policy", "show", policy, "--json").document

    assert said.exit_code == 0, said.stderr
    assert measured.measurement.hex() in said.stdout
    assert told["measurements"][0]["measurement"] == "0x" + measured.measurement.hex()
    assert told["measurements"][0]["mrtd"] == "0x" + "11" * 48
    assert told["policy_hash"] == "0x" + blake2_256(policy.read_bytes()).hex()


def test_hash_is_that_of_the_bytes(run: Run, policy: Path) -> None:
    ran = run("policy", "hash", policy, "--json")

    assert ran.document == {"policy_hash": "0x" + blake2_256(policy.read_bytes()).hex()}


def test_diff_says_what_is_allowed_more_and_less(run: Run, policy: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow.toml"
    narrow.write_text(starter_policy())

    wider = run("policy", "diff", narrow, policy, "--json").document
    narrower = run("policy", "diff", policy, narrow, "--json").document
    same = run("policy", "diff", policy, policy, "--json").document

    assert wider["allows_more"] is True
    assert {change["effect"] for change in wider["changes"]} == {"allows more"}
    assert narrower["allows_more"] is False
    assert {change["effect"] for change in narrower["changes"]} == {"allows less"}
    assert same == {"changes": [], "allows_more": False}


@pytest.mark.parametrize("words", [["show"], ["check"], ["hash"], ["diff"]])
def test_a_key_that_is_not_known_is_an_error(run: Run, policy: Path, words: list[str]) -> None:
    policy.write_text(policy.read_text().replace("[tcb]", "[tbc]"))
    files = [policy] * (2 if words == ["diff"] else 1)

    ran = run("policy", *words, *files)

    assert ran.exit_code == 2
    assert "tbc" in ran.stderr


def test_schema_is_that_of_the_file(run: Run) -> None:
    ran = run("policy", "schema")

    assert json.loads(ran.stdout) == json.loads(json.dumps(policy_schema()))


@pytest.mark.parametrize("root", ["nameless", "=file", "name=", "name=absent.pem"])
def test_a_root_that_is_none_is_bad_input(run: Run, policy: Path, root: str) -> None:
    ran = run("policy", "from-evidence", policy, "--root", root)

    assert ran.exit_code == 2
    assert "root" in ran.stderr
