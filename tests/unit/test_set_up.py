"""A set-up that can't go on says what is missing and leaves nothing behind."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUSTUP_THAT_TELLS = 'echo "$@ in ${CARGO_TARGET_DIR-} for ${CARGO_BUILD_TARGET-no other target}"'
TOOLS = ("awk", "cat", "cc", "dirname", "env", "make", "mkdir", "rm", "sh", "touch")


class Machine:
    """A copy of the checkout's set-up files, and a path with nothing on it but a few tools."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.checkout = folder / "checkout"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (self.bin / tool).symlink_to(found)
        (self.checkout / "requirements").mkdir(parents=True)
        (self.checkout / "devnode").mkdir()
        for name in (
            "Makefile",
            "devnode/build",
            "pyproject.toml",
            "rust-toolchain.toml",
            "requirements/dev.txt",
            "requirements/install",
            "requirements/run.txt",
        ):
            shutil.copy(ROOT / name, self.checkout / name)

    def add_program(self, name: str, script: str) -> None:
        program = self.bin / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def add_python(self, version: str, *, other_commands: str = "exit 0") -> None:
        """Add a Python that knows its version and does *other_commands* for all the rest."""
        self.add_program(
            "python3", f'case "$2" in *version_info*) echo {version} ;; *) {other_commands} ;; esac'
        )

    def make(self, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", target],
            cwd=self.checkout,
            env={"PATH": str(self.bin), "HOME": str(self.checkout), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("target", ["demo", "test-python", "lint-python"])
def test_without_python_it_says_so(machine: Machine, target: str) -> None:
    outcome = machine.make(target)

    assert outcome.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed. No Python was found" in outcome.stderr
    assert not (machine.checkout / ".venv").exists()


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_another_python_is_named_with_its_version(machine: Machine, version: str) -> None:
    machine.add_python(version)

    outcome = machine.make("demo")

    assert outcome.returncode != 0
    assert f"python3 is {version};" in outcome.stderr
    assert not (machine.checkout / ".venv").exists()


def test_a_name_that_only_prints_an_error_is_passed_over(machine: Machine) -> None:
    machine.add_python("3.10")
    machine.add_program("python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")

    outcome = machine.make("demo")

    assert "python3 is 3.10;" in outcome.stderr
    assert "python3.13 is" not in outcome.stderr


def test_a_python_that_is_asked_for_is_the_one_that_is_tried(machine: Machine) -> None:
    machine.add_python("3.12")
    machine.add_program("mine", "echo 3.9")

    outcome = machine.make("demo", PYTHON="mine")

    assert "mine is 3.9;" in outcome.stderr


def test_a_python_without_ensurepip_names_the_package_to_install(machine: Machine) -> None:
    machine.add_python("3.11", other_commands="exit 1")

    outcome = machine.make("demo")

    assert outcome.returncode != 0
    assert "apt-get install python3-venv" in outcome.stderr
    assert not (machine.checkout / ".venv").exists()


def test_without_rustup_the_tests_in_rust_say_so(machine: Machine) -> None:
    outcome = machine.make("test-rust")

    assert outcome.returncode != 0
    assert "rustup is not installed" in outcome.stderr
    assert "Rust 1.95.0" in outcome.stderr


def test_without_a_linker_the_tests_in_rust_say_so(machine: Machine) -> None:
    machine.add_program("rustup", "exit 0")
    (machine.bin / "cc").unlink()

    outcome = machine.make("test-rust")

    assert outcome.returncode != 0
    assert "apt-get install gcc" in outcome.stderr


def test_without_protoc_the_node_names_the_package_to_install(machine: Machine) -> None:
    machine.add_program("rustup", "exit 0")

    outcome = machine.make("node")

    assert outcome.returncode != 0
    assert "apt-get install protobuf-compiler" in outcome.stderr


def test_with_half_a_perl_the_node_names_the_package_to_install(machine: Machine) -> None:
    machine.add_program("rustup", "exit 0")
    machine.add_program("protoc", "exit 0")
    machine.add_program("perl", "exit 2")

    outcome = machine.make("node")

    assert outcome.returncode != 0
    assert "apt-get install perl" in outcome.stderr


def test_the_node_is_built_after_its_runtime_and_its_place_is_said(machine: Machine) -> None:
    machine.add_program("rustup", RUSTUP_THAT_TELLS)
    machine.add_program("protoc", "exit 0")
    machine.add_program("perl", "exit 0")

    outcome = machine.make("node", CARGO_TARGET_DIR="/elsewhere", CARGO_BUILD_TARGET="other")

    assert outcome.returncode == 0
    runtime, node, place = outcome.stdout.splitlines()[-3:]
    assert "--package devnode-runtime --target wasm32v1-none" in runtime
    assert "--locked --release --package contracts-devnode" in node
    assert node.endswith(f" in {machine.checkout}/devnode/target for no other target")
    assert place.endswith(f"{machine.checkout}/devnode/target/release/contracts-devnode")


def test_every_target_documents_itself(machine: Machine) -> None:
    listed = machine.make("help").stdout

    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split()[1] for line in makefile.splitlines() if line.startswith(".PHONY:")]
    assert targets
    for target in targets:
        assert f"  {target} " in listed, target


def test_the_pinned_requirements_name_no_index_and_only_hashed_files() -> None:
    for name in ("dev.txt", "run.txt"):
        lines = (ROOT / "requirements" / name).read_text().splitlines()

        assert not any("://" in line or line.startswith("-") for line in lines)
        pinned = [index for index, line in enumerate(lines) if line[:1].isalnum()]
        assert pinned
        for index in pinned:
            assert "==" in lines[index]
            assert lines[index + 1].lstrip().startswith("--hash=sha256:")


def test_what_runs_is_pinned_as_it_is_tested() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        return {line.removesuffix(" \\") for line in lines if line[:1].isalnum()}

    assert pins("run.txt") < pins("dev.txt")


def test_one_rust_version_is_named_everywhere() -> None:
    from contract_build.recipe import RUST_VERSION  # noqa: PLC0415 - beside its only use

    assert f'channel = "{RUST_VERSION}"' in (ROOT / "rust-toolchain.toml").read_text()
    assert f"RUST_VERSION := {RUST_VERSION}" in (ROOT / "Makefile").read_text()
    assert f"version={RUST_VERSION}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_ci_script_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert os.access(ROOT / "requirements" / "install", os.X_OK)
    assert os.access(ROOT / "devnode" / "build", os.X_OK)
