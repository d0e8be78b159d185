"""
The two ways to compile the contract.

`Canonical` is the one that decides the code hash: the pinned rustc with its own `wasm32v1-none`,
and the pinned wasm-opt of npm's `binaryen` (a Wasm program itself: the same bytes on every
machine; the crate `wasm-opt` would spend nine minutes of two cores compiling the same C++).

`Debian` is for machines where that toolchain can't be had: Debian's rustc with the standard
library's sources and Debian's binaryen. It makes other bytes with the same meaning.
"""

import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from contract_build.inputs import ROOT

__all__ = ["RUST_VERSION", "Canonical", "Debian", "Recipe", "RecipeError", "find_recipe"]

RUST_VERSION = "1.95.0"
# wasmi charges every byte of a function when it is first called: a larger `call` would cost more
# gas than it saves bytes, so no function is inlined here because it has only one caller.
WASM_OPT_FLAGS = ("-Oz", "-ocimfs", "0", "--mvp-features", "--zero-filled-memory")
CRATE = "phala_job_processor"

# The stack of 64 KiB and the memory of 16 pages are what cargo-contract gives every contract.
_LINK_FLAGS = (
    "-Clink-arg=-zstack-size=65536",
    "-Clink-arg=--import-memory",
    "-Clink-arg=--max-memory=1048576",
)
_CARGO_FLAGS = (
    "rustc",
    "--locked",
    "--lib",
    "--crate-type",
    "cdylib",
    "--release",
    "--no-default-features",
    "--package",
    CRATE,
)


class RecipeError(Exception):
    """A step of the recipe failed, or its tools are missing."""


def _run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    process = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode:
        message = f"{' '.join(map(str, command))} failed with status {process.returncode}"
        raise RecipeError(message)
    return process.stdout.strip()


def _first_line_of(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
    return _run(command, cwd=ROOT, env=env).splitlines()[0]


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """The tools of one way to build; `root` is the checkout, `target` a folder for the outputs."""

    root: Path
    target: Path

    name: ClassVar[str]
    wasm_target: ClassVar[str]
    rustflags: ClassVar[tuple[str, ...]] = ()
    cargo_flags: ClassVar[tuple[str, ...]] = ()

    def environment(self) -> dict[str, str]:
        """Return the variables that every cargo command of this recipe runs under."""
        # Flags of the caller would change the bytes; CARGO_ENCODED_RUSTFLAGS overrules them.
        return {"CARGO_INCREMENTAL": "0", "SOURCE_DATE_EPOCH": "0"}

    @abstractmethod
    def cargo(self) -> tuple[str, ...]:
        """Return the command that runs this recipe's cargo."""

    @abstractmethod
    def wasm_opt(self) -> tuple[str, ...]:
        """Return the command that runs this recipe's wasm-opt."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of compiler, linker and optimiser as they name themselves."""

    def compile(self) -> bytes:
        """
        Build the contract and return Wasm that a chain accepts.

        Raises:
            RecipeError: A tool failed, or the code breaks a rule of pallet-contracts.
        """
        env = {
            **self.environment(),
            "CARGO_TARGET_DIR": str(self.target / self.name),
            "CARGO_ENCODED_RUSTFLAGS": "\x1f".join((*_LINK_FLAGS, *self.rustflags)),
        }
        flags = (*_CARGO_FLAGS, "--target", self.wasm_target, *self.cargo_flags)
        _run([*self.cargo(), *flags], cwd=self.root, env=env)
        raw = self.target / self.name / self.wasm_target / "release" / f"{CRATE}.wasm"
        stripped, optimised, final = (
            raw.with_suffix(f".{step}.wasm") for step in ("stripped", "optimised", "final")
        )
        tool = self._postprocess_tool()
        _run([tool, "strip", raw, stripped], cwd=self.root)
        _run([*self.wasm_opt(), *WASM_OPT_FLAGS, stripped, "-o", optimised], cwd=self.root)
        _run([tool, "strip", optimised, final], cwd=self.root)
        _run([tool, "check", final], cwd=self.root)
        return final.read_bytes()

    def metadata(self) -> str:
        """
        Return the contract's ink! metadata as JSON text.

        Raises:
            RecipeError: A tool failed.
        """
        # Events and types register themselves where nothing refers to them.
        flags = {"CARGO_ENCODED_RUSTFLAGS": "-Clink-dead-code"}
        return _run([self._tool("contract-metadata", "metadata", flags)], cwd=self.root)

    def _postprocess_tool(self) -> Path:
        return self._tool("contract-postprocess", "tools", {"CARGO_ENCODED_RUSTFLAGS": ""})

    def _tool(self, package: str, folder: str, flags: Mapping[str, str]) -> Path:
        target = self.target / f"{self.name}-{folder}"
        env = {**self.environment(), **flags, "CARGO_TARGET_DIR": str(target)}
        workspace = self.root / "contract_build"
        _run([*self.cargo(), "build", "--locked", "-p", package], cwd=workspace, env=env)
        return target / "debug" / package


@dataclass(frozen=True, kw_only=True)
class Canonical(Recipe):
    """rustc 1.95.0 with `wasm32v1-none` from rustup, wasm-opt from npm, each pinned."""

    name = "canonical"
    wasm_target = "wasm32v1-none"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "RUSTUP_TOOLCHAIN": RUST_VERSION}

    def cargo(self) -> tuple[str, ...]:
        return ("cargo",)

    def wasm_opt(self) -> tuple[str, ...]:
        return ("node", str(self._wasm_opt_script()))

    def _wasm_opt_script(self) -> Path:
        return self.root / "contract_build/node_modules/binaryen/bin/wasm-opt"

    def _has_pinned_wasm_opt(self) -> bool:
        folder = self.root / "contract_build"
        try:
            wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))
            installed = folder / "node_modules/binaryen/package.json"
            found = json.loads(installed.read_text(encoding="utf-8"))
        except OSError:
            return False
        return bool(found["version"] == wanted["devDependencies"]["binaryen"])

    def versions(self) -> dict[str, str]:
        env = self.environment()
        system_root = Path(_first_line_of(["rustc", "--print", "sysroot"], env))
        linker = next(system_root.glob("lib/rustlib/*/bin/gcc-ld/ld.lld"))
        return {
            "rustc": _first_line_of(["rustc", "--version"], env),
            "linker": _first_line_of([linker, "--version"]),
            "wasm_opt": _first_line_of([*self.wasm_opt(), "--version"]),
        }

    def missing(self) -> str | None:
        """Fetch what may be fetched; return what is still missing, or None."""
        for program in ("rustup", "cargo", "node", "npm"):
            if shutil.which(program) is None:
                return f"{program} is not installed"
        toolchains = _run(["rustup", "toolchain", "list"], cwd=self.root)
        try:
            if not any(line.startswith(RUST_VERSION) for line in toolchains.splitlines()):
                minimal = ("--profile", "minimal", "--no-self-update")
                _run(["rustup", "toolchain", "install", RUST_VERSION, *minimal], cwd=self.root)
            target = ("target", "add", "--toolchain", RUST_VERSION, self.wasm_target)
            _run(["rustup", *target], cwd=self.root)
            if not self._has_pinned_wasm_opt():
                quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
                _run(["npm", "ci", *quiet], cwd=self.root / "contract_build")
        except RecipeError as error:
            return str(error)
        return None


@dataclass(frozen=True, kw_only=True)
class Debian(Recipe):
    """Debian's rustc-web with rust-web-src, lld and binaryen."""

    name = "debian"
    wasm_target = "wasm32-unknown-unknown"
    rustflags = (
        "-Ctarget-cpu=mvp",
        "-Clinker=/usr/bin/wasm-ld",
        "-Zunstable-options",
        "-Cpanic=immediate-abort",
    )
    cargo_flags = ("-Zbuild-std=core,alloc",)

    def environment(self) -> dict[str, str]:
        # The compiler and the sources of the standard library must be one version.
        unstable = {"RUSTC": "/usr/bin/rustc", "RUSTC_BOOTSTRAP": "1"}
        return {**super().environment(), **unstable}

    def cargo(self) -> tuple[str, ...]:
        return ("/usr/bin/cargo",)

    def wasm_opt(self) -> tuple[str, ...]:
        return ("/usr/bin/wasm-opt",)

    def versions(self) -> dict[str, str]:
        return {
            "rustc": _first_line_of(["/usr/bin/rustc", "--version"]),
            "linker": _first_line_of(["/usr/bin/wasm-ld", "--version"]),
            "wasm_opt": _first_line_of([*self.wasm_opt(), "--version"]),
        }

    def missing(self) -> str | None:
        """Return what is missing, or None; installing packages is not a build's business."""
        for program in ("rustc", "cargo", "wasm-ld", "wasm-opt"):
            if not Path("/usr/bin", program).exists():
                return (
                    f"/usr/bin/{program} is missing (apt-get install --no-install-recommends"
                    " rustc-web cargo-web rust-web-src lld binaryen)"
                )
        return None


def find_recipe(root: Path, target: Path) -> tuple[Canonical | Debian, str | None]:
    """
    Return the canonical recipe, or Debian's together with the reason why not the canonical one.

    Raises:
        RecipeError: The tools of neither are there.
    """
    canonical = Canonical(root=root, target=target)
    reason = canonical.missing()
    if reason is None:
        return canonical, None
    debian = Debian(root=root, target=target)
    other_reason = debian.missing()
    if other_reason is None:
        return debian, reason
    message = (
        "the contract can't be built here.\n"
        f"  canonical recipe: {reason}\n  Debian's toolchain: {other_reason}"
    )
    raise RecipeError(message)
