"""
Keeps registrations alive: looks at the workers again and again, and renews what will end.

* One worker after the other, so nothing is renewed twice at once; one that fails keeps none of the
  others from being renewed.
* A renewal that fails is an alarm each time: told, counted, and tried again, ever slower, but
  never more rarely than the workers are looked at anyway.
* What is due is read from the chain each time. So a renewal that was interrupted, at whatever
  step, is found done, or is done again on new evidence.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

from orchestrator.chain import Chain
from orchestrator.errors import (
    ChainError,
    ChainUnavailableError,
    ContractError,
    Error,
    RefusedError,
)
from orchestrator.evidence.instants import format_utc
from orchestrator.metrics import RegistrarEvent, RegistrarEventKind
from orchestrator.models import Worker, WorkerId, WorkerStatus
from orchestrator.registrar.registration import Registrar
from orchestrator.registrar.rotation import successors
from orchestrator.workers import WorkerClient

__all__ = ["Outcome", "RenewalSettings", "Renewals", "Round", "StopEvent", "WorkerReport"]

T = TypeVar("T")

_LOG = logging.getLogger("orchestrator.registrar")
PAGE = 50
MAX_DOUBLINGS = 20


class StopEvent(Protocol):
    """What ends a run."""

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


class Outcome(Enum):
    """What a round did about a worker."""

    NOT_DUE = "not due"
    RENEWED = "renewed"
    REPLACED = "replaced by newer keys"
    WAITS = "failed before, and is tried again later"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What a round did about one worker; `code` and `detail` say why it failed."""

    worker: WorkerId
    endpoint: str
    valid_until: int
    outcome: Outcome
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One look at all workers; `at` is its time (ms), `alarms` what the forecast told."""

    at: int
    workers: tuple[WorkerReport, ...]
    alarms: tuple[RegistrarEvent, ...] = ()

    @property
    def failed(self) -> tuple[WorkerReport, ...]:
        """The workers whose renewal has failed, now or before."""
        return tuple(one for one in self.workers if one.outcome in (Outcome.FAILED, Outcome.WAITS))


@dataclass(frozen=True, kw_only=True)
class RenewalSettings:
    """
    How it is done; times in ms.

    `workers` are looked at, all active ones when `None`. A failed renewal is tried again after
    `retry`, then after twice that, and so on up to `interval`.
    """

    workers: frozenset[WorkerId] | None = None
    renew_before: int = 72 * 3_600_000
    interval: int = 3_600_000
    retry: int = 60_000


@dataclass(kw_only=True)
class _Trouble:
    failures: int = 0
    next_at: int = 0
    code: str = ""
    detail: str = ""


@dataclass(kw_only=True)
class _Counts:
    renewed: int = 0
    troubles: dict[WorkerId, _Trouble] = field(default_factory=dict)


class Renewals:
    """
    Renews workers through *registrar*; *clients* gives the client for a worker's URL.

    *forecast* is asked in each round what will fail next, and its alarms are told. *on_event* hears
    of everything that happens.
    """

    def __init__(
        self,
        registrar: Registrar,
        *,
        clients: Callable[[str], WorkerClient],
        settings: RenewalSettings,
        clock: Callable[[], int],
        forecast: Callable[[Sequence[Worker]], Sequence[RegistrarEvent]] = lambda _: (),
        on_event: Callable[[RegistrarEvent], None] = lambda _: None,
    ) -> None:
        self._registrar = registrar
        self._clients = clients
        self._settings = settings
        self._clock = clock
        self._forecast = forecast
        self._on_event = on_event
        self._counts = _Counts()
        self.last_round_at: int | None = None

    @property
    def renewed(self) -> int:
        """How many registrations were renewed so far."""
        return self._counts.renewed

    @property
    def failing(self) -> frozenset[WorkerId]:
        """The workers whose last renewal failed."""
        return frozenset(self._counts.troubles)

    async def run(self, stop: StopEvent) -> None:
        """
        Look and renew until *stop*.

        A call that is on its way to the chain is waited for; whatever else is under way is given
        up, which changes nothing.
        """
        await self._settle()
        failures = 0
        while not stop.is_set():
            try:
                is_over = await _unless(stop, self.round())
                failures = 0
            except ChainError as error:
                failures += 1
                is_over = False
                self._alarm(None, _code(error), f"the workers can't be read: {error}")
            if is_over:
                return
            await _unless(stop, asyncio.sleep(self._pause(failures) / 1_000))

    async def round(self) -> Round:
        """
        Look at all workers once, and renew those that are due.

        Raises:
            ChainError: The workers can't be read.
        """
        everyone = await self._registrar.calls.read(self._read_workers)
        mine = [worker for worker in everyone if self._is_mine(worker)]
        self._forget_all_but(mine)
        reports = [await self._look(worker, everyone) for worker in mine]
        alarms = (
            *self._missing(everyone),
            *await self._ask_forecast(await self._still_needed(reports)),
        )
        self.last_round_at = self._clock()
        return Round(at=self.last_round_at, workers=tuple(reports), alarms=alarms)

    async def settle(self) -> None:
        """Wait for what an earlier run may have sent just before it ended."""
        await self._settle()

    # Workers.

    def _read_workers(self, chain: Chain) -> list[Worker]:
        found: list[Worker] = []
        start: int | None = 1
        while start is not None:
            page = chain.read(self._registrar.processor.workers_page(start, PAGE))
            found += page.items
            start = page.next
        return found

    def _is_mine(self, worker: Worker) -> bool:
        """Suspended workers are renewed where they are named: whoever suspended them decides."""
        named = self._settings.workers
        if named is None:
            return worker.status is WorkerStatus.ACTIVE
        return worker.worker in named and worker.status is not WorkerStatus.REVOKED

    async def _look(self, worker: Worker, everyone: Sequence[Worker]) -> WorkerReport:
        now = self._clock()
        if worker.valid_until - now > self._settings.renew_before:
            self._counts.troubles.pop(worker.worker, None)
            return _report(worker, Outcome.NOT_DUE)
        trouble = self._counts.troubles.get(worker.worker)
        if trouble is not None and now < trouble.next_at:
            return _report(worker, Outcome.WAITS, trouble.code, trouble.detail)
        try:
            return await self._renew(worker, everyone)
        except (Error, OSError) as error:
            return self._failed(worker, _code(error), str(error))
        except Exception as error:  # noqa: BLE001  # told with its traceback, and counted
            # Whatever a worker's answer has set off, the others have to be renewed all the same.
            _LOG.exception("renewing worker %d set off a bug", worker.worker)
            return self._failed(worker, type(error).__name__, str(error))

    async def _renew(self, worker: Worker, everyone: Sequence[Worker]) -> WorkerReport:
        client = self._clients(worker.endpoint.decode("utf-8", "replace"))
        try:
            newer = successors(worker, everyone)
            if newer:
                identity = await client.identity()
                if identity.signing_key in {other.signing_key for other in newer}:
                    self._counts.troubles.pop(worker.worker, None)
                    return _report(worker, Outcome.REPLACED)
            admission = await self._registrar.renew(client, worker)
        finally:
            await client.close()
        self._counts.troubles.pop(worker.worker, None)
        self._counts.renewed += 1
        self._on_event(RegistrarEvent(kind=RegistrarEventKind.RENEWED, worker=worker.worker))
        _LOG.info(
            "worker %d is renewed until %s%s",
            worker.worker,
            format_utc(admission.worker.valid_until),
            " (simulated: proves no TEE)" if admission.evidence.is_simulated else "",
        )
        return _report(admission.worker, Outcome.RENEWED)

    def _failed(self, worker: Worker, code: str, detail: str) -> WorkerReport:
        trouble = self._counts.troubles.setdefault(worker.worker, _Trouble())
        trouble.code, trouble.detail = code, detail
        trouble.next_at = self._clock() + self._delay(trouble.failures)
        trouble.failures += 1
        hours = (worker.valid_until - self._clock()) / 3_600_000
        _LOG.error(
            "ALARM: worker %d could not be renewed, %.1f hours before its registration ends: %s",
            worker.worker,
            hours,
            detail,
        )
        self._on_event(
            RegistrarEvent(
                kind=RegistrarEventKind.RENEWAL_FAILED,
                worker=worker.worker,
                code=code,
                detail=detail,
            )
        )
        return _report(worker, Outcome.FAILED, code, detail)

    def _missing(self, everyone: Sequence[Worker]) -> tuple[RegistrarEvent, ...]:
        """Tell of workers that are named and can't be renewed: a slip must not be a silence."""
        living = {one.worker for one in everyone if one.status is not WorkerStatus.REVOKED}
        return tuple(
            self._alarm(
                worker, "WorkerNotFound", "it is named, and there is none, or it is revoked"
            )
            for worker in sorted((self._settings.workers or frozenset()) - living)
        )

    def _forget_all_but(self, mine: Sequence[Worker]) -> None:
        kept = {worker.worker for worker in mine}
        for worker in set(self._counts.troubles) - kept:
            del self._counts.troubles[worker]

    # The rest.

    async def _still_needed(self, reports: Sequence[WorkerReport]) -> list[Worker]:
        """The workers as they are after a round, but for those that are left to end."""
        wanted = {one.worker for one in reports if one.outcome is not Outcome.REPLACED}
        everyone = await self._registrar.calls.read(self._read_workers)
        return [worker for worker in everyone if worker.worker in wanted]

    async def _ask_forecast(self, workers: Sequence[Worker]) -> tuple[RegistrarEvent, ...]:
        try:
            # It may ask the chain too, which is for one thread at a time.
            alarms = tuple(await self._registrar.calls.read(lambda _: self._forecast(workers)))
        except Exception as error:  # noqa: BLE001  # no forecast is a reason not to renew
            # That nobody can tell what will fail is itself to be told.
            return (self._alarm(None, _code(error), f"no forecast: {error}"),)
        return tuple(self._alarm(alarm.worker, alarm.code, alarm.detail) for alarm in alarms)

    def _alarm(self, worker: WorkerId | None, code: str, detail: str) -> RegistrarEvent:
        who = "" if worker is None else f"worker {worker}: "
        _LOG.error("ALARM: %s%s: %s", who, code, detail)
        alarm = RegistrarEvent(
            kind=RegistrarEventKind.ALARM, worker=worker, code=code, detail=detail
        )
        self._on_event(alarm)
        return alarm

    async def _settle(self) -> None:
        with contextlib.suppress(ChainUnavailableError):
            await self._registrar.calls.settle_pending()

    def _delay(self, failures: int) -> int:
        longer = self._settings.retry << min(failures, MAX_DOUBLINGS)
        return min(self._settings.interval, longer)

    def _pause(self, chain_failures: int) -> int:
        """How long (ms) until the next look: sooner when something is to be tried again."""
        if chain_failures:
            return self._delay(chain_failures - 1)
        now = self._clock()
        retries = [trouble.next_at - now for trouble in self._counts.troubles.values()]
        return max(1, min([self._settings.interval, *retries]))


async def _unless(stop: StopEvent, work: Awaitable[object]) -> bool:
    """Do the work, or give it up when *stop* comes first; return whether it came."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
            return stop.is_set()
        return True
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


def _report(worker: Worker, outcome: Outcome, code: str = "", detail: str = "") -> WorkerReport:
    return WorkerReport(
        worker=worker.worker,
        endpoint=worker.endpoint.decode("utf-8", "replace"),
        valid_until=worker.valid_until,
        outcome=outcome,
        code=code,
        detail=detail,
    )


def _code(error: Exception) -> str:
    if isinstance(error, ContractError):
        return error.variant
    return error.code if isinstance(error, RefusedError) else type(error).__name__
