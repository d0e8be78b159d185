"""
The registrar's own rounds, hour by hour, over a TCB recovery: told a day before trust is lost.

Everything is in it but the network: the rounds, the cache before the source, the verifier, the
contract.
"""

from pathlib import Path

import pytest

from orchestrator.collateral.cache import CachedCollateral
from orchestrator.collateral.opening import newest_of
from orchestrator.evidence import MAX_BUNDLE_BYTES, Collateral
from orchestrator.metrics import RegistrarEvent, RegistrarEventKind
from orchestrator.registrar import Renewals, RenewalSettings, TrustWatch, alarms_of
from orchestrator.testing.workers import ScriptedWorker
from tests.unit.registrar.world import DAY, HOUR, URL, World

pytestmark = pytest.mark.slow
SECOND_URL = "http://second.invalid:9301"


class VendorSource:
    """What the vendor of the world's machine says at the time that it is asked."""

    def __init__(self, world: World) -> None:
        self._world = world

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        assert quote
        return self._world.machine.simulator.collateral(now=now)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("hours_before", [5, 97])
async def test_the_rounds_of_a_registrar_tell_of_a_recovery_a_day_before_trust_is_lost(
    world: World, tmp_path: Path, hours_before: int
) -> None:
    roots = [world.machine.simulator.root_certificate]
    source = newest_of(CachedCollateral(VendorSource(world), tmp_path / "cache", roots=roots))
    workers: dict[str, ScriptedWorker] = {URL: world.worker, SECOND_URL: world.another_worker()}
    heard: list[tuple[int, RegistrarEvent]] = []
    watch = TrustWatch(
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        evidence=lambda one: world.blobs.get(one.evidence_hash, max_bytes=MAX_BUNDLE_BYTES),
        collateral=source,
    )
    renewals = Renewals(
        world.registrar(source),
        clients=lambda url: workers[url],
        settings=RenewalSettings(),
        clock=world.clock,
        steady=world.clock,
        forecast=lambda listed: alarms_of(watch.look(listed, now=world.clock())),
        on_event=lambda event: heard.append((world.clock(), event)),
    )
    await world.register()
    world.clock.advance(DAY)
    await world.register(workers[SECOND_URL], SECOND_URL)

    async def hours(count: int) -> int | None:
        """Go on; return when a worker was trusted no more."""
        for _ in range(count):
            world.clock.advance(HOUR)
            await renewals.round()
            for number in (1, 2):
                if not world.chain.read(world.processor.is_trusted(number)):
                    return world.clock()
        return None

    assert await hours(hours_before) is None
    assert {event.kind for _, event in heard} <= {RegistrarEventKind.RENEWED}
    recovered_at = world.clock()
    world.change_simulator(lambda simulator: simulator.tcb_recovery(now=recovered_at))
    heard.clear()
    lost_at = await hours(9 * 24)

    first = {
        kind: min(at for at, event in heard if event.kind is kind)
        for kind in {event.kind for _, event in heard}
    }
    assert set(first) == {RegistrarEventKind.ALARM, RegistrarEventKind.RENEWAL_FAILED}
    assert first[RegistrarEventKind.ALARM] == recovered_at + HOUR
    assert first[RegistrarEventKind.RENEWAL_FAILED] >= first[RegistrarEventKind.ALARM]
    assert lost_at is not None
    assert lost_at - first[RegistrarEventKind.ALARM] >= 24 * HOUR
    early = {event.code for at, event in heard if at == first[RegistrarEventKind.ALARM]}
    assert early == {"E05"}
    failed = {e.code for _, e in heard if e.kind is RegistrarEventKind.RENEWAL_FAILED}
    assert failed == {"E05"}
