"""`policy`: files are written, explained, compared."""

import json
import time
from hashlib import sha256
from pathlib import Path

import pytest

from orchestrator.crypto import EcdsaSigner
from orchestrator.encoding import blake2_256
from orchestrator.evidence import MAX_POLICY_BYTES
from orchestrator.evidence.policy_file import load_policy, policy_schema
from orchestrator.evidence.policy_text import starter_policy
from orchestrator.simulator import Simulator
from orchestrator.testing.evidence import simulated_bundle

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

REGISTERS = (("mrtd", "11"), ("rtmr0", "22"), ("rtmr1", "33"), ("rtmr2", "44"))


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


def test_show_has_all_that_a_reviewer_compares(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    enclave = f'[[sgx]]\nname = "enclave"\nmrsigner = "{"66" * 32}"\n'
    enclave += "isv_prod_id = 7\nminimum_isv_svn = 3\n"
    app_id = f'app_id = "{"77" * 20}"\n'
    pinned = '[events.payloads]\nkey-provider = "7b7d"\n'
    path.write_text(SET + app_id + enclave + pinned)

    ran = run("policy", "show", path)

    shown = {" ".join(line.split()) for line in ran.stdout.splitlines()}
    expected = {
        "measurement set app",
        *(f"{name} 0x{byte * 48}" for name, byte in REGISTERS),
        f"compose hash 0x{'55' * 32}",
        f"app id 0x{'77' * 20}",
        "measurement set enclave",
        f"mrsigner 0x{'66' * 32}",
        "isv prod id 7",
        "minimum isv svn 3",
        f"event payloads key-provider sha256:{sha256(b'{}').hexdigest()}",
    }
    assert expected <= shown, expected - shown
    assert not any(line.startswith("mrenclave") for line in shown)


def test_a_change_of_comments_alone_changes_the_hash_and_that_is_said(
    run: Run, policy: Path, tmp_path: Path
) -> None:
    noted, same = tmp_path / "noted.toml", tmp_path / "same.toml"
    noted.write_text(policy.read_text() + "# reviewed\n")
    same.write_text(policy.read_text())
    hashes = ["0x" + blake2_256(path.read_bytes()).hex() for path in (policy, noted)]

    said = run("policy", "diff", policy, noted)
    told = run("policy", "diff", policy, noted, "--json").document
    equal = run("policy", "diff", policy, same)

    assert "allow the same, but the hash" in said.stderr
    assert f"{hashes[0]}, then {hashes[1]}" in said.stderr
    assert [told["old_policy_hash"], told["new_policy_hash"]] == hashes
    assert (told["changes"], told["allows_more"]) == ([], False)
    assert "no changes" in equal.stderr
    assert "hash" not in equal.stderr


@pytest.mark.parametrize("text", ["version = ", "[tcb]\nstatusses = []\n"])
def test_an_error_names_the_file(run: Run, policy: Path, tmp_path: Path, text: str) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text)

    for words in (("check", wrong), ("diff", policy, wrong)):
        ran = run("policy", *words)

        assert ran.exit_code == 2
        assert f"error: policy {wrong}: " in ran.stderr
        assert "policy: " not in ran.stderr


def test_pinned_payloads_are_shown_and_missed(run: Run, policy: Path, tmp_path: Path) -> None:
    pinning = tmp_path / "pinning.toml"
    pinning.write_text(
        policy.read_text().replace("# key-provider", 'key-provider = "7b7d" # key-provider')
    )

    loose = run("policy", "check", policy, "--json").document
    strict = run("policy", "check", pinning, "--json").document
    told = run("policy", "show", pinning, "--json").document
    changes = run("policy", "diff", pinning, policy, "--json").document

    assert any("key-provider is not pinned" in warning for warning in loose["warnings"])
    assert not any("key-provider" in warning for warning in strict["warnings"])
    digest = sha256(b"{}").hexdigest()
    assert told["event_payloads"] == {"key-provider": f"sha256:{digest}"}
    assert changes == {
        "changes": [
            {
                "effect": "allows more",
                "change": "the payload of event key-provider is no longer pinned",
            }
        ],
        "allows_more": True,
        "old_policy_hash": "0x" + blake2_256(pinning.read_bytes()).hex(),
        "new_policy_hash": "0x" + blake2_256(policy.read_bytes()).hex(),
    }


def test_a_policy_of_more_than_64_kib_is_not_read(run: Run, policy: Path) -> None:
    policy.write_text(policy.read_text() + "#" * MAX_POLICY_BYTES)

    ran = run("policy", "check", policy)

    assert ran.exit_code == 2
    assert "65536" in ran.stderr


def test_a_set_from_evidence_is_called_by_its_hash(run: Run, tmp_path: Path) -> None:
    simulator, now = Simulator.create(), time.time_ns() // 1_000_000
    bundle, root = tmp_path / "evidence.cbor", tmp_path / "root.pem"
    root.write_text(simulator.root_pem)
    bundle.write_bytes(
        simulated_bundle(
            simulator,
            genesis_hash=bytes(32),
            contract=bytes(32),
            signing_key=EcdsaSigner.from_bytes(b"\1" * 32).public_key,
            encryption_key=bytes(32),
            collateral=simulator.collateral(now=now - 60_000),
        )
    )
    words = ("policy", "from-evidence", bundle, "--root", f"own={root}")

    (unnamed,) = load_policy(run(*words).stdout.encode()).measurements
    (named,) = load_policy(run(*words, "--name", "mine").stdout.encode()).measurements

    assert unnamed.name == f"tdx-{unnamed.measurement.hex()[:12]}"
    assert named.name == "mine"
    assert named.measurement == unnamed.measurement


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
    assert (same["changes"], same["allows_more"]) == ([], False)


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
