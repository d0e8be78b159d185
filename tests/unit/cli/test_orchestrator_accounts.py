"""Whose account runs an orchestrator, and how a worker is believed again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import orchestrator
from orchestrator.crypto import AccountKey
from orchestrator.encoding import to_ss58
from orchestrator.journal import Journal
from orchestrator.models import Role

from .conftest import Run
from .world import ADMIN, OPERATOR, World

Write = Callable[[str, str], Path]
WORK = ("run", "once")


@pytest.mark.usefixtures("as_operator")
@pytest.mark.parametrize("work", WORK)
def test_an_account_that_may_admit_workers_too_does_not_start_it(
    run: Run, world: World, tmp_path: Path, work: str
) -> None:
    with world.chain() as chain:
        chain.call(world.processor.grant_role(OPERATOR.account_id, Role.REGISTRAR), signer=ADMIN)

    ran = run("orchestrator", work, "--owners", "any", "--folder", tmp_path / "orchestrator")

    assert ran.exit_code == 1
    assert f"account {to_ss58(OPERATOR.account_id)} has role Registrar beside Operator" in (
        ran.stderr
    )
    assert not (tmp_path / "orchestrator").exists()


@pytest.mark.usefixtures("as_operator")
def test_combined_roles_are_allowed_by_name_alone(run: Run, world: World, tmp_path: Path) -> None:
    with world.chain() as chain:
        chain.call(world.processor.grant_role(OPERATOR.account_id, Role.REGISTRAR), signer=ADMIN)

    ran = run(
        *("orchestrator", "once", "--owners", "any", "--folder", tmp_path / "orchestrator"),
        *("--timeout", "10s", "--allow-combined-roles", "--json"),
    )

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["open"] == 0


def test_combined_roles_do_not_stand_for_the_role_itself(
    run: Run, world: World, secret_file: Write, tmp_path: Path
) -> None:
    stranger = AccountKey.from_uri("//Stranger")

    ran = run(
        *("orchestrator", "once", "--owners", "any", "--folder", tmp_path / "orchestrator"),
        *("--account-file", secret_file("stranger", "//Stranger"), "--allow-combined-roles"),
    )

    assert ran.exit_code == 1
    assert f"account {to_ss58(stranger.account_id)} has no role Operator" in ran.stderr


class TestTrust:
    """`orchestrator trust`."""

    @pytest.fixture
    def folder(self, world: World, tmp_path: Path) -> Path:
        """An orchestrator's folder whose journal says that worker 1 has contradicted itself."""
        folder = tmp_path / "orchestrator"
        folder.mkdir(mode=0o700)
        journal = _journal(world, folder)
        journal.distrust(worker=1, code="ConflictingStatements", evidence=[{"units": 1}], at=1)
        journal.close()
        return folder

    def test_a_worker_is_believed_again(self, run: Run, world: World, folder: Path) -> None:
        run("workers", "suspend", 1)

        ran = run("orchestrator", "trust", 1, "--yes", "--folder", folder, "--json")

        assert ran.exit_code == 0, ran.stderr
        assert ran.document == {
            "worker": 1,
            "believed": True,
            "was": "ConflictingStatements",
            "evidence": [{"units": 1}],
            "status": "Suspended",
        }
        assert "phala-jobs workers reinstate 1" in ran.stderr
        assert _distrusted(world, folder) == {}

    def test_nobody_to_ask_changes_nothing(self, run: Run, world: World, folder: Path) -> None:
        ran = run("orchestrator", "trust", 1, "--folder", folder)

        assert ran.exit_code == 2
        assert "give --yes" in ran.stderr
        assert _distrusted(world, folder) == {1: "ConflictingStatements"}

    @pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
    def test_somebody_at_a_terminal_is_asked(
        self,
        run: Run,
        world: World,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        answer: bytes,
        code: int,
    ) -> None:
        monkeypatch.setattr(orchestrator, "is_interactive", lambda: True)

        ran = run("orchestrator", "trust", 1, "--folder", folder, stdin=answer)

        assert ran.exit_code == code
        assert "Believe it again?" in ran.stderr
        assert len(_distrusted(world, folder)) == code

    def test_one_that_is_believed_is_named(self, run: Run, world: World, folder: Path) -> None:
        ran = run("orchestrator", "trust", 2, "--yes", "--folder", folder, "--json")

        assert ran.exit_code == 1
        assert ran.document["error"] == "NotDistrusted"
        assert _distrusted(world, folder) == {1: "ConflictingStatements"}

    def test_while_an_orchestrator_runs_it_is_refused(
        self, run: Run, world: World, folder: Path
    ) -> None:
        journal = _journal(world, folder)

        ran = run("orchestrator", "trust", 1, "--yes", "--folder", folder, "--json")

        journal.close()
        assert ran.exit_code == 1
        assert "in use by another orchestrator" in ran.document["message"]
        assert _distrusted(world, folder) == {1: "ConflictingStatements"}

    def test_a_folder_without_a_journal_is_named_and_gets_none(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        ran = run("orchestrator", "trust", 1, "--yes", "--folder", tmp_path / "nothing")

        assert ran.exit_code == 2
        assert "there is no journal of an orchestrator" in ran.stderr
        assert not (tmp_path / "nothing").exists()


def _journal(world: World, folder: Path) -> Journal:
    with world.chain() as chain:
        genesis = chain.genesis_hash
    return Journal(folder / "journal.db", genesis_hash=genesis, contract=world.contract)


def _distrusted(world: World, folder: Path) -> dict[int, str]:
    journal = _journal(world, folder)
    try:
        return dict(journal.distrusted())
    finally:
        journal.close()
