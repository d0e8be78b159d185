"""Whose turn it is: order, room, pauses, rounds, and fairness."""

from itertools import permutations

from orchestrator.journal import JobRecord, JobState
from orchestrator.service.backlog import FIRST_ROOM, Backlog, Backoff, OpenJob

BACKOFF = Backoff(first=1.0, most=60.0)


def make_backlog(room: int = 2, workers: tuple[int, ...] = (1, 2)) -> Backlog:
    backlog = Backlog(backoff=BACKOFF, places=1_000)
    for worker in workers:
        backlog.set_room(worker, room)
    return backlog


def make_job(job_id: int, *workers: int, owner: bytes = b"o") -> OpenJob:
    return OpenJob(
        record=JobRecord(
            job_id=job_id,
            owner=owner,
            payload_hash=b"",
            workers=workers,
            created_at=0,
            deadline=0,
            size=0,
            state=JobState.ADMITTED,
            seen_at=0,
            updated_at=0,
        )
    )


def take(backlog: Backlog, now: float = 0.0) -> tuple[int, int | None] | None:
    turn = backlog.pop(now=now)
    if turn is None:
        return None
    if turn.worker is not None:
        backlog.enter(turn.job, turn.worker)
    return (turn.job.job_id, turn.worker)


def test_jobs_go_to_the_first_worker_with_room() -> None:
    backlog = make_backlog(room=1)
    for number in range(3):
        backlog.put(make_job(number, 2, 1), now=0)

    assert [take(backlog) for _ in range(3)] == [(0, 2), (1, 1), None]


def test_room_is_free_again_when_a_job_leaves() -> None:
    backlog = make_backlog(room=1)
    first, second = make_job(1, 1), make_job(2, 1)
    backlog.put(first, now=0)
    backlog.put(second, now=0)
    assert take(backlog) == (1, 1)
    assert take(backlog) is None

    backlog.leave(first)
    backlog.leave(first)

    assert take(backlog) == (2, 1)
    assert take(backlog) is None


def test_worker_that_said_nothing_gets_a_few() -> None:
    backlog = Backlog(backoff=BACKOFF, places=1_000)
    for number in range(10):
        backlog.put(make_job(number, 7), now=0)

    taken = [take(backlog) for _ in range(10)]

    assert taken.count(None) == 10 - FIRST_ROOM


def test_owners_take_turns() -> None:
    backlog = make_backlog(room=100)
    for number in range(5):
        backlog.put(make_job(number, 1, owner=b"many"), now=0)
    backlog.put(make_job(9, 1, owner=b"one"), now=0)

    order = [take(backlog) for _ in range(6)]

    assert order.index((9, 1)) == 1


def test_owner_gets_no_more_turns_by_naming_workers_in_many_ways() -> None:
    backlog = make_backlog(room=1_000, workers=(1, 2, 3))
    lists = [chosen for length in (1, 2, 3) for chosen in permutations((1, 2, 3), length)]
    for number in range(10 * len(lists)):
        backlog.put(make_job(number, *lists[number % len(lists)], owner=b"many"), now=0)
    for number in range(1_000, 1_020):
        backlog.put(make_job(number, 2, 1, owner=b"one"), now=0)

    order = [take(backlog) for _ in range(40)]

    assert sum(turn is not None and turn[0] >= 1_000 for turn in order) == 20


def test_owners_jobs_are_taken_in_their_order_whatever_workers_they_name() -> None:
    backlog = make_backlog(room=100, workers=(1, 2, 3))
    workers = [(1, 2), (3,), (2, 3), (2,), (3, 1)]
    for number, named in enumerate(workers):
        backlog.put(make_job(number, *named), now=0)

    assert [take(backlog) for _ in workers] == [(0, 1), (1, 3), (2, 2), (3, 2), (4, 3)]


def test_workers_have_equal_shares_of_the_places() -> None:
    backlog = Backlog(backoff=BACKOFF, places=6)
    for worker in (1, 2, 3):
        backlog.set_room(worker, 100)
        for number in range(5):
            backlog.put(make_job(10 * worker + number, worker), now=0)

    taken = []
    while (turn := take(backlog)) is not None:
        taken.append(turn[1])

    assert sorted(map(str, taken)) == ["1", "1", "2", "2", "3", "3"]
    assert backlog.at_workers == 6


def test_worker_always_has_a_place() -> None:
    backlog = Backlog(backoff=BACKOFF, places=2)
    for worker in (1, 2, 3):
        backlog.set_room(worker, 100)
        backlog.put(make_job(worker, worker), now=0)

    assert {take(backlog) for _ in range(3)} == {(1, 1), (2, 2), (3, 3)}


def test_job_that_left_one_queue_has_left_all() -> None:
    """Or jobs that nobody waits for any more would stay in memory behind a worker that is full."""
    backlog = make_backlog(room=100, workers=(1,))
    backlog.set_room(2, 1)
    backlog.put(make_job(99, 2), now=0)
    assert take(backlog) == (99, 2)
    for number in range(5):
        backlog.put(make_job(number, 1, 2), now=0)

    assert [take(backlog) for _ in range(5)] == [(number, 1) for number in range(5)]
    assert backlog._owners == {}


def test_jobs_for_a_worker_that_is_full_do_not_hold_up_others() -> None:
    backlog = make_backlog(room=1)
    for number in range(5):
        backlog.put(make_job(number, 1), now=0)
    backlog.put(make_job(9, 2), now=0)

    assert {take(backlog), take(backlog)} == {(0, 1), (9, 2)}
    assert take(backlog) is None


def test_paused_worker_is_left_alone_and_then_asked_again() -> None:
    backlog = make_backlog()
    backlog.put(make_job(1, 1), now=0)
    backlog.pause(1, now=0, seconds=5)

    assert take(backlog, now=4.9) is None
    assert backlog.next_wake(now=1) == 5
    assert take(backlog, now=5) == (1, 1)


def test_pauses_grow_with_failures_in_a_row_and_end_with_a_success() -> None:
    backlog = make_backlog()
    backlog.put(make_job(1, 1), now=0)
    now, pauses = 0.0, []
    for _ in range(4):
        backlog.pause(1, now=now)
        wake_at = backlog.next_wake(now=now)
        assert wake_at is not None
        pauses.append(wake_at - now)
        now = wake_at

    assert pauses[3] > 2 * pauses[1] > 2 * pauses[0] * 0.9
    backlog.succeeded(1)
    backlog.pause(1, now=now)
    assert (backlog.next_wake(now=now) or 0) - now < 1.3


def test_failures_at_the_same_moment_are_one() -> None:
    backlog = make_backlog()
    backlog.put(make_job(1, 1), now=0)
    for _ in range(50):
        backlog.pause(1, now=0)

    assert (backlog.next_wake(now=0) or 99) < 1.3


def test_worker_can_not_ask_for_a_pause_without_end() -> None:
    backlog = make_backlog()
    backlog.put(make_job(1, 1), now=0)
    backlog.pause(1, now=0, seconds=1e9)

    assert backlog.next_wake(now=0) == 60


def test_job_tried_everywhere_rests_and_is_looked_up_on_the_chain_first() -> None:
    backlog = make_backlog()
    job = make_job(1, 1, 2)
    job.tried = {1, 2}
    backlog.put(job, now=0)

    assert job.is_resting
    assert take(backlog) is None
    assert take(backlog, now=2) == (1, None)
    assert job.tried == set()


def test_rests_grow_up_to_a_limit() -> None:
    delays = [BACKOFF.delay(n) for n in (1, 3, 5, 100)]

    assert 0.75 <= delays[0] <= 1.25
    assert 3 <= delays[1] <= 5
    assert 12 <= delays[2] <= 20
    assert 45 <= delays[3] <= 75


def test_failed_worker_is_never_asked_again() -> None:
    job = make_job(1, 1, 2)
    job.failed = {1}

    assert job.candidates() == (2,)


def test_attested_job_has_one_worker() -> None:
    job = make_job(1, 1, 2)
    job.attested_by = 2
    job.tried = {2}

    assert job.candidates() == (2,)


def test_job_put_twice_has_one_place() -> None:
    backlog = make_backlog(room=10)
    job = make_job(1, 1)
    backlog.put(job, now=0)
    job.needs_review = True
    backlog.put(job, now=0)
    backlog.put(make_job(2, 1), now=0)

    taken = [take(backlog) for _ in range(3)]

    assert sorted(map(str, taken)) == sorted(["(1, None)", "(2, 1)", "None"])


def test_delayed_job_that_was_hurried_comes_once() -> None:
    backlog = make_backlog()
    job = make_job(1, 1)
    backlog.delay(job, 10.0)
    assert backlog.next_wake(now=0) == 10
    backlog.put(job, now=0)

    assert take(backlog, now=0) == (1, 1)
    assert take(backlog, now=11) is None


def test_nothing_to_do_needs_no_waking() -> None:
    assert make_backlog().next_wake(now=0) is None
