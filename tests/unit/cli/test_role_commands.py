"""`worker run`, `worker token`, `workers register`, `orchestrator run` and `once`."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from orchestrator.cli.demo_children import Children, command_line, environment
from orchestrator.crypto import AccountKey
from orchestrator.encoding import to_ss58
from orchestrator.errors import JournalError
from orchestrator.service import Orchestrator
from orchestrator.simulator import create_simulator
from orchestrator.worker import TokenList, TokenScope

from .conftest import Ran, Run
from .world import MEASUREMENT, OPERATOR, World

Write = Callable[[str, str], Path]
SECONDS = 30


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def _meanwhile(
    url: str, what: Callable[[], None], *, verify: ssl.SSLContext | bool = True
) -> Iterator[list[BaseException]]:
    """Do *what* once *url* answers, then end this process's server as Ctrl-C does."""
    troubles: list[BaseException] = []

    def act() -> None:
        try:
            _wait_for(url, verify)
            what()
        except BaseException as error:  # noqa: BLE001  # told to the test, which is another thread
            troubles.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield troubles
    finally:
        thread.join()


def _wait_for(url: str, verify: ssl.SSLContext | bool) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url + "/healthz", trust_env=False, verify=verify)
            return
        time.sleep(0.02)
    raise TimeoutError(url)


class TestTokens:
    """`worker token add|list|revoke`."""

    def test_a_token_is_in_its_file_and_only_its_hash_in_the_list(
        self, run: Run, tmp_path: Path
    ) -> None:
        folder, file = tmp_path / "worker", tmp_path / "token"

        added = run("worker", "token", "add", "mine", "-o", file, "--folder", folder)
        listed = run("worker", "token", "list", "--folder", folder, "--json").document["tokens"]

        token = file.read_text().strip()
        assert added.exit_code == 0, added.stderr
        assert file.stat().st_mode & 0o777 == 0o600
        assert TokenList(folder).scope_of(token) is TokenScope.JOBS
        assert [(entry["name"], entry["scope"]) for entry in listed] == [("mine", "jobs")]
        assert token not in added.stdout + added.stderr
        assert all(token not in path.read_text() for path in folder.iterdir())

    def test_a_revoked_token_counts_no_more(self, run: Run, tmp_path: Path) -> None:
        folder, file = tmp_path / "worker", tmp_path / "token"
        run(
            *("worker", "token", "add", "mine", "--scope", "registration"),
            *("-o", file, "--folder", folder),
        )

        revoked = run("worker", "token", "revoke", "mine", "--folder", folder, "--json")
        again = run("worker", "token", "revoke", "mine", "--folder", folder)

        assert revoked.document == {"name": "mine", "revoked": True}
        assert again.exit_code == 2
        assert TokenList(folder).scope_of(file.read_text().strip()) is None

    def test_a_file_that_is_there_stops_everything(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("mine")

        ran = run("worker", "token", "add", "mine", "-o", file, "--folder", tmp_path / "worker")

        assert ran.exit_code == 2
        assert file.read_text() == "mine"
        assert not (tmp_path / "worker").exists()

    def test_a_token_that_could_not_be_written_does_not_count(
        self, run: Run, tmp_path: Path
    ) -> None:
        folder = tmp_path / "worker"

        ran = run(
            *("worker", "token", "add", "mine", "-o", tmp_path / "no" / "token"),
            *("--folder", folder),
        )

        assert ran.exit_code == 2
        assert TokenList(folder).entries() == ()

    def test_a_scope_that_is_none_is_bad_usage(self, run: Run, tmp_path: Path) -> None:
        ran = run("worker", "token", "add", "mine", "-o", tmp_path / "t", "--scope", "all")

        assert ran.exit_code == 2
        assert "scope: 'all'" in ran.stderr


class TestWorker:
    """`worker run`, and `workers register` at a running one."""

    def test_a_worker_is_registered_on_its_own_word(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        folder, url = tmp_path / "worker", f"http://127.0.0.1:{_free_port()}"
        right, wrong = tmp_path / "right", tmp_path / "wrong"
        for scope, file in (("registration", right), ("jobs", wrong)):
            run(
                *("worker", "token", "add", scope, "--scope", scope),
                *("-o", file, "--folder", folder),
            )
        register = (
            *("workers", "register", url, "--unverified"),
            *("--measurement", MEASUREMENT.hex(), "--json", "--token-file"),
        )
        answers: list[tuple[int, str]] = []
        identities: list[dict[str, object]] = []

        def act() -> None:
            identities.append(httpx.get(url + "/v1/identity", trust_env=False).json())
            answers.extend(
                _in_a_process(register, file, world, tmp_path) for file in (wrong, right)
            )

        with _meanwhile(url, act) as troubles:
            ran = run(
                *("worker", "run", "--folder", folder, "--listen", url.removeprefix("http://")),
                *("--hold", "1500ms", "--tasks", "echo", "--scheme", "sr25519", "--json"),
            )

        assert troubles == []
        assert ran.exit_code == 0, ran.stderr
        assert ran.document["listening"] == url
        assert ran.document["tee"] == "none: development worker, no TEE"
        assert ran.document["development"] == ["holds each job for 1.5 s"]
        assert "development worker, no TEE" in ran.stderr
        assert identities[0]["tasks"] == ["echo"]
        assert [code for code, _ in answers] == [1, 0], answers
        assert '"verified": false' in answers[1][1]
        workers = run("workers", "list", "--json").document["workers"]
        assert [w["endpoint"] for w in workers if w["worker"] == 3] == [url]
        assert [w["scheme"] for w in workers if w["worker"] == 3] == ["Sr25519"]

    def test_a_worker_without_a_chain_says_so(self, run: Run, tmp_path: Path) -> None:
        url = f"http://127.0.0.1:{_free_port()}"

        with _meanwhile(url, lambda: None) as troubles:
            ran = run(
                *("worker", "run", "--unsafe-without-chain", "--folder", tmp_path / "worker"),
                *("--listen", url.removeprefix("http://"), "--json"),
            )

        assert troubles == []
        assert ran.document["development"] == ["believes requests, has no chain"]

    def test_a_worker_says_what_its_evidence_comes_from(self, run: Run, tmp_path: Path) -> None:
        create_simulator(tmp_path / "simulator")
        sources = {
            f"simulated:{tmp_path / 'simulator'}": "simulated TDX: proves no TEE",
            "dstack": "dstack TDX",
            f"dstack:{tmp_path / 'agent.sock'}": "dstack TDX",
        }
        for source, name in sources.items():
            url = f"http://127.0.0.1:{_free_port()}"
            told: list[object] = []

            def act(url: str = url, told: list[object] = told) -> None:
                told.append(httpx.get(url + "/v1/identity", trust_env=False).json()["tee"])

            with _meanwhile(url, act) as troubles:
                ran = run(
                    *("worker", "run", "--unsafe-without-chain", "--evidence", source),
                    *("--folder", tmp_path / "worker", "--listen", url.removeprefix("http://")),
                )

            assert troubles == []
            assert ran.exit_code == 0, ran.stderr
            assert told == [name]
            assert name in ran.stdout
            assert f"worker, {name}: running" in ran.stderr
            assert "no TEE: running" not in ran.stderr.replace(name, "")

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("tpm", "worker.evidence: 'tpm', must be dstack"),
            ("dstack:", "worker.evidence: 'dstack:', must be dstack"),
            ("simulated", "worker.evidence: 'simulated', must be dstack"),
            ("simulated:", "worker.evidence: 'simulated:', must be dstack"),
            ("simulated:nowhere", "folder nowhere: no simulator in it"),
        ],
    )
    def test_a_source_of_evidence_that_is_none_is_named(
        self, run: Run, tmp_path: Path, source: str, message: str
    ) -> None:
        ran = run(
            *("worker", "run", "--unsafe-without-chain", "--evidence", source),
            *("--folder", tmp_path / "worker", "--listen", "127.0.0.1:0"),
        )

        assert ran.exit_code == 2
        assert message in ran.stderr
        assert not (tmp_path / "worker").exists()

    def test_developer_options_are_shown_when_there_are_some(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        url = f"http://127.0.0.1:{_free_port()}"
        listen = ("--listen", url.removeprefix("http://"))

        for more, is_shown in (((), False), (("--hold", "1s"), True)):
            with _meanwhile(url, lambda: None) as troubles:
                ran = run("worker", "run", "--folder", tmp_path / "worker", *listen, *more)
            assert troubles == []
            assert ("\ndevelopment " in ran.stdout) is is_shown, ran.stdout

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (("--scheme", "rsa"), "worker.scheme: 'rsa'"),
            (("--listen", "here"), "listen: 'here'"),
            (("--hold", "long"), "hold: 'long'"),
            (("--hold", "31d"), "hold: '31d', must be at most 30d"),
            (("--tasks", "nothing"), "tasks: 'nothing'"),
            (("--slots", "0"), "worker.slots (option --slots): '0'"),
        ],
    )
    def test_a_setting_that_is_wrong_is_named(
        self, run: Run, world: World, tmp_path: Path, more: tuple[str, ...], message: str
    ) -> None:
        ran = run(
            *("worker", "run", "--folder", tmp_path / "worker", "--listen", "127.0.0.1:0", *more)
        )

        assert ran.exit_code == 2
        assert message in ran.stderr
        assert not (tmp_path / "worker").exists()

    def test_without_a_chain_it_does_not_start(self, run: Run, tmp_path: Path) -> None:
        ran = run("worker", "run", "--folder", tmp_path / "worker")

        assert ran.exit_code == 2
        assert "is not set" in ran.stderr
        assert not (tmp_path / "worker").exists()


@pytest.mark.parametrize("role", ["worker", "orchestrator"])
def test_a_port_in_use_is_named_and_nothing_is_written(
    run: Run, world: World, tmp_path: Path, role: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ran = run(role, "run", "--listen", f"127.0.0.1:{port}", "--folder", tmp_path / "role")

    assert ran.exit_code == 2
    assert f"listen: port {port} of 127.0.0.1 is in use" in ran.stderr
    assert not (tmp_path / "role").exists()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    subprocess.run(
        [
            *command.split(),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.mark.usefixtures("as_operator")
@pytest.mark.parametrize(
    ("role", "more"), [("worker", "--unsafe-without-chain"), ("orchestrator", "--owners=any")]
)
def test_with_a_certificate_it_speaks_https(
    run: Run, world: World, tmp_path: Path, certificate: tuple[Path, Path], role: str, more: str
) -> None:
    url = f"https://127.0.0.1:{_free_port()}"
    trusting = ssl.create_default_context(cafile=certificate[0])

    with _meanwhile(url, lambda: None, verify=trusting) as troubles:
        ran = run(
            *(role, "run", more, "--folder", tmp_path / "role", "--json"),
            *("--listen", url.removeprefix("https://")),
            *("--certificate", certificate[0], "--certificate-key", certificate[1]),
        )

    assert troubles == []
    assert ran.document["listening"] == url


@pytest.mark.parametrize("role", ["worker", "orchestrator"])
@pytest.mark.parametrize(
    ("option", "message"),
    [("--certificate", "one needs the other"), ("--trusted-proxies", "trusted_proxies: 'here'")],
)
def test_what_https_or_a_proxy_lacks_is_named_and_nothing_is_written(
    run: Run, world: World, tmp_path: Path, role: str, option: str, message: str
) -> None:
    ran = run(role, "run", option, "here", "--folder", tmp_path / "role")

    assert ran.exit_code == 2
    assert message in ran.stderr
    assert not (tmp_path / "role").exists()


def test_a_trusted_proxy_says_who_asks(run: Run, world: World, tmp_path: Path) -> None:
    """From another machine a token would be accepted over https alone; a proxy speaks for it."""
    url = f"http://127.0.0.1:{_free_port()}"
    headers = {"authorization": "Bearer none", "x-forwarded-for": "203.0.113.5"}
    seen: list[int] = []

    def ask() -> None:
        answer = httpx.put(f"{url}/v1/blobs/{'0' * 64}", headers=headers, trust_env=False)
        seen.append(answer.status_code)

    for proxies in ((), ("--trusted-proxies", "127.0.0.1")):
        with _meanwhile(url, ask) as troubles:
            run(
                *("worker", "run", "--unsafe-without-chain", "--folder", tmp_path / "worker"),
                *("--listen", url.removeprefix("http://"), *proxies),
            )
        assert troubles == []

    assert seen == [401, 403]


@pytest.mark.usefixtures("as_operator")
class TestOrchestrator:
    """`orchestrator run` and `once`."""

    def test_it_serves_until_it_is_stopped(self, run: Run, world: World, tmp_path: Path) -> None:
        url = f"http://127.0.0.1:{_free_port()}"
        found: list[str] = []

        with _meanwhile(
            url, lambda: found.append(httpx.get(url + "/metrics", trust_env=False).text)
        ) as troubles:
            ran = run(
                *("orchestrator", "run", "--folder", tmp_path / "orchestrator"),
                *("--listen", url.removeprefix("http://"), "--owners", "any", "--json"),
            )

        assert troubles == []
        assert ran.exit_code == 0, ran.stderr
        assert ran.document["listening"] == url
        assert "phala_jobs_pending" in found[0]
        assert "every owner's jobs are admitted" in ran.stderr
        assert "stopped; 0 jobs processed, 0 open" in ran.stderr

    def test_once_does_what_can_be_done_and_tells(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        data.write_bytes(b"x")
        run("keys", "new", "owner", "--keys-unencrypted")
        run("submit", "echo", data, "--account", "owner", "--keys-unencrypted")

        ran = run(
            *("orchestrator", "once", "--folder", tmp_path / "orchestrator"),
            *("--timeout", "10s", "--owners", to_ss58(OPERATOR.account_id), "--json"),
        )

        assert ran.exit_code == 0, ran.stderr
        assert ran.document["counts"] == {"submitted": 1, "refused": 1}
        assert ran.document["refusals"] == {"OwnerNotAllowed": 1}
        assert ran.document["open"] == 0

    @pytest.mark.parametrize("work", ["run", "once"])
    def test_without_owners_it_does_not_start(
        self, run: Run, world: World, tmp_path: Path, work: str
    ) -> None:
        ran = run("orchestrator", work, "--folder", tmp_path / "orchestrator")

        assert ran.exit_code == 2
        assert "orchestrator.owners is empty: give --owners ADDRESS[,ADDRESS]" in ran.stderr
        assert not (tmp_path / "orchestrator").exists()

    @pytest.mark.parametrize("work", ["run", "once"])
    def test_an_account_without_the_role_does_not_start_it(
        self, run: Run, world: World, secret_file: Write, tmp_path: Path, work: str
    ) -> None:
        stranger = to_ss58(AccountKey.from_uri("//Stranger").account_id)

        ran = run(
            *("orchestrator", work, "--owners", "any", "--folder", tmp_path / "orchestrator"),
            *("--account-file", secret_file("stranger", "//Stranger")),
        )

        assert ran.exit_code == 1
        assert f"account {stranger} has no role Operator at this contract" in ran.stderr
        assert f"phala-jobs roles grant {stranger} operator" in ran.stderr
        assert not (tmp_path / "orchestrator").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1 = 2", "must be TOML with lines such as"),
            ("one = 'secret token'", "must be TOML with lines such as"),
            ("secret token", "must be TOML with lines such as"),
        ],
    )
    def test_a_tokens_file_of_another_form_is_refused_and_not_quoted(
        self, run: Run, world: World, secret_file: Write, tmp_path: Path, text: str, message: str
    ) -> None:
        path = secret_file("tokens", text)

        ran = run(
            *("orchestrator", "once", "--tokens", path),
            *("--folder", tmp_path / "orchestrator", "--owners", "any"),
        )

        assert ran.exit_code == 2
        assert message in ran.stderr
        assert "secret token" not in ran.stderr
        assert not (tmp_path / "orchestrator").exists()

    def test_an_owner_that_is_none_is_named(self, run: Run, world: World) -> None:
        ran = run("orchestrator", "once", "--owners", "nobody")

        assert ran.exit_code == 2
        assert "orchestrator.owners: 'nobody'" in ran.stderr

    def test_a_journal_of_another_contract_is_refused(
        self, run: Run, world: World, tmp_path: Path
    ) -> None:
        folder = tmp_path / "orchestrator"
        words = ("orchestrator", "once", "--folder", folder, "--owners", "any", "--json")
        run(*words)
        other = run("contract", "deploy", "--salt", "other", "--json").document["contract"]
        run("roles", "grant", to_ss58(OPERATOR.account_id), "operator", "--contract", other)

        ran = run(*words, "--contract", other)

        assert ran.exit_code == 1
        assert ran.document["error"] == "JournalError"
        assert "belongs to contract" in ran.document["message"]

    def test_a_failing_service_ends_its_server_too(
        self, run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:

        async def fail(*_: object) -> None:
            raise JournalError("the disk is full")

        monkeypatch.setattr(Orchestrator, "run", fail)

        ran = run(
            *("orchestrator", "run", "--folder", tmp_path / "orchestrator"),
            *("--listen", "127.0.0.1:0", "--owners", to_ss58(OPERATOR.account_id)),
        )

        assert ran.exit_code == 1
        assert "error: the disk is full" in ran.stderr


def test_a_job_goes_through_a_real_worker_and_orchestrator_once(
    run: Run, world: World, secret_file: Write, tmp_path: Path
) -> None:
    """The worker is a thread's business, because signals reach the main one alone."""
    ran = _play(run, world, secret_file, tmp_path)

    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout_bytes == b"through and through"


def _play(run: Run, world: World, secret_file: Write, tmp_path: Path) -> Ran:
    folder, url = tmp_path / "worker", f"http://127.0.0.1:{_free_port()}"
    registration, jobs = tmp_path / "registration", tmp_path / "jobs"
    for scope, file in (("registration", registration), ("jobs", jobs)):
        run("worker", "token", "add", scope, "--scope", scope, "-o", file, "--folder", folder)
    data = tmp_path / "data"
    data.write_bytes(b"through and through")
    results: list[Ran] = []
    with _worker_process(world, folder, url, tmp_path):
        registered = run(
            *("workers", "register", url, "--unverified", "--measurement", MEASUREMENT.hex()),
            *("--token-file", registration, "--json"),
        )
        worker = registered.document["worker"]
        tokens = secret_file("tokens", f'{worker} = "{jobs.read_text().strip()}"\n')
        run("keys", "new", "owner", "--keys-unencrypted")
        owner = ("--account", "owner", "--keys-unencrypted")
        run("submit", "echo", data, "--worker", worker, *owner)
        bob = secret_file("bob", "//Bob")
        run(
            *("orchestrator", "once", "--owners", "any", "--tokens", tokens),
            *("--account-file", bob, "--folder", tmp_path / "orchestrator", "--workers", worker),
        )
        results.append(run("result", 1, *owner))
    return results[0]


@contextmanager
def _worker_process(world: World, folder: Path, url: str, home: Path) -> Iterator[None]:

    with Children(home) as children:
        children.start(
            "worker",
            [
                *("worker", "run", "--json", "--folder", folder, "--tasks", "echo"),
                *("--chain", world.settings["chain"], "--contract", world.settings["contract"]),
                *("--listen", url.removeprefix("http://")),
            ],
        )
        yield


def _in_a_process(words: tuple[str, ...], file: Path, world: World, home: Path) -> tuple[int, str]:

    done = subprocess.run(
        command_line([*words, file]),
        env={
            **environment(home),
            **{f"PHALA_JOBS_{name.upper()}": value for name, value in world.settings.items()},
            "PHALA_JOBS_ACCOUNT_FILE": os.environ["PHALA_JOBS_ACCOUNT_FILE"],
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
