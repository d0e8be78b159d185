"""`config`: where each setting came from, and the sample file."""

from pathlib import Path

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
