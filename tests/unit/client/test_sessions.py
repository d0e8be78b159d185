"""Who is at work on a list: told by locks that the system frees when a process dies."""

import fcntl
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from orchestrator.client.sessions import Sessions
from orchestrator.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


@pytest.fixture
def sessions(folder: Path) -> Sessions:
    return Sessions(folder, "jobs-1")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_session_is_alive_until_it_ends(sessions: Sessions, folder: Path) -> None:
    others = Sessions(folder, "jobs-1")

    session = sessions.begin()

    assert sessions.is_alive(session)
    assert others.is_alive(session)
    assert (folder / f"jobs-1.{session}.session").stat().st_mode & 0o777 == 0o600
    sessions.end(session)
    assert not sessions.is_alive(session)
    assert not others.is_alive(session)
    assert _files(folder) == []
    sessions.end(session)


def test_closing_ends_all(sessions: Sessions, folder: Path) -> None:
    names = [sessions.begin(), sessions.begin()]

    sessions.close()

    assert not any(sessions.is_alive(name) for name in names)
    assert _files(folder) == []


def _begin_and_wait(folder: Path, told: Connection) -> None:
    told.send(Sessions(folder, "jobs-1").begin())
    signal.pause()


def test_a_session_dies_with_its_process(sessions: Sessions, folder: Path) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_begin_and_wait, args=(folder, there)
    )
    process.start()
    assert here.poll(60)
    session = here.recv()
    assert sessions.is_alive(session)

    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)

    assert not sessions.is_alive(session)
    assert _files(folder) == [f"jobs-1.{session}.session"]
    mine = sessions.begin()
    assert _files(folder) == [f"jobs-1.{mine}.session"], "what the dead left is removed"
    sessions.close()


def test_beginning_leaves_the_living_and_other_lists_alone(
    sessions: Sessions, folder: Path
) -> None:
    living = Sessions(folder, "jobs-1").begin()
    other = folder / f"jobs-2.{'0' * 32}.session"
    other.touch(mode=0o600)

    mine = sessions.begin()

    assert sessions.is_alive(living)
    assert sessions.is_alive(mine)
    assert other.exists()


def test_two_that_look_at_once_do_not_take_each_other_for_it(
    sessions: Sessions, folder: Path
) -> None:
    path = folder / f"jobs-1.{'0' * 32}.session"
    path.touch(mode=0o600)
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)

        assert not sessions.is_alive("0" * 32)


def test_a_file_that_can_not_be_removed_is_only_litter(
    sessions: Sessions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    session = sessions.begin()
    monkeypatch.setattr(Path, "unlink", refuse)

    sessions.end(session)

    assert _files(folder) == [f"jobs-1.{session}.session"]
    assert not sessions.is_alive(session)
    assert sessions.is_alive(sessions.begin())
    sessions.close()


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0" * 31, "G" * 32, "0" * 32 + "\n"])
def test_what_is_no_name_of_a_session_is_not_looked_for(sessions: Sessions, name: str) -> None:
    with pytest.raises(InputError, match="is no session"):
        sessions.is_alive(name)


def test_a_session_that_is_a_link_is_an_input_error(sessions: Sessions, folder: Path) -> None:
    (folder / f"jobs-1.{'0' * 32}.session").symlink_to(folder / "elsewhere")

    with pytest.raises(InputError, match="symbolic link"):
        sessions.is_alive("0" * 32)
