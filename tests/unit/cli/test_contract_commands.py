"""`contract`, `roles`, `mode`, `parameters`, `admin`, `account`, `measurements`, `workers`."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from orchestrator.chain import bundle as bundles
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.processor import JobProcessor
from orchestrator.cli import output, unverified, versions
from orchestrator.cli.values import PARAMETER_BOUNDS
from orchestrator.crypto import EcdsaSigner, EncryptionKey
from orchestrator.encoding import blake2_256, registration_digest, to_ss58
from orchestrator.errors import ChainMismatchError, ContractError
from orchestrator.models import Mode, Parameters, Signature, WorkerRegistration

from .conftest import Run
from .world import ADMIN, MEASUREMENT, OPERATOR, World

ALICE, BOB = to_ss58(ADMIN.account_id), to_ss58(OPERATOR.account_id)


@pytest.fixture
def alice_file(tmp_path: Path) -> Path:
    path = tmp_path / "alice"
    path.touch(mode=0o600)
    path.write_text("//Alice")
    return path


def test_a_contract_is_deployed_on_a_new_chain(run: Run, alice_file: Path, tmp_path: Path) -> None:
    chain = f"local:{tmp_path / 'new.db'}"

    deployed = run(
        *("contract", "deploy", "--chain", chain, "--account-file", alice_file),
        *("--parameter", "rate_limit=5", "--parameter", "max_ttl=1d", "--json"),
    )

    assert deployed.exit_code == 0, deployed.stderr
    document = deployed.document
    assert document["admin"] == ALICE
    assert document["code_hash"] == "0x" + load_bundle().code_hash.hex()
    info = run(
        *("contract", "info", "--chain", chain, "--contract", document["contract"], "--json")
    ).document
    assert info["mode"] == "Running"
    assert info["admin"] == ALICE
    assert info["jobs"] == 0
    assert info["parameters"] == {
        **vars(Parameters()),
        "rate_limit": 5,
        "max_ttl": 86_400_000,
    }


def test_a_second_contract_of_one_account_needs_a_salt(
    run: Run, alice_file: Path, tmp_path: Path
) -> None:
    words = ("contract", "deploy", "--chain", f"local:{tmp_path / 'new.db'}")
    account = ("--account-file", alice_file, "--json")
    first = run(*words, *account)

    same = run(*words, *account)
    salted = run(*words, *account, "--salt", "2")

    assert same.exit_code == 2
    assert same.document["message"].endswith("exists already; --salt TEXT makes another")
    assert salted.document["contract"] != first.document["contract"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--parameter", "rate_limit=x"), "rate_limit: 'x'"),
        (("--account-file", "/nonexistent"), "account_file: file /nonexistent"),
        (("--bundle", "/nonexistent"), "/nonexistent: No such file"),
        (
            ("--chain", "http://127.0.0.1:9944"),
            "is not of the form local:PATH, ws://HOST:PORT or wss://HOST",
        ),
    ],
)
def test_nothing_is_written_when_the_input_is_bad(
    run: Run, alice_file: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    before = set(tmp_path.rglob("*"))

    ran = run(
        *("contract", "deploy", "--chain", f"local:{tmp_path / 'new.db'}"),
        *("--account-file", alice_file, *more),
    )

    assert ran.exit_code == 2
    assert message in ran.stderr
    assert set(tmp_path.rglob("*")) == before


def test_a_bundle_of_another_contract_is_refused(
    run: Run, alice_file: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "other.contract"
    metadata = dict(load_bundle().metadata)
    metadata["contract"] = {"name": "flipper", "version": "1.0.0"}
    bundle.write_text(json.dumps(metadata))

    ran = run(
        *("contract", "deploy", "--chain", f"local:{tmp_path / 'new.db'}", "--bundle", bundle),
        *("--account-file", alice_file),
    )

    assert ran.exit_code == 1
    assert "of the contract flipper, not phala_job_processor" in ran.stderr
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not a phrase at all", "neither a mnemonic, nor"),
        ("0x1234", "neither a mnemonic, nor"),
        ("0x" + "zz" * 32, "neither a mnemonic, nor"),
    ],
)
def test_a_wrong_key_file_is_named_and_not_quoted(
    run: Run, world: World, secret_file: Callable[[str, str], Path], text: str, message: str
) -> None:
    path = secret_file("wrong", text)

    ran = run("mode", "set", "Draining", "--account-file", path)

    assert ran.exit_code == 2
    assert message in ran.stderr
    assert str(path) in ran.stderr
    assert text not in ran.stderr
    assert run("mode", "show", "--json").document == {"mode": "Running"}


def test_a_seed_is_a_key_file_too(
    run: Run, world: World, secret_file: Callable[[str, str], Path]
) -> None:
    path = secret_file("seed", "0x" + "11" * 32)

    ran = run("account", "release", "--account-file", path, "--json")

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["released"] not in (ALICE, BOB)


def test_a_contract_that_is_not_there_is_refused(run: Run, world: World) -> None:
    ran = run("contract", "info", "--contract", ALICE, "--json")

    assert ran.exit_code == 1
    assert "no contract at this address" in ran.document["message"]


def test_a_contract_address_that_is_none_is_bad_usage(run: Run, world: World) -> None:
    ran = run("contract", "info", "--contract", "nonsense")

    assert ran.exit_code == 2
    assert "contract 'nonsense'" in ran.stderr


def test_a_setting_that_is_missing_is_named_with_the_ways_to_give_it(run: Run) -> None:
    ran = run("contract", "info")

    assert ran.exit_code == 2
    assert "chain is not set: give --chain, PHALA_JOBS_CHAIN" in ran.stderr


def test_other_code_than_ours_is_refused(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(load_bundle(), code_hash=b"\x01" * 32)
    monkeypatch.setattr(bundles, "load_bundle", lambda _path: other)

    ran = run("contract", "info")

    assert ran.exit_code == 1
    assert "this program has code 0x0101" in ran.stderr


def test_a_contract_for_another_chain_is_refused(run: Run, world: World) -> None:
    with world.chain() as chain:
        draft = JobProcessor(bytes(32)).new(b"\x07" * 32, Parameters())
        deployed = chain.deploy(load_bundle().code, draft, signer=ADMIN, salt=b"other genesis")

    ran = run("contract", "info", "--contract", to_ss58(deployed.contract))

    assert ran.exit_code == 1
    assert "was deployed for genesis 0x0707" in ran.stderr


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "text", "empty"])
def test_a_damaged_chain_file_is_refused(run: Run, world: World, damage: str) -> None:
    data = world.path.read_bytes()
    world.path.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "overwritten": data[:4_096] + b"\xff" * (len(data) - 4_096),
            "text": b"no database\n" * 1_000,
            "empty": b"",
        }[damage]
    )

    ran = run("contract", "info", "--json")

    assert ran.exit_code in (1, 2), ran.stderr
    assert "error" in ran.document
    assert "Traceback" not in ran.stderr
    assert str(world.path) in ran.document["message"]


def test_roles_are_granted_listed_and_revoked(run: Run, world: World) -> None:
    granted = run("roles", "grant", BOB, "guardian", "--json")
    listed = run("roles", "list", "--json").document["roles"]
    revoked = run("roles", "revoke", BOB, "Guardian", "--json")
    left = run("roles", "list", "--json").document["roles"]

    assert granted.document == {"account": BOB, "role": "Guardian", "granted": True}
    assert {"account": BOB, "role": "Guardian"} in listed
    assert {"account": ALICE, "role": "Registrar"} in listed
    assert revoked.document["granted"] is False
    assert {"account": BOB, "role": "Guardian"} not in left


def test_a_stranger_is_refused_with_the_contract_s_own_word(
    run: Run, world: World, secret_file: Callable[[str, str], Path]
) -> None:
    stranger = secret_file("stranger", "//Charlie")

    ran = run("roles", "grant", BOB, "Guardian", "--account-file", stranger, "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == "NotAdmin"
    roles = run("roles", "list", "--json").document["roles"]
    assert {"account": BOB, "role": "Guardian"} not in roles


def test_a_role_that_is_none_is_bad_usage(run: Run, world: World) -> None:
    ran = run("roles", "grant", BOB, "King")

    assert ran.exit_code == 2
    assert "'King' is not one of 'registrar'" in ran.stderr


def test_the_mode_is_set_and_shown(run: Run, world: World) -> None:
    assert run("mode", "set", "draining", "--json").document == {"mode": "Draining"}
    assert run("mode", "show", "--json").document == {"mode": Mode.DRAINING.value}


def test_parameters_change_one_by_one(run: Run, world: World) -> None:
    run("parameters", "set", "rate_limit=9")
    run("parameters", "set", "mark_grace=2h")

    shown = run("parameters", "show", "--json").document

    assert shown == {**vars(Parameters()), "rate_limit": 9, "mark_grace": 7_200_000}


def test_a_parameter_out_of_bounds_is_refused_and_changes_nothing(run: Run, world: World) -> None:
    ran = run("parameters", "set", "max_ttl=31d", "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == "ParameterOutOfRange"
    assert "(max_ttl 10s to 30d; min_ttl is at most max_ttl)" in ran.document["message"]
    assert run("parameters", "show", "--json").document == vars(Parameters())


@pytest.mark.parametrize("name", PARAMETER_BOUNDS)
def test_the_bounds_that_are_told_are_those_of_the_contract(world: World, name: str) -> None:
    low, high = PARAMETER_BOUNDS[name]
    widest = replace(Parameters(), min_ttl=10_000, max_ttl=PARAMETER_BOUNDS["max_ttl"][1])

    with world.chain() as chain:
        for value in (low, high):
            same = {"min_ttl": value, "max_ttl": value} if name.endswith("_ttl") else {name: value}
            chain.call(world.processor.set_parameters(replace(widest, **same)), signer=ADMIN)
        for value in (low - 1, high + 1):
            if value < 0:
                continue
            with pytest.raises(ContractError, match="ParameterOutOfRange"):
                chain.call(
                    world.processor.set_parameters(replace(widest, **{name: value})), signer=ADMIN
                )


def test_limits_are_shown_with_their_units(run: Run, world: World) -> None:
    shown = [" ".join(line.split()) for line in run("parameters", "show").stdout.splitlines()]
    info = " ".join(run("contract", "info").stdout.split())

    for words in ("min ttl 1m", "max ttl 7d", "max payload 8192 bytes", "rate limit 60"):
        assert words in shown
    assert "max_payload 8192 bytes" in info
    assert "min_ttl 1m" in info
    assert run("contract", "info", "--json").document["parameters"] == vars(Parameters())


def test_the_admin_changes_in_two_steps(
    run: Run, world: World, secret_file: Callable[[str, str], Path]
) -> None:
    bob = secret_file("bob", "//Bob")
    early = run("admin", "accept", "--account-file", bob, "--json")

    run("admin", "propose", BOB)
    still = run("contract", "info", "--json").document["admin"]
    accepted = run("admin", "accept", "--account-file", bob, "--json")

    assert early.document["error"] == "NoPendingAdmin"
    assert still == ALICE
    assert accepted.document == {"admin": BOB}
    assert run("contract", "info", "--json").document["admin"] == BOB


def test_measurements_are_allowed_and_revoked_for_ever(run: Run, world: World) -> None:
    other = "cd" * 32

    run("measurements", "allow", other)
    before = run("measurements", "list", "--json").document["measurements"]
    run("measurements", "revoke", other)
    after = run("measurements", "list", "--json").document["measurements"]

    assert {"measurement": "0x" + MEASUREMENT.hex(), "allowed": True} in before
    assert {"measurement": "0x" + other, "allowed": True} in before
    assert {"measurement": "0x" + other, "allowed": False} in after


def test_workers_are_listed_suspended_reinstated_and_revoked(run: Run, world: World) -> None:
    def listed() -> list[tuple[int, str, bool]]:
        found = run("workers", "list", "--json").document["workers"]
        return [(worker["worker"], worker["status"], worker["trusted"]) for worker in found]

    assert listed() == [(1, "Active", True), (2, "Active", True)]
    run("workers", "suspend", 1)
    assert listed()[0] == (1, "Suspended", False)
    run("workers", "reinstate", 1)
    assert listed()[0] == (1, "Active", True)
    run("workers", "revoke", 2, "--reason", "lost")
    assert listed()[1] == (2, "Revoked", False)
    again = run("workers", "reinstate", 2, "--json")
    assert again.exit_code == 1
    assert again.document["error"] == "WorkerRevoked"


def test_the_table_of_workers_is_for_people(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "WIDTH_WITHOUT_TERMINAL", 80)

    ran = run("workers", "list")

    assert ran.exit_code == 0
    assert "endpoint" in ran.stdout
    assert "Active" in ran.stdout
    assert "0x" + world.workers[1].signer.public_key.key.hex() in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("http://127.0.0.1:1",), "policy is not set"),
        (
            ("http://127.0.0.1:1", "--measurement", "ab" * 32),
            "only --unverified takes it as given",
        ),
        (("http://127.0.0.1:1", "--policy", "/nowhere/policy.toml"), "/nowhere/policy.toml"),
        (("http://127.0.0.1:1", "--unverified"), "unverified: takes a --measurement"),
        (
            (
                "http://127.0.0.1:1",
                "--unverified",
                "--measurement",
                "ab" * 32,
                "--allow-measurement",
            ),
            "and no --allow-measurement",
        ),
        (("http://127.0.0.1:1/" + "x" * 120, "--unverified"), "139 bytes; the limit is 128"),
        (
            ("http://127.0.0.1:1", "--unverified", "--measurement", "ab" * 32, "--valid-for", "x"),
            "valid_for: 'x'",
        ),
        (
            ("ftp://127.0.0.1", "--unverified", "--measurement", "ab" * 32),
            "ftp://127.0.0.1",
        ),
    ],
)
def test_a_registration_with_bad_input_is_not_begun(
    run: Run, world: World, words: tuple[str, ...], message: str
) -> None:
    ran = run("workers", "register", *words)

    assert ran.exit_code == 2, ran.stderr
    assert message in ran.stderr


def test_a_worker_that_does_not_answer_is_not_registered(run: Run, world: World) -> None:
    ran = run(
        *("workers", "register", "http://127.0.0.1:1", "--unverified"),
        *("--measurement", MEASUREMENT.hex(), "--json"),
    )

    assert ran.exit_code == 3
    assert ran.document["message"].startswith(
        "no worker answers at http://127.0.0.1:1; is worker run running? ("
    )
    assert "no TEE" in ran.stderr
    assert len(run("workers", "list", "--json").document["workers"]) == 2


@pytest.mark.parametrize(
    ("measurement", "valid_for", "message"),
    [
        (MEASUREMENT, "31d", "ValidityOutOfRange (valid_for: the contract takes up to 30d)"),
        (
            b"\xab" * 32,
            "7d",
            f"MeasurementNotAllowed (phala-jobs measurements allow {'ab' * 32})",
        ),
    ],
)
def test_a_refused_registration_says_what_to_do(
    run: Run,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    measurement: bytes,
    valid_for: str,
    message: str,
) -> None:
    monkeypatch.setattr(unverified, "ask_registration", _answer)

    ran = run(
        *("workers", "register", "http://127.0.0.1:1", "--unverified", "--json"),
        *("--measurement", measurement.hex(), "--valid-for", valid_for),
    )

    assert ran.exit_code == 1
    assert ran.document["error"] == message.partition(" ")[0]
    assert ran.document["message"].endswith(message)


async def _answer(
    url: str,
    *,
    token: str | None,
    genesis_hash: bytes,
    contract: bytes,
    measurement: bytes,
    valid_until: int,
) -> tuple[WorkerRegistration, Signature]:
    """What a new worker answers."""
    assert token is None
    signer = EcdsaSigner.generate()
    registration = WorkerRegistration(
        signing_key=signer.public_key,
        encryption_key=EncryptionKey.generate().public_key,
        measurement=measurement,
        evidence_hash=blake2_256(b""),
        endpoint=url.encode(),
        valid_until=valid_until,
    )
    digest = registration_digest(registration, genesis_hash=genesis_hash, contract=contract)
    return registration, signer.sign(digest)


def test_versions_are_of_program_protocol_and_contract(run: Run) -> None:
    ran = run("--version")

    lines = [line.split()[0] for line in ran.stdout.splitlines()]
    assert ran.exit_code == 0
    assert lines == ["phala-jobs", "protocol", "contract"]
    assert load_bundle().code_hash.hex() in ran.stdout


def test_a_version_that_can_not_be_told_is_an_error_and_no_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged() -> None:
        raise ChainMismatchError("the bundle is damaged")

    monkeypatch.setattr(bundles, "load_bundle", damaged)

    ran = run("--version")

    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == "error: the bundle is damaged\n"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", lambda _: "1.2.3")
    assert versions.program_version() == "1.2.3"
    monkeypatch.setattr(versions, "version", absent)
    assert versions.program_version() == "not installed"
