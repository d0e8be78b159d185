"""The loop over the workers of a world."""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.metrics import RegistrarEvent, RegistrarEventKind
from orchestrator.models import Worker
from orchestrator.registrar import Outcome, Renewals, RenewalSettings, Round
from orchestrator.testing.workers import ScriptedWorker
from tests.unit.registrar.world import URL, World

SECOND_URL = "http://second.invalid:9301"


class Rounds:
    """The loop over the workers of a world, and what it told."""

    def __init__(self, world: World, **changes: object) -> None:
        self.world = world
        self.ahead = 0  # of the chain's clock (ms)
        self.steady = world.clock
        self.events: list[RegistrarEvent] = []
        self.workers: dict[str, ScriptedWorker] = {URL: world.worker}
        self.forecast: list[RegistrarEvent] = []
        self.forecast_error: Exception | None = None
        self.forecast_of: list[Worker] = []
        settings = replace(RenewalSettings(), **changes)  # type: ignore[arg-type]  # checked by replace
        registrar = world.registrar()
        registrar._clock = self.clock
        self.renewals = Renewals(
            registrar,
            clients=lambda url: self.workers[url],
            settings=settings,
            clock=self.clock,
            steady=self.passed,
            forecast=self._forecast,
            on_event=self.events.append,
        )

    def clock(self) -> int:
        return self.world.clock() + self.ahead

    def passed(self) -> int:
        return self.steady()

    def _forecast(self, workers: Sequence[Worker]) -> Sequence[RegistrarEvent]:
        if self.forecast_error is not None:
            raise self.forecast_error
        self.forecast_of = list(workers)
        return self.forecast

    async def round(self) -> Round:
        return await self.renewals.round()

    def codes(self) -> list[str]:
        return [event.code for event in self.events if event.kind is RegistrarEventKind.ALARM]

    def kinds(self) -> list[RegistrarEventKind]:
        return [event.kind for event in self.events]


def outcomes(made: Round) -> dict[int, Outcome]:
    return {one.worker: one.outcome for one in made.workers}


async def two_workers(world: World, **changes: object) -> Rounds:
    """Two registered workers at two URLs."""
    rounds = Rounds(world, **changes)
    rounds.workers[SECOND_URL] = world.another_worker()
    await world.register()
    await world.register(rounds.workers[SECOND_URL], SECOND_URL)
    return rounds
