"""One world per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.registrar.world import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with make_world(tmp_path) as world:
        yield world
