"""What the orchestrator's settings come to in the service."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import service
from tests.unit.cli.conftest import Run
from tests.unit.cli.world import World


@pytest.mark.usefixtures("as_operator")
def test_reading_and_sending_have_a_connection_each(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    class Orchestrator(service.Orchestrator):
        def __init__(self, **parts: Any) -> None:  # noqa: ANN401  # handed on
            given.update(parts)
            super().__init__(**parts)

    monkeypatch.setattr(service, "Orchestrator", Orchestrator)

    ran = run("orchestrator", "once", "--folder", tmp_path / "orchestrator", "--owners", "any")

    assert ran.exit_code == 0, ran.stderr
    assert given["sender"] is not None
    assert given["sender"] is not given["chain"]


@pytest.mark.usefixtures("as_operator")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (128, 0, 0, 200)),
        (
            (
                *("--concurrency", "3", "--keep-results", "7"),
                *("--from-block", "2", "--batch-jobs", "5"),
            ),
            (3, 7, 2, 5),
        ),
    ],
)
def test_settings_reach_the_service(
    run: Run,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    expected: tuple[int, ...],
) -> None:
    found: list[tuple[int, ...]] = []

    class Settings(service.OrchestratorSettings):
        def __post_init__(self) -> None:
            found.append(
                (self.concurrency, self.keep_results_days, self.from_block, self.batch_jobs)
            )
            super().__post_init__()

    monkeypatch.setattr(service, "OrchestratorSettings", Settings)

    ran = run(
        *("orchestrator", "once", "--folder", tmp_path / "orchestrator", "--owners", "any"), *words
    )

    assert ran.exit_code == 0, ran.stderr
    assert found == [expected]
