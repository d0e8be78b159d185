"""Two builds fit each other when they keep the same things in the same places."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.chain.bundle import Bundle, load_bundle
from orchestrator.chain.layout import require_same_layout
from orchestrator.errors import ChainMismatchError


def changed(change: Callable[[Any], None]) -> Bundle:
    bundle = load_bundle()
    metadata = json.loads(json.dumps(dict(bundle.metadata)))
    change(metadata)
    return replace(bundle, metadata=metadata)


def fields(metadata: Any) -> Any:  # noqa: ANN401 - JSON
    return metadata["storage"]["root"]["layout"]["struct"]["fields"]


def renumbered(metadata: Any) -> None:  # noqa: ANN401 - JSON
    """Give every type another number, as another build may."""
    count = len(metadata["types"])

    def number(value: Any, *, is_type: bool = False) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            return {
                key: number(held, is_type=key in ("ty", "type", "tuple"))
                for key, held in value.items()
            }
        if isinstance(value, list):
            return [number(held, is_type=is_type) for held in value]
        return count - 1 - value if is_type and isinstance(value, int) else value

    for name in ("types", "storage"):
        metadata[name] = number(metadata[name])
    for item in metadata["types"]:
        item["id"] = count - 1 - item["id"]


def documented(metadata: Any) -> None:  # noqa: ANN401 - JSON
    for item in metadata["types"]:
        item["type"]["docs"] = ["Other words."]


@pytest.mark.parametrize("change", [lambda _: None, renumbered, documented])
def test_what_says_nothing_of_the_bytes_may_differ(change: Callable[[Any], None]) -> None:
    require_same_layout(changed(change), load_bundle())


def moved(metadata: Any) -> None:  # noqa: ANN401 - JSON
    fields(metadata).reverse()


def added(metadata: Any) -> None:  # noqa: ANN401 - JSON
    fields(metadata).append(fields(metadata)[0])


def retyped(metadata: Any) -> None:  # noqa: ANN401 - JSON
    fields(metadata)[0]["layout"]["leaf"]["ty"] += 1


def other_cell(metadata: Any) -> None:  # noqa: ANN401 - JSON
    metadata["storage"]["root"]["root_key"] = "0x00000001"


def other_primitive(metadata: Any) -> None:  # noqa: ANN401 - JSON
    version = fields(metadata)[0]["layout"]["leaf"]["ty"]
    metadata["types"][version]["type"]["def"] = {"primitive": "u64"}


def deeper(metadata: Any) -> None:  # noqa: ANN401 - JSON
    """Change a type that the storage names only through another: what a mapping holds."""
    roles = next(
        item["type"]
        for item in metadata["types"]
        if item["type"].get("path", [""])[-1] == "Mapping"
    )
    key = next(part["type"] for part in roles["params"] if part["name"] == "K")
    metadata["types"][key]["type"]["def"] = {"primitive": "u8"}


def missing(metadata: Any) -> None:  # noqa: ANN401 - JSON
    fields(metadata)[0]["layout"]["leaf"]["ty"] = 100_000


@pytest.mark.parametrize(
    "change", [moved, added, retyped, other_cell, other_primitive, deeper, missing]
)
def test_what_moves_or_retypes_what_is_stored_is_refused(change: Callable[[Any], None]) -> None:
    with pytest.raises(ChainMismatchError):
        require_same_layout(changed(change), load_bundle())


def test_a_type_that_holds_itself_has_an_end() -> None:
    def recursive(metadata: Any) -> None:  # noqa: ANN401 - JSON
        version = fields(metadata)[0]["layout"]["leaf"]["ty"]
        metadata["types"][version]["type"]["def"] = {"sequence": {"type": version}}

    require_same_layout(changed(recursive), changed(recursive))
