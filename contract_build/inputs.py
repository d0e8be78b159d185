"""
Which files decide the bundle's bytes, and one digest over all of them.

The bundle carries this digest. A test compares it with the working tree, so that a change of the
contract without a new bundle is noticed without a Rust toolchain.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOT", "input_files", "inputs_digest"]

ROOT = Path(__file__).resolve().parent.parent

# Files and folders, relative to the root of the repository.
_INPUTS = (
    "Cargo.lock",
    "Cargo.toml",
    "contract_build/Cargo.lock",
    "contract_build/Cargo.toml",
    "contract_build/bundle.py",
    "contract_build/inputs.py",
    "contract_build/metadata",
    "contract_build/package-lock.json",
    "contract_build/package.json",
    "contract_build/postprocess",
    "contract_build/recipe.py",
    "phala_job_processor",
    "rust-toolchain.toml",
)

# What can't reach the Wasm or the metadata: tests are compiled under `cfg(test)` alone.
_TEST_FOLDERS = (
    "phala_job_processor/tests",
    "phala_job_processor/rlibc/src/tests.rs",
    "contract_build/postprocess/src/check",
)
_SUFFIXES = (".json", ".lock", ".py", ".rs", ".toml")


def _is_input(path: Path, root: Path) -> bool:
    if not path.is_file() or path.suffix not in _SUFFIXES:
        return False
    return not any(path.is_relative_to(root / folder) for folder in _TEST_FOLDERS)


def input_files(root: Path = ROOT) -> Iterator[Path]:
    """
    Yield every file that decides the bundle's bytes, in a fixed order.

    Raises:
        FileNotFoundError: One of the files or folders is missing.
    """
    for name in _INPUTS:
        path = root / name
        if not path.exists():
            message = f"{name} decides the bundle's bytes and is missing"
            raise FileNotFoundError(message)
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if _is_input(file, root))
        else:
            yield path


def inputs_digest(root: Path = ROOT) -> str:
    """Return the SHA-256, in hex, over names and contents of all input files."""
    digest = hashlib.sha256()
    for path in input_files(root):
        name = path.relative_to(root).as_posix().encode()
        content = path.read_bytes()
        digest.update(len(name).to_bytes(8, "little") + name)
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
