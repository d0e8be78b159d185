"""
An orchestrator is killed before and after each of its steps; what is on the chain stays right.

The cases are made from the enumeration of steps. What was lost or done twice is counted from the
chain alone: each job's status, and the `JobProcessed` events and recorded statements.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.chain import Cursor
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import ContractEvent, JobProcessor
from orchestrator.crypto import EcdsaSigner, OwnerSecret, seal_job
from orchestrator.encoding import encode_task_input
from orchestrator.http_server import Listen, serve
from orchestrator.models import (
    JobId,
    JobOptions,
    JobStatus,
    Parameters,
    Role,
    TaskInput,
    WorkerId,
    WorkerRegistration,
    WorkerStatus,
)
from orchestrator.service import Moment, Step
from orchestrator.testing import LocalAccount, deploy_processor, register_test_worker
from orchestrator.testing.scripted_http import scripted_app
from orchestrator.testing.workers import Behaviour, ScriptedWorker
from orchestrator.worker import TokenList, TokenScope
from orchestrator.workers.http import HttpWorkerClient

PROGRAMS = Path(__file__).parent
ADMIN = LocalAccount.named("admin")
OWNER = LocalAccount.named("owner")
MEASUREMENT = b"m" * 32
SECRET_INPUT = b"the patient is called Ada"
SHORT_TTL = 10_000  # the contract's least


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Matrix:
    """A chain file, two worker processes, scripted workers in a thread, and the killing program."""

    folder: Path
    chain: EmbeddedChain
    processor: JobProcessor
    program: "subprocess.Popen[str]"
    loop: asyncio.AbstractEventLoop
    stack: ExitStack
    tokens: dict[str, str] = field(default_factory=dict)
    real: list[WorkerId] = field(default_factory=list)
    scripted: dict[WorkerId, ScriptedWorker] = field(default_factory=dict)
    secret: OwnerSecret = field(default_factory=OwnerSecret.generate)
    expiring: dict[Moment, JobId] = field(default_factory=dict)
    expected: dict[JobId, JobStatus] = field(default_factory=dict)
    kills: int = 0
    recovered: int = 0

    # What there is.

    def add_scripted(self, behaviour: Behaviour) -> WorkerId:
        scripted = ScriptedWorker(
            signer=EcdsaSigner.generate(),
            measurement=MEASUREMENT,
            clock=wall_clock,
            behaviour=behaviour,
        )
        url = self._serve(scripted)
        worker = register_test_worker(
            self.chain,
            self.processor,
            scripted.signer,
            registrar=ADMIN,
            measurement=MEASUREMENT,
            encryption_key=scripted.encryption_key.public_key,
            endpoint=url.encode(),
        )
        self.scripted[worker] = scripted
        return worker

    def _serve(self, scripted: ScriptedWorker) -> str:
        ready: Future = Future()
        stop = asyncio.Event()
        serving = asyncio.run_coroutine_threadsafe(
            serve(scripted_app(scripted), Listen(), stop=stop, ready=ready.set), self.loop
        )
        self.stack.callback(serving.result, 10)
        self.stack.callback(self.loop.call_soon_threadsafe, stop.set)
        return ready.get()

    def submit(
        self, *workers: WorkerId, ttl: int = 3_600_000, owner: LocalAccount = OWNER
    ) -> JobId:
        found = [self.chain.read(self.processor.get_worker(worker)) for worker in workers]
        sealed = seal_job(
            encode_task_input(TaskInput(task="echo", input=SECRET_INPUT)),
            genesis=self.chain.genesis_hash,
            contract=self.processor.contract,
            owner=owner.account_id,
            secret=self.secret,
            recipients=[worker.encryption_key for worker in found if worker],
        )
        call = self.processor.submit_confidential_job(
            sealed.envelope, sealed.header.reply_key, JobOptions(workers=workers, ttl=ttl)
        )
        job_id = self.chain.call(call, signer=owner).value
        self.expected[job_id] = JobStatus.PROCESSED
        return job_id

    # What is run.

    def run(
        self,
        *,
        die: tuple[Step, Moment, int] | None = None,
        journal: str = "journal",
        account: str = "orchestrator",
        owner: str = "owner",
        jobs_per_day: int = 1_000_000,
        seconds: float = 20,
    ) -> int:
        case = {
            "folder": str(self.folder),
            "contract": self.processor.contract.hex(),
            "tokens": self.tokens,
            "journal": journal,
            "account": account,
            "owner": owner,
            "jobs_per_day": jobs_per_day,
            "seconds": seconds,
            "die": [die[0].name, die[1].value, die[2]] if die else None,
        }
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(json.dumps(case) + "\n")
        self.program.stdin.flush()
        return int(self.program.stdout.readline())

    def kill(
        self,
        step: Step,
        moment: Moment,
        *,
        skip: int = 0,
        journal: str = "journal",
        account: str = "orchestrator",
        owner: str = "owner",
    ) -> None:
        """Let one die at the step, and another one finish."""
        code = self.run(die=(step, moment, skip), journal=journal, account=account, owner=owner)
        assert code == -signal.SIGKILL, f"{step.name} {moment.value} was never reached"
        self.kills += 1
        assert self.run(journal=journal, account=account, owner=owner) == 0

    # What is on the chain.

    def status(self, job_id: JobId) -> JobStatus | None:
        job = self.chain.read(self.processor.get_job(job_id))
        return None if job is None else job.status

    def count(self, name: str) -> Counter[int]:
        """How many events of the name there are about each job."""
        return _by_job(event.fields for event in self._events() if event.name == name)

    def count_statements(self) -> Counter[int]:
        """How many statements about each job the events hold."""
        return _by_job(event.statement for event in self._events() if event.statement is not None)

    def _events(self) -> list[ContractEvent]:
        page = self.chain.events(
            self.processor.contract, after=Cursor(block=0, index=-1), limit=100_000
        )
        return [self.processor.decode_event(raw) for raw in page.events]

    def lost(self) -> list[JobId]:
        return [job for job, status in self.expected.items() if self.status(job) is not status]

    def duplicated(self) -> list[JobId]:
        processed = self.count("JobProcessed")
        return [job for job, times in processed.items() if times != 1]


class Future:
    """A value from another thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._value = ""

    def set(self, value: str) -> None:
        self._value = value
        self._event.set()

    def get(self) -> str:
        assert self._event.wait(20)
        return self._value


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """One of the programs beside this file."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROGRAMS.parents[1])},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def add_real_worker(matrix: Matrix, name: str) -> None:
    """Start a worker process and register it, as a registrar does."""
    folder = matrix.folder / name
    folder.mkdir(mode=0o700)
    token = TokenList(folder).add("all", TokenScope.JOBS, now=0)
    registering = TokenList(folder).add("registrar", TokenScope.REGISTRATION, now=0)
    arguments = (f"local:{matrix.folder / 'chain.db'}", matrix.processor.contract.hex())
    process = matrix.stack.enter_context(
        program(str(PROGRAMS / "worker_program.py"), str(folder), *arguments)
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()

    async def register() -> WorkerId:
        client = HttpWorkerClient(url, registering)
        identity = await client.identity()
        registration = WorkerRegistration(
            signing_key=identity.signing_key,
            encryption_key=identity.encryption_key,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            endpoint=url.encode(),
            valid_until=wall_clock() + 86_400_000,
        )
        possession = await client.registration(
            genesis=matrix.chain.genesis_hash,
            contract=matrix.processor.contract,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            valid_until=registration.valid_until,
        )
        await client.close()
        call = matrix.processor.register_worker(registration, possession)
        return matrix.chain.call(call, signer=ADMIN).value

    worker = asyncio.run(register())
    matrix.tokens[str(worker)] = token
    matrix.real.append(worker)


@pytest.fixture
def matrix(tmp_path: Path) -> Iterator[Matrix]:
    with ExitStack() as stack:
        chain = EmbeddedChain(tmp_path / "chain.db")
        stack.callback(chain.close)
        processor = deploy_processor(
            chain,
            admin=ADMIN,
            parameters=Parameters(max_attestation_age=10_000, min_ttl=SHORT_TTL, rate_limit=1_000),
            measurement=MEASUREMENT,
        )
        operator = LocalAccount.named("orchestrator").account_id
        for role in (Role.OPERATOR, Role.GUARDIAN):
            chain.call(processor.grant_role(operator, role), signer=ADMIN)
        matrix = Matrix(
            folder=tmp_path,
            chain=chain,
            processor=processor,
            program=stack.enter_context(program(str(PROGRAMS / "kill_program.py"))),
            loop=stack.enter_context(event_loop()),
            stack=stack,
        )
        for name in ("worker-1", "worker-2"):
            add_real_worker(matrix, name)
        yield matrix


# One scenario per step: it makes the jobs that lead there, and has an orchestrator killed.

Scenario = Callable[[Matrix, Step, Moment], None]


def whole_jobs(matrix: Matrix, step: Step, moment: Moment) -> None:
    for _ in range(2):
        matrix.submit(*matrix.real)
    matrix.kill(step, moment)


def later_in_the_group(matrix: Matrix, step: Step, moment: Moment) -> None:
    """The same, when one of several jobs has passed the step already."""
    for _ in range(3):
        matrix.submit(*matrix.real)
    matrix.kill(step, moment, skip=1)


def one_by_one(matrix: Matrix, step: Step, moment: Moment) -> None:
    matrix.submit(*matrix.real)
    matrix.kill(step, moment, journal="owner", account="owner")


def left_to_others_to_mark(matrix: Matrix, step: Step, moment: Moment) -> None:
    """Whoever has no role records; then one who has it marks."""
    matrix.submit(*matrix.real)
    matrix.kill(step, moment, journal="stranger", account="stranger")
    assert matrix.run() == 0


def expired(matrix: Matrix, step: Step, moment: Moment) -> None:
    job_id = matrix.expiring[moment]
    job = matrix.chain.read(matrix.processor.get_job(job_id))
    assert job is not None
    while wall_clock() <= job.deadline:
        time.sleep(0.05)
    matrix.expected[job_id] = JobStatus.EXPIRED
    matrix.kill(step, moment, journal=f"expiry-{moment.value}", owner=moment.value)


def cancelled(matrix: Matrix, step: Step, moment: Moment) -> None:
    worker = matrix.add_scripted(Behaviour.NEVER)
    job_id = matrix.submit(worker)
    assert matrix.run(die=(Step.AWAIT_OUTCOME, Moment.BEFORE, 0)) == -signal.SIGKILL
    assert matrix.scripted[worker].puts == [job_id]
    matrix.chain.call(matrix.processor.cancel_job(job_id), signer=OWNER)
    matrix.expected[job_id] = JobStatus.CANCELLED
    matrix.kill(step, moment)
    assert job_id in matrix.scripted[worker].deleted


def refused(matrix: Matrix, step: Step, moment: Moment) -> None:
    bad = matrix.add_scripted(Behaviour.BAD_SIGNATURE)
    matrix.submit(bad, matrix.real[0])
    matrix.kill(step, moment)


def two_results(matrix: Matrix, step: Step, moment: Moment) -> None:
    bad = matrix.add_scripted(Behaviour.TWO_RESULTS)
    matrix.submit(bad, matrix.real[0])
    matrix.kill(step, moment)
    worker = matrix.chain.read(matrix.processor.get_worker(bad))
    assert worker is not None
    assert worker.status is WorkerStatus.SUSPENDED


def deferred(matrix: Matrix, step: Step, moment: Moment) -> None:
    journal = f"deferred-{moment.value}"
    for _ in range(2):
        matrix.submit(*matrix.real)
    assert matrix.run(journal=journal, jobs_per_day=1) == 0
    matrix.kill(step, moment, journal=journal)


SCENARIOS: dict[Step, Scenario] = {
    Step.WRITE_PAGE: whole_jobs,
    Step.WRITE_READMITTED: deferred,
    Step.WRITE_DISPATCH: later_in_the_group,
    Step.PUT_JOB: later_in_the_group,
    Step.AWAIT_OUTCOME: later_in_the_group,
    Step.WRITE_STATEMENT: later_in_the_group,
    Step.FETCH_RESULT: later_in_the_group,
    Step.STORE_RESULT: later_in_the_group,
    Step.COMPLETE_JOBS: whole_jobs,
    Step.RECORD_ATTESTATION: one_by_one,
    Step.MARK_PROCESSED: one_by_one,
    Step.READ_BACK: whole_jobs,
    Step.WRITE_ATTESTED: left_to_others_to_mark,
    Step.EXPIRE_JOB: expired,
    Step.DELETE_AT_WORKER: cancelled,
    Step.WRITE_CLOSED: later_in_the_group,
    Step.WRITE_REFUSAL: refused,
    Step.WRITE_DISTRUST: two_results,
    Step.SUSPEND_WORKER: two_results,
    Step.WRITE_SUSPENDED: two_results,
    Step.DELETE_RESULTS: whole_jobs,
    Step.PRUNE_JOURNAL: whole_jobs,
}
# Expiring jobs are made first and looked at last, when their time has come.
ORDER = sorted(Step, key=lambda step: step is Step.EXPIRE_JOB)


def test_every_step_has_a_case() -> None:
    assert set(SCENARIOS) == set(Step)


def test_jobs_survive_a_kill_at_every_step(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    away = matrix.add_scripted(Behaviour.UNAVAILABLE)
    for moment in Moment:
        # Owners of their own: their jobs are admitted when the time has come.
        job_id = matrix.submit(away, ttl=SHORT_TTL, owner=LocalAccount.named(moment.value))
        del matrix.expected[job_id]
        matrix.expiring[moment] = job_id
    for step in ORDER:
        for moment in Moment:
            SCENARIOS[step](matrix, step, moment)
            still_lost = matrix.lost()
            matrix.recovered += not still_lost
            print(f"{step.name:<20} {moment.value:<7} lost {still_lost}")
    lost, duplicated = matrix.lost(), matrix.duplicated()
    with capsys.disabled():  # shown by every run, also when it passes
        print(
            f"\nkill matrix: kills {matrix.kills}, recovered {matrix.recovered}, "
            f"lost {len(lost)}, duplicated {len(duplicated)}"
        )
    assert matrix.kills == len(Step) * len(Moment)
    assert lost == []
    assert duplicated == []
    assert all(times == 1 for times in matrix.count_statements().values())
    assert matrix.count("JobExpired").total() == len(matrix.expiring)
    assert_no_plaintext(matrix.folder)


def _by_job(told: Iterable[Mapping[str, object]]) -> Counter[int]:
    return Counter(int(str(fields["job_id"])) for fields in told)


def assert_no_plaintext(folder: Path) -> None:
    """What the jobs say is in no file that an orchestrator, a chain or a worker has written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert SECRET_INPUT not in path.read_bytes(), path
    for path in folder.glob("*.db"):
        if path.name != "chain.db":
            assert path.stat().st_mode & 0o077 == 0, path
