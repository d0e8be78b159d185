"""Collateral that is kept: when it is asked for again, what serves meanwhile, what never is."""

import base64
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from orchestrator.collateral.cache import CachedCollateral, forget_collateral
from orchestrator.collateral.facts import is_signed, read_facts
from orchestrator.errors import CollateralUnavailableError, EncodingError
from orchestrator.evidence import Collateral
from orchestrator.simulator import Simulator

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_800_000_000_000


class ScriptedSource:
    """Gives what `make` makes, or says that it is away; counts how often it is asked."""

    def __init__(self, make: Callable[[int], Collateral]) -> None:
        self.make = make
        self.is_away = False
        self.asked = 0
        self.is_closed = False

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        assert quote
        self.asked += 1
        if self.is_away:
            raise CollateralUnavailableError("away")
        return self.make(now)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.create()


@pytest.fixture(scope="module")
def quote(simulator: Simulator) -> bytes:
    return simulator.quote(bytes(64))


@pytest.fixture
def source(simulator: Simulator) -> ScriptedSource:
    return ScriptedSource(lambda now: simulator.collateral(now=now))


@pytest.fixture
def alarms() -> list[str]:
    return []


@pytest.fixture
def cache(
    tmp_path: Path, simulator: Simulator, source: ScriptedSource, alarms: list[str]
) -> CachedCollateral:
    return CachedCollateral(
        source,
        tmp_path / "cache",
        roots=[simulator.root_certificate],
        on_alarm=lambda code, _: alarms.append(code),
    )


def confirmed(cache: CachedCollateral, quote: bytes, *, now: int = NOW) -> Collateral:
    """Return what the source gives at *now*, and gave an hour before with the same numbers."""
    cache.newest(quote, now=now - HOUR)
    return cache.newest(quote, now=now)


def revoked(collateral: Collateral) -> int:
    """How many certificates of platforms the list revokes."""
    return len(x509.load_der_x509_crl(collateral.pck_crl))


def test_for_a_week_the_source_is_not_asked_again(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes
) -> None:
    first = confirmed(cache, quote)
    asked = source.asked

    assert cache.collateral(quote, now=NOW + 7 * DAY - 1) == first
    assert source.asked == asked

    second = cache.collateral(quote, now=NOW + 7 * DAY)
    assert source.asked == asked + 1
    assert read_facts(second).issued_at == NOW + 7 * DAY


def test_with_a_third_of_its_life_left_it_is_asked_for_again(
    cache: CachedCollateral, source: ScriptedSource, simulator: Simulator, quote: bytes
) -> None:
    source.make = lambda now: simulator.collateral(now=now, valid_for=3 * DAY)
    confirmed(cache, quote)
    asked = source.asked

    cache.collateral(quote, now=NOW + 2 * DAY - 1_000)
    assert source.asked == asked

    cache.collateral(quote, now=NOW + 2 * DAY)
    assert source.asked == asked + 1


def test_the_newest_is_asked_for_however_fresh_what_is_held(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes
) -> None:
    cache.collateral(quote, now=NOW)

    newest = cache.newest(quote, now=NOW + HOUR)

    assert source.asked == 2
    assert cache.collateral(quote, now=NOW + 2 * HOUR) == newest


def test_while_the_source_is_away_what_is_held_serves_to_its_last_millisecond(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes, alarms: list[str]
) -> None:
    held = cache.collateral(quote, now=NOW)
    source.is_away = True
    end = read_facts(held).expires_at

    assert cache.collateral(quote, now=end) == held
    assert alarms == ["CollateralSourceAway"]
    with pytest.raises(CollateralUnavailableError, match="away"):
        cache.collateral(quote, now=end + 1)
    assert cache.held(quote, now=end + 1) is None


def test_what_is_not_yet_valid_is_not_served(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes
) -> None:
    """A clock that was set back finds what was fetched in its future."""
    cache.collateral(quote, now=NOW)
    source.is_away = True

    with pytest.raises(CollateralUnavailableError):
        cache.collateral(quote, now=NOW - 1)


def test_without_anything_held_the_sources_error_is_told(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes, alarms: list[str]
) -> None:
    source.is_away = True

    with pytest.raises(CollateralUnavailableError, match="away"):
        cache.collateral(quote, now=NOW)
    assert alarms == []


def test_a_lower_evaluation_number_is_refused_and_told(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
) -> None:
    newer = simulator.tcb_recovery(now=NOW - DAY)
    source.make = lambda now: newer.collateral(now=now)
    held = confirmed(cache, quote)
    source.make = lambda now: simulator.collateral(now=now)

    assert cache.newest(quote, now=NOW + HOUR) == held

    assert alarms == ["CollateralWentBack", "CollateralSourceAway"]
    entry = cache.held(quote, now=NOW + HOUR)
    assert entry is not None
    assert (entry.facts.evaluation_number, entry.fetched_at) == (21, NOW)


def test_it_does_not_go_back_once_what_was_held_has_ended(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
) -> None:
    newer = simulator.tcb_recovery(now=NOW - DAY)
    source.make = lambda now: newer.collateral(now=now, valid_for=DAY)
    confirmed(cache, quote)
    source.make = lambda now: simulator.collateral(now=now)

    with pytest.raises(CollateralUnavailableError, match=r"CollateralWentBack.* 20, and 21"):
        cache.collateral(quote, now=NOW + 2 * DAY)
    assert alarms == ["CollateralWentBack"]


def test_what_no_allowed_root_signed_is_not_kept(
    cache: CachedCollateral,
    source: ScriptedSource,
    quote: bytes,
    alarms: list[str],
    tmp_path: Path,
) -> None:
    """Else a stranger's high number would shut out all that comes later."""
    honest, other = source.make, Simulator.create()
    stranger = replace(other, platform=replace(other.platform, fmspc=b"SIM\0\0\0")).tcb_recovery(
        now=0
    )
    source.make = lambda now: stranger.collateral(now=now)

    with pytest.raises(CollateralUnavailableError, match="no allowed root"):
        cache.collateral(quote, now=NOW)

    assert alarms == ["CollateralNotSigned"]
    assert not (tmp_path / "cache").exists()
    source.make = honest
    assert read_facts(cache.collateral(quote, now=NOW)).evaluation_number == 20


def test_what_can_not_be_read_is_not_kept(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes, tmp_path: Path
) -> None:
    whole = source.make(NOW)
    source.make = lambda _: replace(whole, tcb_info="{}")

    with pytest.raises(CollateralUnavailableError, match="collateral"):
        cache.collateral(quote, now=NOW)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"fetched_at": 1}',
        b'{"fetched_at": "soon", "collateral": "{}"}',
        b'{"fetched_at": 1, "collateral": 5}',
    ],
)
def test_a_damaged_file_is_replaced(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes, tmp_path: Path, damage: bytes
) -> None:
    cache.collateral(quote, now=NOW)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(damage)

    found = cache.collateral(quote, now=NOW)

    assert source.asked == 2
    assert cache.collateral(quote, now=NOW) == found
    assert source.asked == 2


def test_a_file_is_believed_for_its_signatures_alone(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes, tmp_path: Path
) -> None:
    cache.collateral(quote, now=NOW)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_text(path.read_text().replace("UpToDate", "UpToNoGo"))
    source.is_away = True

    with pytest.raises(CollateralUnavailableError):
        cache.collateral(quote, now=NOW)


def test_another_process_finds_what_was_kept(
    cache: CachedCollateral, simulator: Simulator, quote: bytes, tmp_path: Path
) -> None:
    kept = confirmed(cache, quote)
    absent = ScriptedSource(lambda _: pytest.fail("asked"))
    other = CachedCollateral(absent, tmp_path / "cache", roots=[simulator.root_certificate])

    assert other.collateral(quote, now=NOW + DAY) == kept
    held = other.held(quote, now=NOW + DAY)
    assert held is not None
    assert held.age(now=NOW + DAY) == DAY
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    other.close()
    assert absent.is_closed


def test_each_kind_of_platform_has_its_own(
    cache: CachedCollateral, source: ScriptedSource, simulator: Simulator, quote: bytes
) -> None:
    cache.collateral(quote, now=NOW)
    other = replace(
        simulator, platform=type(simulator.platform).create(simulator.authority, fmspc=b"OTHER!")
    )
    source.make = lambda now: other.collateral(now=now)

    found = cache.collateral(other.quote(bytes(64)), now=NOW)

    assert read_facts(found).kind.fmspc == b"OTHER!".hex().upper()
    assert read_facts(cache.collateral(quote, now=NOW)).kind.fmspc == b"SIM\0\0\0".hex().upper()
    assert source.asked == 2


def test_a_folder_that_can_not_be_written_costs_the_cache_alone(
    source: ScriptedSource, simulator: Simulator, quote: bytes, alarms: list[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    cache = CachedCollateral(
        source,
        tmp_path / "cache",
        roots=[simulator.root_certificate],
        on_alarm=lambda code, _: alarms.append(code),
    )

    assert read_facts(cache.collateral(quote, now=NOW)).issued_at == NOW
    assert alarms == ["CollateralNotKept"]


def test_a_write_that_fails_half_way_leaves_what_was_there(
    cache: CachedCollateral, quote: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.collateral(quote, now=NOW)
    (path,) = (tmp_path / "cache").iterdir()
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    cache.newest(quote, now=NOW + HOUR)

    assert [*(tmp_path / "cache").iterdir()] == [path]
    assert path.read_bytes() == before


def test_what_is_no_quote_is_bad_input(cache: CachedCollateral, source: ScriptedSource) -> None:
    for ask in (cache.collateral, cache.newest, cache.held):
        with pytest.raises(EncodingError):
            ask(b"no quote", now=NOW)
    assert source.asked == 0


def test_alarms_are_logged_where_nobody_else_hears_them(
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = CachedCollateral(source, tmp_path / "cache", roots=[simulator.root_certificate])
    cache.collateral(quote, now=NOW)
    source.is_away = True

    cache.newest(quote, now=NOW)

    assert "ALARM: CollateralSourceAway" in caplog.text


# What must not go back.


@pytest.mark.parametrize("is_confirmed", [True, False])
@pytest.mark.parametrize("which", ["pck_crl", "root_ca_crl"])
def test_an_older_list_is_refused_and_told(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
    is_confirmed: bool,
    which: str,
) -> None:
    """Of the same evaluation: else a machine that was revoked is trusted again."""
    before = simulator.collateral(now=NOW - 2 * DAY)
    source.make = lambda now: simulator.collateral(now=now, is_revoked=True)
    held = confirmed(cache, quote) if is_confirmed else cache.newest(quote, now=NOW)
    source.make = lambda now: replace(
        simulator.collateral(now=now, is_revoked=True), **{which: getattr(before, which)}
    )

    found = cache.newest(quote, now=NOW + DAY)

    assert (found, revoked(found)) == (held, 1)
    entry = cache.held(quote, now=NOW + DAY)
    assert entry is not None
    assert entry.collateral == held
    assert alarms == ["CollateralWentBack", "CollateralSourceAway"]


def test_an_older_list_is_refused_once_what_was_held_has_ended(
    cache: CachedCollateral, source: ScriptedSource, simulator: Simulator, quote: bytes
) -> None:
    before = simulator.collateral(now=NOW - 2 * DAY)
    source.make = lambda now: simulator.collateral(now=now, is_revoked=True, valid_for=DAY)
    cache.newest(quote, now=NOW)
    source.make = lambda _: before

    with pytest.raises(CollateralUnavailableError, match="older list"):
        cache.newest(quote, now=NOW + 2 * DAY)


def test_an_older_date_of_the_same_number_leaves_the_newer_document_and_nobody_is_alarmed(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
) -> None:
    """A source of several machines gives parts of different ages; its list is the newest there."""
    held = confirmed(cache, quote)
    before = simulator.collateral(now=NOW - 2 * DAY)

    def make(now: int) -> Collateral:
        return replace(
            simulator.collateral(now=now),
            tcb_info=before.tcb_info,
            tcb_info_signature=before.tcb_info_signature,
        )

    source.make = make
    found = cache.newest(quote, now=NOW + DAY)

    assert (found.tcb_info, found.tcb_info_signature) == (held.tcb_info, held.tcb_info_signature)
    assert read_facts(found).dated == (NOW, NOW + DAY)
    assert read_facts(found).listed == (NOW + DAY, NOW + DAY)
    assert cache.collateral(quote, now=NOW + DAY) == found
    assert alarms == []


def test_an_older_document_serves_where_the_newer_one_has_ended(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
) -> None:
    source.make = lambda now: simulator.collateral(now=now, valid_for=DAY)
    confirmed(cache, quote)
    before = simulator.collateral(now=NOW - 2 * DAY)

    def make(now: int) -> Collateral:
        return replace(
            simulator.collateral(now=now),
            tcb_info=before.tcb_info,
            tcb_info_signature=before.tcb_info_signature,
        )

    source.make = make

    assert read_facts(cache.newest(quote, now=NOW + 2 * DAY)).dated[0] == NOW - 2 * DAY
    assert alarms == []


@pytest.mark.parametrize("which", ["tcb_info", "qe_identity"])
def test_neither_documents_number_goes_back(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
    which: str,
) -> None:
    newer = simulator.tcb_recovery(now=NOW - DAY)
    parts = (which, f"{which}_signature")

    def mixed(now: int) -> Collateral:
        """One document of the newer evaluation, all else of the older one."""
        good = newer.collateral(now=now)
        return replace(
            simulator.collateral(now=now), **{part: getattr(good, part) for part in parts}
        )

    source.make = mixed
    held = confirmed(cache, quote)
    assert read_facts(held).evaluation_number == 20
    source.make = lambda now: simulator.collateral(now=now)

    assert cache.newest(quote, now=NOW + HOUR) == held
    assert alarms == ["CollateralWentBack", "CollateralSourceAway"]


def test_what_another_process_keeps_meanwhile_is_not_overwritten(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks at what is held once nobody else can replace it."""
    confirmed(cache, quote)
    newer = simulator.collateral(now=NOW + 2 * HOUR, is_revoked=True)
    other = CachedCollateral(
        ScriptedSource(lambda _: newer), tmp_path / "cache", roots=[simulator.root_certificate]
    )
    lock, is_waiting = fcntl.flock, [True]

    def wait_for_the_other(descriptor: int, how: int) -> None:
        if is_waiting.pop():
            is_waiting.append(False)
            other.newest(quote, now=NOW + 3 * HOUR)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", wait_for_the_other)
    source.make = lambda _: simulator.collateral(now=NOW + HOUR)

    assert cache.newest(quote, now=NOW + 3 * HOUR) == newer

    held = cache.held(quote, now=NOW + 3 * HOUR)
    assert held is not None
    assert held.collateral == newer


# Evaluations that are not in effect yet.


def test_one_early_answer_does_not_shut_out_the_honest_source(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
) -> None:
    ahead = simulator.tcb_recovery(now=NOW - DAY, effective_at=NOW + 300 * DAY)
    source.make = lambda now: ahead.collateral(now=now)
    confirmed(cache, quote)
    source.make = lambda now: ahead.collateral(now=now, early=True)

    assert read_facts(cache.newest(quote, now=NOW + DAY)).evaluation_number == 21

    source.make = lambda now: ahead.collateral(now=now)
    for days in (2, 3, 40):
        found = cache.newest(quote, now=NOW + days * DAY)
        assert read_facts(found).evaluation_number == 20
    assert alarms == ["CollateralWentBack"]


def test_one_early_answer_as_the_very_first_does_not_either(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
) -> None:
    ahead = simulator.tcb_recovery(now=NOW - DAY, effective_at=NOW + 300 * DAY)
    source.make = lambda now: ahead.collateral(now=now, early=True)
    cache.newest(quote, now=NOW)
    source.make = lambda now: ahead.collateral(now=now)

    assert read_facts(cache.newest(quote, now=NOW + HOUR)).evaluation_number == 20
    assert alarms == ["CollateralWentBack"]


@pytest.mark.parametrize(("later", "is_refused"), [(HOUR - 1, False), (HOUR, True)])
def test_a_number_that_came_twice_an_hour_apart_holds(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    later: int,
    is_refused: bool,
) -> None:
    confirmed(cache, quote)
    newer = simulator.tcb_recovery(now=NOW)
    source.make = lambda now: newer.collateral(now=now)
    for at in (DAY, DAY + later // 2, DAY + later):
        cache.newest(quote, now=NOW + at)
    source.make = lambda now: simulator.collateral(now=now)

    found = cache.newest(quote, now=NOW + 2 * DAY)

    assert read_facts(found).evaluation_number == (21 if is_refused else 20)


def test_a_number_that_came_once_is_asked_for_again_after_an_hour(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes
) -> None:
    cache.collateral(quote, now=NOW)

    cache.collateral(quote, now=NOW + HOUR - 1)
    assert source.asked == 1
    cache.collateral(quote, now=NOW + HOUR)
    assert source.asked == 2
    cache.collateral(quote, now=NOW + DAY)
    assert source.asked == 2


def test_a_file_of_before_there_was_this_rule_is_confirmed(
    cache: CachedCollateral, source: ScriptedSource, quote: bytes, tmp_path: Path
) -> None:
    kept = confirmed(cache, quote)
    (path,) = (tmp_path / "cache").iterdir()
    document = json.loads(path.read_text())
    del document["seen_at"]
    path.write_text(json.dumps(document))
    asked = source.asked

    assert cache.collateral(quote, now=NOW + DAY) == kept
    assert source.asked == asked


# Another's folder, and what is forgotten.


def test_a_reader_goes_by_what_is_remembered_and_changes_nothing(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
    tmp_path: Path,
) -> None:
    newer = simulator.tcb_recovery(now=NOW - DAY)
    source.make = lambda now: newer.collateral(now=now)
    held = confirmed(cache, quote)
    reader = CachedCollateral(
        source,
        tmp_path / "cache",
        roots=[simulator.root_certificate],
        on_alarm=lambda code, _: alarms.append(code),
        is_read_only=True,
    )
    (path,) = (tmp_path / "cache").iterdir()
    before = path.read_bytes()

    assert read_facts(reader.newest(quote, now=NOW + DAY)).issued_at == NOW + DAY
    source.make = lambda now: simulator.collateral(now=now)
    assert reader.newest(quote, now=NOW + DAY) == held

    assert alarms == ["CollateralWentBack", "CollateralSourceAway"]
    assert [*(tmp_path / "cache").iterdir()] == [path]
    assert path.read_bytes() == before


def test_what_is_forgotten_is_remembered_no_more(
    cache: CachedCollateral,
    source: ScriptedSource,
    simulator: Simulator,
    quote: bytes,
    alarms: list[str],
    tmp_path: Path,
) -> None:
    newer = simulator.tcb_recovery(now=NOW - DAY)
    confirmed(cache, quote, now=NOW - 2 * DAY)
    source.make = lambda now: newer.collateral(now=now)
    cache.newest(quote, now=NOW)
    other = tmp_path / "cache" / "of somebody else.json"
    other.touch()

    assert len(forget_collateral(tmp_path / "cache")) == 2

    assert [*(tmp_path / "cache").iterdir()] == [other]
    assert cache.held(quote, now=NOW) is None
    source.make = lambda now: simulator.collateral(now=now)
    assert read_facts(cache.newest(quote, now=NOW)).evaluation_number == 20
    assert alarms == []


# What the library of certificates refuses in its own way.


def _of_another_version(chain: str) -> str:
    leaf, root = x509.load_pem_x509_certificates(chain.encode())
    der = leaf.public_bytes(Encoding.DER)
    odd = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1)
    assert odd != der
    text = base64.encodebytes(odd).decode()
    return (
        f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
        + root.public_bytes(Encoding.PEM).decode()
    )


def _list_of_another_version(listed: bytes) -> bytes:
    odd = listed.replace(b"\x02\x01\x01", b"\x02\x01\x05", 1)
    assert odd != listed
    return odd


@pytest.mark.parametrize(
    "which",
    [
        *("root_ca_crl", "pck_crl"),
        *("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"),
    ],
)
def test_certificates_and_lists_of_a_version_that_there_is_not_are_refused(
    cache: CachedCollateral, source: ScriptedSource, simulator: Simulator, quote: bytes, which: str
) -> None:
    held = confirmed(cache, quote)
    good = simulator.collateral(now=NOW)
    part = getattr(good, which)
    odd = _of_another_version if isinstance(part, str) else _list_of_another_version
    changes: dict[str, Any] = {which: odd(part)}
    bad = replace(good, **changes)
    source.make = lambda _: bad

    assert cache.newest(quote, now=NOW + HOUR) == held
    assert not is_signed(bad, [simulator.root_certificate])
    with pytest.raises(EncodingError):
        read_facts(bad)
