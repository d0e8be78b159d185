"""The `.contract` bundle: metadata, code, and where both came from, in one JSON file."""

import hashlib
import json
from pathlib import Path
from typing import cast

__all__ = ["BUNDLE", "code_hash", "compose_bundle", "differences", "dump_bundle", "load_bundle"]

BUNDLE = Path("orchestrator/contract/phala_job_processor.contract")
AUTHORS = ["The phala-jobs authors"]

Json = dict[str, object]


def code_hash(wasm: bytes) -> str:
    """Return the hash by which the pallet knows the code, as 0x and hex."""
    return "0x" + hashlib.blake2b(wasm, digest_size=32).hexdigest()


def compose_bundle(
    *, wasm: bytes, metadata: str, version: str, versions: dict[str, str], digest: str
) -> Json:
    """
    Put code and metadata together the way that ink! tools expect.

    `build_info` names what made the bytes: the tools' *versions*, and the *digest* of all inputs.
    """
    source = {
        "hash": code_hash(wasm),
        "language": "ink! 5.1.1",
        "compiler": versions["rustc"],
        "wasm": "0x" + wasm.hex(),
        "build_info": {"build_mode": "Release", **versions, "inputs_sha256": digest},
    }
    contract = {"name": "phala_job_processor", "version": version, "authors": AUTHORS}
    return {"source": source, "contract": contract, **cast("Json", json.loads(metadata))}


def dump_bundle(bundle: Json, path: Path) -> None:
    """Write the bundle; the same bundle is always the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bundle, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_bundle(path: Path) -> Json:
    """Read a bundle as plain JSON; nothing in it is checked."""
    return cast("Json", json.loads(path.read_text(encoding="utf-8")))


def differences(built: Json, committed: Json) -> list[str]:
    """Name every part in which two bundles differ."""
    return [name for name in sorted({*built, *committed}) if built.get(name) != committed.get(name)]
