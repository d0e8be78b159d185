"""Runs the command line in this process, with a home folder and an environment of its own."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from orchestrator.chain import url
from orchestrator.chain.spending import SpendingLimits
from orchestrator.cli import app
from orchestrator.config import PREFIX
from orchestrator.keystore import Keystore, ScryptParameters

from .priced import PricedChain
from .world import World, blob_server, make_world


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command did."""

    exit_code: int
    stdout: str
    stderr: str
    stdout_bytes: bytes

    @property
    def document(self) -> Any:  # noqa: ANN401  # JSON, looked into by the test
        return json.loads(self.stdout)


Run = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, and none of our variables."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _quick_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a guess of a passphrase cost next to nothing; the keystore's own tests pay in full."""
    defaults = Keystore.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "scrypt", ScryptParameters(n=1 << 4))


@pytest.fixture
def run(home: Path) -> Run:
    """Run `phala-jobs` with the given words."""
    runner = CliRunner()

    def run(*words: object, stdin: bytes = b"", **environment: str) -> Ran:
        result = runner.invoke(
            app,
            [str(word) for word in words],
            input=stdin,
            env={PREFIX + name.upper(): value for name, value in environment.items()},
        )
        return Ran(
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
            stdout_bytes=result.stdout_bytes,
        )

    return run


@pytest.fixture
def secret_file(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file that only its owner may read."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that is made once; tests get copies of its chain file."""
    blobs: dict[str, bytes] = {}
    with blob_server(blobs) as url:
        made = make_world(tmp_path_factory.mktemp("template") / "chain.db", url)
        yield replace(made, blobs=blobs)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> type[PricedChain]:
    """Calls on every chain cost money; the class has the balance, and what was sent."""

    class Priced(PricedChain):
        sent: ClassVar[list[str]] = []
        limits: ClassVar[list[SpendingLimits | None]] = []

    def open_chain(
        chain: str, *, create: bool = False, spending: SpendingLimits | None = None
    ) -> Priced:
        return Priced(Path(chain.removeprefix("local:")), create=create, spending=spending)

    monkeypatch.setattr(url, "open_chain", open_chain)
    return Priced


@pytest.fixture
def as_operator(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name //Bob, who has the role Operator."""
    account = tmp_path / "operator"
    account.touch(mode=0o600)
    account.write_text("//Bob\n")
    monkeypatch.setenv(PREFIX + "ACCOUNT_FILE", str(account))


@pytest.fixture
def world(template: World, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A chain with contract, roles and workers of its own; the settings name it and //Alice."""
    path = tmp_path / "chain.db"
    shutil.copy(template.path, path)
    world = replace(template, path=path)
    for name, value in world.settings.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    account = tmp_path / "account"
    account.touch(mode=0o600)
    account.write_text("//Alice\n")
    monkeypatch.setenv(PREFIX + "ACCOUNT_FILE", str(account))
    return world
