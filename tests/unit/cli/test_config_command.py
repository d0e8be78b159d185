"""`config`: where each setting came from, and the sample file."""

import re
from pathlib import Path

import pytest

from orchestrator.cli import output
from orchestrator.config import declared_settings, key_path, sample_file

from .conftest import Run


def test_every_setting_is_shown_with_its_origin(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[worker]\nslots = 9\n")

    ran = run("config", "show", "--config", path, "--json", chain="local:x")

    rows = {row["setting"]: row for row in ran.document["settings"]}
    assert list(rows) == [key_path(name) for name in declared_settings()]
    assert rows["worker.slots"]["value"] == 9
    assert rows["worker.slots"]["origin"] == f"file {path} worker.slots"
    assert rows["chain"]["origin"] == "environment PHALA_JOBS_CHAIN"
    assert rows["contract"]["origin"] == "default"
    assert rows["contract"]["variable"] == "PHALA_JOBS_CONTRACT"


def test_the_table_is_for_people(run: Run) -> None:
    ran = run("config", "show")

    assert ran.exit_code == 0
    assert "worker.slots" in ran.stdout


def test_names_are_whole_in_a_narrow_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(output, "WIDTH_WITHOUT_TERMINAL", 60)

    ran = run("config", "show", chain=f"local:{tmp_path / ('x' * 100)}")

    for name in declared_settings():
        assert re.search(rf"^{re.escape(key_path(name))} ", ran.stdout, re.MULTILINE), name
    assert max(map(len, ran.stdout.splitlines())) <= 60
    assert "(environment PHALA_JOBS_CHAIN)" in ran.stdout.replace("\n", "").replace("  ", "")


def test_the_sample_file_is_printed_as_it_is(run: Run) -> None:
    assert run("config", "sample").stdout == sample_file()
    assert run("config", "sample", "--json").document == {"sample": sample_file()}


def test_the_sample_file_is_written_and_never_over_another(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"

    first = run("config", "sample", "-o", path)
    path.write_text("# mine")
    second = run("config", "sample", "-o", path)

    assert first.exit_code == 0
    assert second.exit_code == 2
    assert "already there" in second.stderr
    assert path.read_text() == "# mine"


def test_a_setting_of_another_kind_is_named(run: Run) -> None:
    ran = run("config", "show", worker_slots="many")

    assert ran.exit_code == 2
    assert "worker.slots (environment PHALA_JOBS_WORKER_SLOTS): 'many'" in ran.stderr
