"""The table that a run of fault scenarios shows, and how it judges."""

from dataclasses import dataclass

import pytest

from tests.acceptance.fault_world import Tally

__all__ = ["Report"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table that a run shows."""

    scenario: str
    faults: int
    tally: Tally


class Report:
    """The table, and the judgement."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._rows: list[Row] = []

    def add(self, scenario: str, faults: int, tally: Tally) -> None:
        """Add a row, and judge it: the fault was there, and each job was done exactly once."""
        self._rows.append(Row(scenario=scenario, faults=faults, tally=tally))
        assert faults > 0, scenario
        assert tally.jobs > 0, scenario
        assert tally == Tally(jobs=tally.jobs, processed=tally.jobs, duplicated=0, lost=0), scenario

    def show(self) -> None:
        """Show the table; rows of one scenario are one line."""
        sums: dict[str, list[int]] = {}
        for row in self._rows:
            tally = row.tally
            line = sums.setdefault(row.scenario, [0] * 5)
            one = (row.faults, tally.jobs, tally.processed, tally.duplicated, tally.lost)
            line[:] = [total + more for total, more in zip(line, one, strict=True)]
        names = ("faults", "jobs", "processed", "duplicated", "lost")
        with self._capsys.disabled():
            print(f"\n{'scenario':<64}" + "".join(f"{name:>11}" for name in names))
            for scenario, line in sums.items():
                print(f"{scenario:<64}" + "".join(f"{number:>11}" for number in line))
