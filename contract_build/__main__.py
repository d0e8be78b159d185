"""
`python -m contract_build` builds the contract and writes the bundle.

With `--check` nothing is written: the rebuilt bundle must be the committed one. Where the canonical
toolchain can't be had, the bundle is never touched: the other build is tested and thrown away.
"""

import argparse
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from contract_build.bundle import (
    BUNDLE,
    Json,
    code_hash,
    compose_bundle,
    differences,
    dump_bundle,
    load_bundle,
)
from contract_build.inputs import ROOT, inputs_digest
from contract_build.recipe import Canonical, Debian, RecipeError, find_recipe

# The tests that run the compiled contract; conftest.py reads this variable.
_CHAIN_TESTS = ("tests/unit/chain", "tests/ports")
_BUNDLE_VARIABLE = "PHALA_JOBS_BUNDLE"


def _build(recipe: Canonical | Debian) -> Json:
    manifest = tomllib.loads((recipe.root / "Cargo.toml").read_text(encoding="utf-8"))
    wasm = recipe.compile()
    print(f"size       {len(wasm):,} bytes (limit 102,400)")
    print(f"code hash  {code_hash(wasm)}")
    return compose_bundle(
        wasm=wasm,
        metadata=recipe.metadata(),
        version=manifest["workspace"]["package"]["version"],
        versions=recipe.versions(),
        digest=inputs_digest(recipe.root),
    )


def _test_other_build(bundle: Json, path: Path, reason: str) -> int:
    """Run the embedded-chain tests on a build that is not the canonical one."""
    dump_bundle(bundle, path)
    bar = "!" * 88
    print(
        f"{bar}\nNOT THE CANONICAL BUILD: {reason}\nBuilt with Debian's toolchain instead: other"
        f" bytes, another code hash. The committed bundle\nwas neither checked nor changed."
        f" The embedded-chain tests run on this build now.\n{bar}",
        flush=True,
    )
    command = [sys.executable, "-m", "pytest", "-q", *_CHAIN_TESTS]
    env = {**os.environ, _BUNDLE_VARIABLE: str(path)}
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def _compare(built: Json, root: Path) -> int:
    differing = differences(built, load_bundle(root / BUNDLE))
    if differing:
        print(
            f"{BUNDLE} is not what the sources build: {', '.join(differing)} differ."
            " Run `make contract` and commit it.",
            file=sys.stderr,
        )
        return 1
    print(f"{BUNDLE} is what the sources build")
    return 0


def main() -> int:
    """Build, then write, compare or test the bundle; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m contract_build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed bundle")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to build")
    options = parser.parse_args()
    root: Path = options.root.resolve()
    try:
        recipe, reason = find_recipe(root, root / "target" / "contract")
        built = _build(recipe)
    except RecipeError as error:
        print(f"contract_build: {error}", file=sys.stderr)
        return 1
    if reason is not None:
        return _test_other_build(built, root / "target" / "contract" / "debian.contract", reason)
    if options.check:
        return _compare(built, root)
    dump_bundle(built, root / BUNDLE)
    print(f"written    {BUNDLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
