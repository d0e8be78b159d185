"""Limits on what is spent hold before anything is sent, between processes, and when in doubt."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.chain import Cost
from orchestrator.chain.spending import SpendingLimits
from orchestrator.errors import SpendingLimitError

DAY_MS = 86_400_000
NOON = 20_000 * DAY_MS + DAY_MS // 2
BEYOND_INT64 = 1 << 100


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cost(fee: int, deposit: int = 0) -> Cost:
    return Cost(fee=fee, deposit=deposit, ref_time=1, proof_size=1)


def limits(
    folder: Path, clock: Clock, *, per_call: int | None = None, per_day: int | None = None
) -> SpendingLimits:
    return SpendingLimits(
        per_call=per_call, per_day=per_day, ledger_file=folder / "spending.json", clock=clock
    )


def test_a_fee_at_the_limit_per_call_passes_and_one_above_does_not(
    tmp_path: Path, clock: Clock
) -> None:
    spending = limits(tmp_path, clock, per_call=10)

    spending.reserve(cost(10, deposit=1_000))

    with pytest.raises(SpendingLimitError, match="max_fee_per_call allows 10"):
        spending.reserve(cost(11))


def test_the_limit_per_call_is_for_each_call_of_a_batch(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_call=10)

    spending.reserve(cost(30), calls=3)

    with pytest.raises(SpendingLimitError, match="for each of 3 calls"):
        spending.reserve(cost(31), calls=3)


def test_fees_and_deposits_add_up_to_the_limit_per_day(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_day=100)
    spending.reserve(cost(10, deposit=50))
    spending.reserve(cost(40))

    with pytest.raises(SpendingLimitError, match="100 are spent on"):
        spending.reserve(cost(1))

    assert spending.spent_today() == 100


def test_a_refused_reservation_counts_nothing(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_call=1_000, per_day=100)

    with pytest.raises(SpendingLimitError):
        spending.reserve(cost(101))
    with pytest.raises(SpendingLimitError):
        spending.reserve(cost(1_001))

    assert spending.spent_today() == 0


def test_what_is_settled_replaces_what_was_reserved(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_day=100)
    reservation = spending.reserve(cost(60, deposit=40))

    reservation.settle(20, 40)

    assert spending.spent_today() == 60
    reservation.settle(0, 0)
    assert spending.spent_today() == 0


def test_settling_into_a_damaged_file_keeps_what_was_reserved(tmp_path: Path, clock: Clock) -> None:
    reservation = limits(tmp_path, clock, per_day=100).reserve(cost(60))
    (tmp_path / "spending.json").write_bytes(b"?")

    reservation.settle(1, 0)

    assert reservation.amount == 60


def test_a_returned_deposit_gives_nothing_back(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_day=100)
    spending.reserve(cost(50, deposit=40))

    reservation = spending.reserve(cost(10, deposit=-40))
    reservation.settle(5, -40)

    assert spending.spent_today() == 95


def test_what_is_never_settled_stays_spent_for_others(tmp_path: Path, clock: Clock) -> None:
    limits(tmp_path, clock, per_day=100).reserve(cost(100))

    with pytest.raises(SpendingLimitError):
        limits(tmp_path, clock, per_day=100).reserve(cost(1))


def test_the_next_day_begins_at_zero(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_day=100)
    late = spending.reserve(cost(100))
    clock.now += DAY_MS

    spending.reserve(cost(70))
    late.settle(0, 0)  # yesterday's: today's sum is not touched

    assert spending.spent_today() == 70


@pytest.mark.parametrize(("days", "is_named"), [(1, False), (2, True), (365, True)])
def test_a_day_far_ahead_of_the_clock_is_named_with_what_to_do(
    tmp_path: Path, clock: Clock, days: int, *, is_named: bool
) -> None:
    clock.now += days * DAY_MS
    limits(tmp_path, clock, per_day=100).reserve(cost(100))
    clock.now -= days * DAY_MS

    with pytest.raises(SpendingLimitError) as caught:
        limits(tmp_path, clock, per_day=100).reserve(cost(1))

    words = f"{days} days ahead of this machine's clock"
    assert (words in str(caught.value)) == is_named
    assert ("remove the file" in str(caught.value)) == is_named


def test_a_clock_that_is_set_back_frees_nothing(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_day=100)
    spending.reserve(cost(100))
    clock.now -= DAY_MS

    with pytest.raises(SpendingLimitError):
        spending.reserve(cost(1))


def test_amounts_beyond_any_machine_word_are_kept(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path, clock, per_day=BEYOND_INT64)

    spending.reserve(cost(BEYOND_INT64))

    assert spending.spent_today() == BEYOND_INT64


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"day": "2024-10-04", "spent": -5}',
        b'{"day": "2024-10-04", "spent": "-5"}',
        b'{"day": "2024-10-04", "spent": 5}',
        b'{"day": "soon", "spent": "5"}',
        b'{"day": 5, "spent": "5"}',
        b"\xff",
        b"[" * 4_000,
    ],
)
def test_a_damaged_file_refuses_and_stays_as_it_is(
    tmp_path: Path, clock: Clock, content: bytes
) -> None:
    file = tmp_path / "spending.json"
    file.write_bytes(content)

    with pytest.raises(SpendingLimitError, match="damaged"):
        limits(tmp_path, clock, per_day=100).reserve(cost(1))

    assert file.read_bytes() == content


def test_a_file_that_cannot_be_used_refuses(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "spending.json").mkdir()

    with pytest.raises(SpendingLimitError, match="can't be known"):
        limits(tmp_path, clock, per_day=100).reserve(cost(1))


def test_a_folder_that_cannot_be_made_refuses(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "occupied").write_bytes(b"")

    with pytest.raises(SpendingLimitError, match="can't be known"):
        limits(tmp_path / "occupied", clock, per_day=100).reserve(cost(1))


def test_without_a_limit_per_day_no_file_is_made(tmp_path: Path, clock: Clock) -> None:
    spending = limits(tmp_path / "new", clock, per_call=10)

    spending.reserve(cost(10, deposit=5)).settle(9, 5)

    assert spending.spent_today() == 0
    assert not (tmp_path / "new").exists()


def test_the_file_is_private(tmp_path: Path, clock: Clock) -> None:
    limits(tmp_path, clock, per_day=10).reserve(cost(1))

    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o600, 0o600]


def test_threads_that_reserve_at_once_stay_within_the_limit(tmp_path: Path, clock: Clock) -> None:
    def attempt(_: int) -> bool:
        try:
            limits(tmp_path, clock, per_day=10).reserve(cost(1))
        except SpendingLimitError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(attempt, range(40)))

    assert granted.count(True) == 10


PROCESS = """
import sys
from pathlib import Path
from orchestrator.chain import Cost
from orchestrator.chain.spending import SpendingLimits
from orchestrator.errors import SpendingLimitError
spending = SpendingLimits(
    per_call=None, per_day=50, ledger_file=Path(sys.argv[1]), clock=lambda: int(sys.argv[2])
)
granted = 0
for _ in range(30):
    try:
        spending.reserve(Cost(fee=1, deposit=0, ref_time=1, proof_size=1))
        granted += 1
    except SpendingLimitError:
        pass
print(granted)
"""


def test_processes_share_one_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "spending.json"), str(NOON)]

    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    granted = [int(process.communicate()[0]) for process in running]

    assert sum(granted) == 50
