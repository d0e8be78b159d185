"""Worlds with one owner, closed after the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.models import Parameters, TaskInput
from orchestrator.testing.owner_world import World, make_world


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def build(**parameters: int) -> World:
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        worlds.append(make_world(folder, parameters=Parameters(**parameters)))
        return worlds[-1]

    yield build
    for world in worlds:
        world.close()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


@pytest.fixture
def task() -> TaskInput:
    return TaskInput(task="echo", input=b"secret words", parameters={"n": 1})
