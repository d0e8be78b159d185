import importlib.metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.errors import ConfigError
from orchestrator.tasks import Limits, Task, TaskOutput, task
from orchestrator.tasks.echo import echo
from orchestrator.tasks.registry import find_tasks, load_task
from orchestrator.tasks.sandbox import run_local


def announce(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "phala_jobs.tasks"
        return [EntryPoint(name, reference, group) for name, reference in entries]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_the_built_in_tasks_are_there_without_any_package(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch)

    assert list(find_tasks()) == ["echo", "onnx"]


def test_an_installed_package_adds_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, ("shout", "loud:run"), ("echo", "orchestrator.tasks.echo:echo"))

    assert find_tasks()["shout"] == "loud:run"


def test_two_tasks_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, ("echo", "loud:run"))

    with pytest.raises(ConfigError, match=r"task echo: .*tasks.echo:echo and as loud:run"):
        find_tasks()


@pytest.mark.parametrize("reference", ["no_such_module:run", "json:no_such", "json", ":x"])
def test_a_reference_to_nothing_is_a_wrong_setting(reference: str) -> None:
    with pytest.raises(ConfigError, match="task "):
        load_task(reference)


def test_a_decorated_function_is_a_task_with_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    @task(time_seconds=5, memory_bytes=64 << 20)
    def shout(data: bytes, parameters: object) -> bytes:
        return data.upper()

    module = ModuleType("loud")
    module.__dict__["shout"] = shout
    monkeypatch.setitem(__import__("sys").modules, "loud", module)

    loaded = load_task("loud:shout")

    assert isinstance(loaded, Task)
    assert loaded.limits == Limits(time_seconds=5, memory_bytes=64 << 20)
    assert loaded.run(b"hey", {}) == b"HEY"
    assert TaskOutput(output=b"", cpu_ms=0).cpu_ms == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"time_seconds": 0},
        {"cpu_seconds": 0},
        {"memory_bytes": -1},
        {"input_bytes": 0},
        {"output_bytes": 0},
        {"output_bytes": 16 << 20},
    ],
)
def test_limits_out_of_range_are_named(limits: dict[str, int]) -> None:
    (name,) = limits

    with pytest.raises(ConfigError, match=name):
        Limits(**limits)


SHOUT = """
from orchestrator.tasks import task

@task(time_seconds=5, memory_bytes=64 << 20)
def shout(data, parameters):
    return data.upper() + str(parameters.get("end", "")).encode()
"""


def test_a_package_of_ten_lines_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install` makes of such a package, as the README shows it."""
    (tmp_path / "loud.py").write_text(SHOUT)
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[phala_jobs.tasks]\nshout = loud:shout\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert run_local("shout", b"hey", {"end": "!"}).output == b"HEY!"


def test_echo_looks_at_nothing() -> None:
    assert echo.run(b"data", {"any": 1}) == b"data"
