"""The committed bundle is what the sources in this checkout build."""

import hashlib
import shutil
import sys
import tomllib
from pathlib import Path
from typing import cast

import pytest

from contract_build import __main__ as command
from contract_build.bundle import (
    BUNDLE,
    Json,
    code_hash,
    compose_bundle,
    differences,
    dump_bundle,
    load_bundle,
)
from contract_build.inputs import ROOT, input_files, inputs_digest
from contract_build.recipe import Canonical, Debian, RecipeError, find_recipe

VERSIONS = {"rustc": "rustc 1.95.0", "linker": "LLD 22", "wasm_opt": "wasm-opt version 132"}
METADATA = '{"version": 5, "spec": {"messages": []}}'


def section(bundle: Json, name: str) -> dict[str, object]:
    return cast("dict[str, object]", bundle[name])


def small_bundle(wasm: bytes = b"\0asm", metadata: str = METADATA) -> Json:
    return compose_bundle(
        wasm=wasm, metadata=metadata, version="0.1.0", versions=VERSIONS, digest="00"
    )


@pytest.fixture(scope="module")
def committed() -> Json:
    return load_bundle(ROOT / BUNDLE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of every file that decides the bundle's bytes, and of the tests beside them."""
    for path in input_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    tests = tmp_path / "phala_job_processor" / "tests"
    tests.mkdir()
    (tests / "some.rs").write_text("#[test] fn some() {}")
    return tmp_path


def test_the_sources_have_not_changed_since_the_bundle_was_built(committed: Json) -> None:
    build_info = cast("dict[str, str]", section(committed, "source")["build_info"])

    assert build_info["inputs_sha256"] == inputs_digest(), (
        "the contract or its build changed: run `make contract` and commit the bundle"
    )


def test_the_bundle_names_the_tools_that_made_it(committed: Json) -> None:
    build_info = cast("dict[str, str]", section(committed, "source")["build_info"])
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]

    assert build_info["rustc"].startswith(f"rustc {toolchain['channel']} ")
    assert build_info["linker"].startswith("LLD ")
    assert build_info["wasm_opt"].startswith("wasm-opt version 132")


def test_the_bundle_names_the_hash_of_its_own_code(committed: Json) -> None:
    source = section(committed, "source")
    wasm = bytes.fromhex(cast("str", source["wasm"]).removeprefix("0x"))

    assert source["hash"] == "0x" + hashlib.blake2b(wasm, digest_size=32).hexdigest()
    assert len(wasm) <= 100 * 1024


def test_both_lock_files_agree_on_every_version_of_the_contract() -> None:
    def versions(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for package in tomllib.loads((ROOT / name).read_text())["package"]:
            found.setdefault(package["name"], set()).add(package["version"])
        return found

    contract, tools = versions("Cargo.lock"), versions("contract_build/Cargo.lock")

    shared = contract.keys() & tools.keys()
    assert {"ink", "phala_job_processor", "scale-info"} <= shared
    assert {name: tools[name] for name in shared if not tools[name] <= contract[name]} == {}


@pytest.mark.parametrize(
    "name",
    [
        "Cargo.lock",
        "Cargo.toml",
        "contract_build/package-lock.json",
        "contract_build/postprocess/src/strip.rs",
        "contract_build/recipe.py",
        "phala_job_processor/Cargo.toml",
        "phala_job_processor/lib.rs",
        "rust-toolchain.toml",
    ],
)
def test_a_change_of_what_decides_the_bytes_changes_the_digest(checkout: Path, name: str) -> None:
    before = inputs_digest(checkout)
    assert before == inputs_digest()

    with (checkout / name).open("a") as file:
        file.write("\n")

    assert inputs_digest(checkout) != before


def test_a_new_module_of_the_contract_changes_the_digest(checkout: Path) -> None:
    before = inputs_digest(checkout)

    (checkout / "phala_job_processor" / "added.rs").write_text("")

    assert inputs_digest(checkout) != before


def test_a_renamed_module_changes_the_digest(checkout: Path) -> None:
    before = inputs_digest(checkout)

    lib = checkout / "phala_job_processor" / "lib.rs"
    lib.rename(lib.with_name("library.rs"))

    assert inputs_digest(checkout) != before


def test_the_tests_of_the_contract_do_not_change_the_digest(checkout: Path) -> None:
    before = inputs_digest(checkout)

    (checkout / "phala_job_processor" / "tests" / "some.rs").write_text("")

    assert inputs_digest(checkout) == before


def test_a_missing_input_is_named(checkout: Path) -> None:
    (checkout / "Cargo.lock").unlink()

    with pytest.raises(FileNotFoundError, match=r"Cargo\.lock decides the bundle's bytes"):
        inputs_digest(checkout)


def test_a_bundle_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"

    dump_bundle(small_bundle(), one)
    dump_bundle(load_bundle(one), other)

    assert one.read_bytes() == other.read_bytes()


def test_the_code_hash_is_the_one_that_the_pallet_computes() -> None:
    # blake2b-256 of the empty string, RFC 7693 with a 32-byte digest.
    assert code_hash(b"") == "0x0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"


def test_other_code_and_other_metadata_are_told_apart() -> None:
    other_metadata = METADATA.replace("[]", '["new"]')

    assert differences(small_bundle(), small_bundle()) == []
    assert differences(small_bundle(), small_bundle(wasm=b"\0asm\1")) == ["source"]
    assert differences(small_bundle(), small_bundle(metadata=other_metadata)) == ["spec"]


class Built:
    """Runs `python -m contract_build` with a build that is known beforehand."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._patch = patch
        self.tested: list[Json] = []

    def run(self, *arguments: str, built: Json, reason: str | None = None) -> int:
        recipe = Canonical(root=self.root, target=self.root)

        def keep(bundle: Json, path: Path, why: str) -> int:
            assert why == reason
            assert path != self.root / BUNDLE
            self.tested.append(bundle)
            return 0

        self._patch.setattr(sys, "argv", ["contract_build", "--root", str(self.root), *arguments])
        self._patch.setattr(command, "find_recipe", lambda *_: (recipe, reason))
        self._patch.setattr(command, "_build", lambda _: built)
        self._patch.setattr(command, "_test_other_build", keep)
        return command.main()


@pytest.fixture
def building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    return Built(tmp_path, monkeypatch)


def test_a_build_writes_the_bundle(building: Built) -> None:
    assert building.run(built=small_bundle()) == 0

    assert load_bundle(building.root / BUNDLE) == small_bundle()


def test_the_check_accepts_the_same_build(building: Built) -> None:
    dump_bundle(small_bundle(), building.root / BUNDLE)

    assert building.run("--check", built=small_bundle()) == 0


def test_the_check_refuses_another_build_and_keeps_the_bundle(
    building: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    dump_bundle(small_bundle(), building.root / BUNDLE)

    assert building.run("--check", built=small_bundle(wasm=b"other")) == 1

    assert "source differ" in capsys.readouterr().err
    assert load_bundle(building.root / BUNDLE) == small_bundle()


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_build_that_is_not_canonical_is_tested_and_never_written(
    building: Built, arguments: list[str]
) -> None:
    dump_bundle(small_bundle(), building.root / BUNDLE)
    other = small_bundle(wasm=b"other")

    assert building.run(*arguments, built=other, reason="no rustup") == 0

    assert building.tested == [other]
    assert load_bundle(building.root / BUNDLE) == small_bundle()


def test_the_other_recipe_is_chosen_with_the_reason_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canonical, "missing", lambda _: "npm is not installed")
    monkeypatch.setattr(Debian, "missing", lambda _: None)

    recipe, reason = find_recipe(tmp_path, tmp_path)

    assert isinstance(recipe, Debian)
    assert reason == "npm is not installed"


def test_without_any_toolchain_both_reasons_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canonical, "missing", lambda _: "npm is not installed")
    monkeypatch.setattr(Debian, "missing", lambda _: "/usr/bin/wasm-ld is missing")

    with pytest.raises(RecipeError, match=r"(?s)npm is not installed.*wasm-ld is missing"):
        find_recipe(tmp_path, tmp_path)


def test_a_canonical_build_needs_rustup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert Canonical(root=tmp_path, target=tmp_path).missing() == "rustup is not installed"


@pytest.mark.parametrize(("installed", "expected"), [("132.0.0", True), ("131.0.0", False)])
def test_another_wasm_opt_than_the_pinned_one_is_replaced(
    tmp_path: Path, installed: str, expected: object
) -> None:
    folder = tmp_path / "contract_build"
    package = folder / "node_modules" / "binaryen" / "package.json"
    package.parent.mkdir(parents=True)
    shutil.copy(ROOT / "contract_build" / "package.json", folder)
    package.write_text(f'{{"version": "{installed}"}}')

    assert Canonical(root=tmp_path, target=tmp_path)._has_pinned_wasm_opt() is expected


def test_each_recipe_compiles_with_its_own_flags(tmp_path: Path) -> None:
    canonical = Canonical(root=tmp_path, target=tmp_path)
    debian = Debian(root=tmp_path, target=tmp_path)

    assert (canonical.wasm_target, canonical.rustflags) == ("wasm32v1-none", ())
    assert debian.wasm_target == "wasm32-unknown-unknown"
    assert "-Ctarget-cpu=mvp" in debian.rustflags
    assert debian.cargo_flags == ("-Zbuild-std=core,alloc",)
