"""
Vectors for every message, constructor, returned value and event, made from a bundle's metadata.

Nothing is frozen: a contract that changes gets other vectors. The types are walked here, apart
from `orchestrator.chain.registry`, so that what is compared with other people's codecs is our
codec and not this file. Each case has a value as our codec takes it, and the same in JSON for the
other side: integers are decimal text, bytes 0x text, an enum `{"variant", "value"}`, an absent
option null.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.chain.ink import InkContract
from orchestrator.chain.scale import Codec, Variant

# Where SCALE changes the width of a length, and what a decoder could take for text or hex.
_LENGTHS = (0, 1, 32, 63, 64, 255, 16_383, 16_384)
_TRAPS = (b"0xabcd", "héllo".encode(), b"\xff\xfe", b'{"a": 1}')
_MAX_ITEMS = 3

Json = Any
Metadata = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    One vector.

    `kind` is `call` and `result` of a message, `construction` and `constructed` of a constructor,
    or `event`. `value` is what `codec` encodes (after the selector, `prefix`), `json` the same.
    """

    kind: str
    label: str
    value: object
    json: Json
    codec: Codec
    prefix: bytes = b""


@dataclass
class Values:
    """Values of the metadata's types from a seed; every variant of an enum has its turn."""

    metadata: Metadata
    seed: int
    used: dict[int, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._types = {entry["id"]: entry["type"] for entry in self.metadata["types"]}
        self._turns: Counter[object] = Counter()

    def fields(self, arguments: Sequence[Metadata]) -> tuple[dict[str, object], Json]:
        """Return values for the arguments of a message, or the fields of an event."""
        pairs = {arg["label"]: self.make(arg["type"]["type"]) for arg in arguments}
        return (
            {name: value for name, (value, _) in pairs.items()},
            {name: json for name, (_, json) in pairs.items()},
        )

    def make(self, type_id: int) -> tuple[object, Json]:
        """Return a value of a type, and the same in JSON."""
        kind, body = next(iter(self._types[type_id]["def"].items()))
        match kind:
            case "primitive":
                return self._primitive(body)
            case "sequence" | "array":
                return self._list(type_id, body, kind)
            case "tuple":
                return self._tuple(body)
            case "composite":
                return self._composite(body.get("fields", []))
            case "variant":
                return self._variant(type_id, body.get("variants", []))
        message = f"a type {kind} is not used here"
        raise NotImplementedError(message)

    def variants(self, type_id: int) -> list[str]:
        """Return the names of an enum's variants."""
        return [v["name"] for v in self._types[type_id]["def"]["variant"]["variants"]]

    def _turn(self, key: object, choices: int) -> int:
        self._turns[key] += 1
        return (self._turns[key] - 1) % choices

    def _primitive(self, name: str) -> tuple[object, Json]:
        if name == "bool":
            truth = bool(self._turn(name, 2))
            return truth, truth
        assert name.startswith("u"), f"a primitive {name} is not used here"
        largest = 2 ** int(name[1:]) - 1
        number = (0, largest, self._random.randint(0, largest))[self._turn(name, 3)]
        return number, str(number)

    def _list(self, type_id: int, body: Metadata, kind: str) -> tuple[object, Json]:
        if self._types[body["type"]]["def"] == {"primitive": "u8"}:
            data = self._bytes(type_id, body.get("len"))
            return data, f"0x{data.hex()}"
        count = body["len"] if kind == "array" else self._turn(type_id, _MAX_ITEMS + 1)
        pairs = [self.make(body["type"]) for _ in range(count)]
        return tuple(value for value, _ in pairs), [json for _, json in pairs]

    def _bytes(self, type_id: int, length: int | None) -> bytes:
        if length is not None:
            return self._random.randbytes(length)
        turn = self._turn(type_id, len(_TRAPS) + len(_LENGTHS))
        if turn < len(_TRAPS):
            return _TRAPS[turn]
        return self._random.randbytes(_LENGTHS[turn - len(_TRAPS)])

    def _tuple(self, items: Sequence[int]) -> tuple[object, Json]:
        pairs = [self.make(item) for item in items]
        if not pairs:
            return None, None
        return tuple(value for value, _ in pairs), [json for _, json in pairs]

    def _composite(self, parts: Sequence[Metadata]) -> tuple[object, Json]:
        pairs = [(part.get("name"), *self.make(part["type"])) for part in parts]
        named = bool(pairs) and all(name for name, _, _ in pairs)
        values = [value for _, value, _ in pairs]
        jsons = [json for _, _, json in pairs]
        if named:
            names = [str(name) for name, _, _ in pairs]
            # ink-contracts shows a struct of one field as that field, whatever its name.
            json = dict(zip(names, jsons, strict=True)) if len(pairs) > 1 else jsons[0]
            return dict(zip(names, values, strict=True)), json
        if len(pairs) <= 1:
            return (values[0], jsons[0]) if pairs else (None, None)
        return tuple(values), jsons

    def _variant(self, type_id: int, variants: Sequence[Metadata]) -> tuple[object, Json]:
        chosen = variants[self._turn(type_id, len(variants))]
        name = chosen["name"]
        self.used.setdefault(type_id, Counter())[name] += 1
        parts = chosen.get("fields", [])
        if self._types[type_id].get("path") == ["Option"]:
            return self.make(parts[0]["type"]) if name == "Some" else (None, None)
        value, json = self._composite(parts)
        return Variant(name, value), {"variant": name, "value": json}


def cases(metadata: Metadata, ink: InkContract, values: Values, rounds: int) -> Iterator[Case]:
    """Yield *rounds* cases of each kind for all that the metadata has; *ink* has no adapters."""
    spec = metadata["spec"]
    topics = {
        event["label"]: bytes.fromhex(event["signature_topic"][2:]) for event in spec["events"]
    }
    for _ in range(rounds):
        for specs, found, sent, answered in (
            (spec["messages"], ink.messages, "call", "result"),
            (spec["constructors"], ink.constructors, "construction", "constructed"),
        ):
            for item in specs:
                label, ours = item["label"], found[item["label"]]
                value, json = values.fields(item["args"])
                prefix = bytes.fromhex(item["selector"][2:])
                yield Case(
                    kind=sent, label=label, value=value, json=json, codec=ours.codec, prefix=prefix
                )
                result, json = values.make(item["returnType"]["type"])
                yield Case(kind=answered, label=label, value=result, json=json, codec=ours.result)
        for item in spec["events"]:
            value, json = values.fields(item["args"])
            codec = ink.events[topics[item["label"]]].codec
            yield Case(kind="event", label=item["label"], value=value, json=json, codec=codec)
