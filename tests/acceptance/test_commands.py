"""The whole product by its commands, each a real process, from an empty folder to a purged job."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 60
MEASUREMENT = "42" * 32


@dataclass
class Shell:
    """Runs `phala-jobs` in a folder, with a home and settings of its own."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith("PHALA_JOBS_")}
        ours = {f"PHALA_JOBS_{name}": value for name, value in self.settings.items()}
        return {**kept, **ours, "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}

    def words(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "orchestrator", *map(str, words)]

    def run(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.words(*words),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def ask(self, *words: str | Path) -> Any:  # noqa: ANN401  # JSON, looked into by the test
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def service(self, *words: str | Path) -> Iterator[dict[str, Any]]:
        """A long-running command; yields what it printed when it was ready."""
        log = self.folder / f"{words[0]}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                self.words(*words, "--json"),
                env=self.environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        try:
            lines: list[str] = []
            while not lines or lines[-1] != "}\n":
                line = process.stdout.readline()
                assert line, log.read_text()
                lines.append(line)
            yield json.loads("".join(lines))
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_SECONDS) == 0, log.read_text()
            assert "Traceback" not in log.read_text()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    tmp_path.chmod(0o700)
    return Shell(tmp_path)


def test_a_job_goes_from_an_empty_folder_to_a_verified_result(shell: Shell) -> None:
    admin, operator = shell.secret("admin", "//Alice"), shell.secret("operator", "//Bob")
    passphrase = shell.secret("passphrase", "correct horse battery staple")
    (shell.folder / "input").write_bytes(b"hello, enclave")
    shell.settings |= {"CHAIN": f"local:{shell.folder / 'chain.db'}", "ACCOUNT_FILE": str(admin)}
    deployed = shell.ask("contract", "deploy")
    shell.settings["CONTRACT"] = deployed["contract"]
    bob = shell.ask("account", "release", "--account-file", operator)["released"]
    shell.ask("roles", "grant", deployed["admin"], "Registrar")
    shell.ask("roles", "grant", bob, "Operator")
    shell.ask("measurements", "allow", MEASUREMENT)
    shell.settings["PASSPHRASE_FILE"] = str(passphrase)
    owner = shell.ask("keys", "new", "owner", "--phrase-file", "phrase")["account"]
    tokens = ("worker", "token", "add")
    shell.ask(*tokens, "registrar", "--scope", "registration", "-o", "registration-token")
    shell.ask(*tokens, "orchestrator", "-o", "jobs-token")

    with shell.service("worker", "run", "--listen", "127.0.0.1:0", "--tasks", "echo") as worker:
        registered = shell.ask(
            *("workers", "register", worker["listening"], "--unverified"),
            *("--measurement", MEASUREMENT, "--token-file", "registration-token"),
        )
        jobs_token = (shell.folder / "jobs-token").read_text().strip()
        shell.secret("tokens.toml", f'{registered["worker"]} = "{jobs_token}"\n')
        with shell.service(
            *("orchestrator", "run", "--listen", "127.0.0.1:0", "--owners", owner),
            *("--account-file", operator, "--tokens", "tokens.toml"),
        ) as orchestrator:
            shell.settings["BLOB_SOURCES"] = orchestrator["listening"]
            shell.settings["ACCOUNT"] = "owner"
            submitted = shell.ask("submit", "echo", "input", "--wait", "--timeout", "60s")
            result = shell.run("result", "1", "--save-attestation", "attestation.json")

    assert registered["tee"] == "none: development worker, no TEE"
    assert submitted == {"job_id": 1, "fee": 0, "deposit": 0, "status": "Processed"}
    assert (result.returncode, result.stdout) == (0, "hello, enclave"), result.stderr
    status = shell.ask("status", "1")
    assert (status["attested_by"], status["attestation"]) == (registered["worker"], "Valid")
    _verify_and_purge(shell, registered["signing_key"])


def _verify_and_purge(shell: Shell, signing_key: str) -> None:
    """The rest of the story: offline verification, then no trace in the contract."""
    settings, shell.settings = shell.settings, {}
    verified = shell.ask("verify", "attestation.json", "--accept-key", signing_key)
    attestation = json.loads((shell.folder / "attestation.json").read_text())
    text = json.dumps(attestation).replace(signing_key.removeprefix("0x"), "02" * 33)
    (shell.folder / "tampered.json").write_text(text)
    refused = shell.run("verify", "tampered.json", "--json")
    shell.settings = settings

    assert verified["verified"] is True
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"] == "NotVerified"
    assert shell.ask("jobs")["jobs"][0]["status"] == "Processed"
    purged = {"job_id": 1, "purged": True, "fee": 0, "deposit": 0}
    assert shell.ask("purge", "1") == purged
    assert shell.run("status", "1").returncode == 2


def test_help_is_there_at_once(shell: Shell) -> None:
    """Bytecode may have to be made first, so the second of two runs counts."""
    shell.run("--help")
    started = time.process_time_ns() + _children_ns()
    done = shell.run("--help")
    used = time.process_time_ns() + _children_ns() - started

    assert done.returncode == 0
    assert "demo" in done.stdout
    # 0.3 s of a CPU on the slowest machine measured; this catches an import of a whole role.
    assert used < 1_500_000_000, f"{used / 1e9:.2f} s of CPU time"


def _children_ns() -> int:
    times = os.times()
    return int((times.children_user + times.children_system) * 1e9)


def test_help_imports_no_heavy_module(shell: Shell) -> None:
    program = (
        "import sys\n"
        "sys.argv = ['phala-jobs', '--help']\n"
        "from orchestrator.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'pydantic', 'pydantic_settings', 'wasmtime', 'sqlalchemy', 'httpx', 'uvicorn',"
        " 'starlette', 'substrateinterface', 'scalecodec', 'numpy', 'nacl', 'cryptography'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_a_mistake_on_the_command_line_is_two(shell: Shell) -> None:
    done = shell.run("submit")

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_refused_in_words(shell: Shell) -> None:
    """A file size limit of the shell stands for the full disk; Python gets an error, no signal."""
    admin = shell.secret("admin", "//Alice")
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        f"sys.argv = ['phala-jobs', 'contract', 'deploy', '--chain', 'local:full.db',"
        f" '--account-file', {str(admin)!r}, '--json']\n"
        "from orchestrator.cli import main\nmain()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shell.environment,
        cwd=shell.folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode in (1, 2, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert "error" in json.loads(done.stdout)
    assert "bug" not in done.stderr
