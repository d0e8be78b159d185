"""
The contract's bundle: its code, code hash and metadata, checked to be ours.

A bundle is the JSON of `make contract`. Loading checks that the code hashes to what the bundle
says, that the metadata is of a known version, and that it is of this contract: the same name, and
every message, type and error that `chain.interface` lists. It does **not** check that a chain runs
this code; compare `Chain.code_hash` with `Bundle.code_hash` for that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from orchestrator.chain.ink import InkContract
from orchestrator.chain.interface import ADAPTERS, CONTRACT_ERRORS, CONTRACT_NAME, MESSAGES
from orchestrator.chain.registry import bytes_at, object_at, text_at
from orchestrator.errors import ChainMismatchError, InputError

__all__ = ["CONTRACT_VERSIONS", "MAX_BUNDLE_BYTES", "Bundle", "load_bundle"]

CONTRACT_VERSIONS = (1,)
"""The versions of the contract's storage, and so of its protocol, that are known here."""

MAX_BUNDLE_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The contract as built: `ink` encodes and decodes by its metadata."""

    name: str
    version: str
    code: bytes
    code_hash: bytes
    metadata: Mapping[str, object]
    ink: InkContract


def load_bundle(path: Path | None = None) -> Bundle:
    """
    Return the bundle at *path*, or the one that ships with this package.

    Raises:
        InputError: The file can't be read, is too large, or is not JSON.
        ChainMismatchError: It is damaged, or of another contract or metadata version.
    """
    return _packaged() if path is None else _load(path, str(path))


@cache
def _packaged() -> Bundle:
    found = resources.files("orchestrator") / "contract" / f"{CONTRACT_NAME}.contract"
    return _load(found, f"{CONTRACT_NAME}.contract of this package")


def _load(source: Traversable, shown: str) -> Bundle:
    try:
        with source.open("rb") as file:
            raw = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        message = f"{shown}: {error.strerror or error}"
        raise InputError(message) from error
    if len(raw) > MAX_BUNDLE_BYTES:
        message = f"{shown}: more than {MAX_BUNDLE_BYTES} bytes, which no bundle has"
        raise InputError(message)
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError) as error:
        message = f"{shown}: not a bundle: it is not JSON"
        raise InputError(message) from error
    if not isinstance(metadata, dict):
        message = f"{shown}: not a bundle: it holds no JSON object"
        raise InputError(message)
    try:
        return _checked(metadata)
    except ChainMismatchError as error:
        message = f"{shown}: {error}"
        raise ChainMismatchError(message) from error


def _checked(metadata: Mapping[str, object]) -> Bundle:
    contract = object_at(metadata, "contract")
    name = text_at(contract, "name")
    if name != CONTRACT_NAME:
        message = f"the bundle is of the contract {name}, not {CONTRACT_NAME}"
        raise ChainMismatchError(message)
    source = object_at(metadata, "source")
    code = bytes_at(source, "wasm")
    code_hash = bytes_at(source, "hash")
    found = blake2b(code, digest_size=32).digest()
    if found != code_hash:
        message = f"the code hashes to {found.hex()}, not to the bundle's {code_hash.hex()}"
        raise ChainMismatchError(message)
    ink = InkContract(metadata, ADAPTERS)
    _check_messages(ink)
    return Bundle(
        name=name,
        version=text_at(contract, "version"),
        code=code,
        code_hash=code_hash,
        metadata=metadata,
        ink=ink,
    )


def _check_messages(ink: InkContract) -> None:
    for label, arguments in MESSAGES.items():
        spec = ink.messages.get(label)
        if spec is None or spec.arguments != arguments:
            found = "no such message" if spec is None else f"({', '.join(spec.arguments)})"
            message = f"{label}: {found} in the metadata, ({', '.join(arguments)}) expected"
            raise ChainMismatchError(message)
    constructor = ink.constructors.get("new")
    if constructor is None or constructor.arguments != ("genesis_hash", "parameters"):
        message = "the metadata has no constructor new(genesis_hash, parameters)"
        raise ChainMismatchError(message)
    if ink.shape("Error").variants != CONTRACT_ERRORS:
        message = "the contract's errors are not those of this version"
        raise ChainMismatchError(message)
