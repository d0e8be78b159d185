"""
A thin codec for ink! contracts: messages, results and events, by the contract's metadata.

* Arguments are given by name and checked against the metadata; bytes stay bytes.
* A result is decoded whole: ink! wraps it in `Result<_, LangError>`, and a message that can be
  refused wraps its value in `Result<_, Error>` once more. The contract's error becomes a
  `ContractError`; a `LangError` says that the code on the chain is not this metadata's.
* An event is known by its first topic alone, and its fields are read from its data alone. Other
  topics may hold anything (substrate-interface looks at all of them).

It does **not** know what any message means; `chain.processor` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.chain.registry import (
    Adapter,
    Registry,
    TypeShape,
    bytes_at,
    int_at,
    object_at,
    objects_at,
    text_at,
)
from orchestrator.chain.scale import Codec, Variant, decode, struct
from orchestrator.errors import ChainMismatchError, ContractError, EncodingError, InputError

__all__ = ["METADATA_VERSION", "EventSpec", "InkContract", "MessageSpec"]

METADATA_VERSION = 5


@dataclass(frozen=True, kw_only=True)
class MessageSpec:
    """One message or constructor; `refusable` says that its value is a `Result<_, Error>`."""

    label: str
    selector: bytes
    mutates: bool
    arguments: tuple[str, ...]
    codec: Codec
    result: Codec
    refusable: bool


@dataclass(frozen=True, kw_only=True)
class EventSpec:
    """One event and the codec of its fields."""

    label: str
    topic: bytes
    fields: tuple[str, ...]
    codec: Codec


class InkContract:
    """
    Encodes and decodes what one contract is sent, returns and emits.

    Raises:
        ChainMismatchError: The metadata is of another version or malformed, or an adapter's class
            differs from the contract's type.
    """

    def __init__(
        self, metadata: Mapping[str, object], adapters: Mapping[str, Adapter] | None = None
    ) -> None:
        version = metadata.get("version")
        if str(version) != str(METADATA_VERSION):
            message = f"the metadata is of version {version}, not {METADATA_VERSION}"
            raise ChainMismatchError(message)
        self._registry = Registry(objects_at(metadata, "types"), adapters or {})
        spec = object_at(metadata, "spec")
        self.constructors = {
            text_at(item, "label"): self._message(item, mutates=True)
            for item in objects_at(spec, "constructors")
        }
        self.messages = {
            text_at(item, "label"): self._message(item, mutates=item.get("mutates") is True)
            for item in objects_at(spec, "messages")
        }
        events = [self._event(item) for item in objects_at(spec, "events")]
        self.events = {event.topic: event for event in events}
        if len(self.events) != len(events):
            message = "two events of the metadata have one signature topic"
            raise ChainMismatchError(message)

    def shape(self, name: str) -> TypeShape:
        """Return the fields or variants of the contract's type *name*, in order."""
        return self._registry.named(name)

    def encode_message(self, label: str, **arguments: object) -> bytes:
        """
        Return the call data of a message.

        Raises:
            InputError: An argument is missing, unknown, or not a value of its type.
            ChainMismatchError: The contract has no such message.
        """
        return _encode(_spec(self.messages, label, "message"), arguments)

    def encode_constructor(self, label: str, **arguments: object) -> bytes:
        """Return the call data of a constructor; raises as `encode_message` does."""
        return _encode(_spec(self.constructors, label, "constructor"), arguments)

    def decode_result(self, label: str, data: bytes) -> object:
        """
        Return the value that a message returned.

        Raises:
            ContractError: The contract refused.
            ChainMismatchError: The code on the chain does not know the message, or answers with
                bytes that are not of its result type.
        """
        return _decode_result(_spec(self.messages, label, "message"), data)

    def decode_construction(self, label: str, data: bytes) -> None:
        """Check what a constructor returned; raises as `decode_result` does."""
        _decode_result(_spec(self.constructors, label, "constructor"), data)

    def decode_event(self, topics: tuple[bytes, ...], data: bytes) -> tuple[str, dict[str, object]]:
        """
        Return an event's name and fields.

        Raises:
            ChainMismatchError: It is not an event of this contract's metadata.
        """
        event = self.events.get(topics[0]) if topics else None
        if event is None:
            shown = topics[0].hex() if topics else "none"
            message = f"no event of the contract has the signature topic {shown}"
            raise ChainMismatchError(message)
        try:
            value = decode(event.codec, data)
        except EncodingError as error:
            message = f"the data of an event {event.label} is not of its type: {error}"
            raise ChainMismatchError(message) from error
        return event.label, value if isinstance(value, dict) else {}

    def _message(self, item: Mapping[str, object], *, mutates: bool) -> MessageSpec:
        arguments = [
            (text_at(arg, "label"), self._registry.codec(int_at(object_at(arg, "type"), "type")))
            for arg in objects_at(item, "args")
        ]
        returns = int_at(object_at(item, "returnType"), "type")
        wrapped = self._registry.shape(returns)
        label = text_at(item, "label")
        if wrapped.name != "Result":
            message = f"{label} does not return a Result of ink!"
            raise ChainMismatchError(message)
        inner = self._registry.shape(self._registry.parameters(returns)[0])
        return MessageSpec(
            label=label,
            selector=bytes_at(item, "selector"),
            mutates=mutates,
            arguments=tuple(name for name, _ in arguments),
            codec=struct(arguments),
            result=self._registry.codec(returns),
            refusable=inner.name == "Result",
        )

    def _event(self, item: Mapping[str, object]) -> EventSpec:
        fields = [
            (text_at(arg, "label"), self._registry.codec(int_at(object_at(arg, "type"), "type")))
            for arg in objects_at(item, "args")
        ]
        return EventSpec(
            label=text_at(item, "label"),
            topic=bytes_at(item, "signature_topic"),
            fields=tuple(name for name, _ in fields),
            codec=struct(fields),
        )


def _spec(specs: Mapping[str, MessageSpec], label: str, kind: str) -> MessageSpec:
    spec = specs.get(label)
    if spec is None:
        message = f"the contract has no {kind} {label}"
        raise ChainMismatchError(message)
    return spec


def _encode(spec: MessageSpec, arguments: Mapping[str, object]) -> bytes:
    if set(arguments) != set(spec.arguments):
        message = f"{spec.label}: takes {', '.join(spec.arguments)}, not {', '.join(arguments)}"
        raise InputError(message)
    out = bytearray(spec.selector)
    try:
        spec.codec.encode_to({name: arguments[name] for name in spec.arguments}, out)
    except InputError as error:
        message = f"{spec.label}: {error}"
        raise InputError(message) from error
    return bytes(out)


def _decode_result(spec: MessageSpec, data: bytes) -> object:
    try:
        value = decode(spec.result, data)
    except EncodingError as error:
        message = f"{spec.label} answered with bytes that are not of its result type: {error}"
        raise ChainMismatchError(message) from error
    value = _ok(value, spec, is_language=True)
    return _ok(value, spec, is_language=False) if spec.refusable else value


def _ok(value: object, spec: MessageSpec, *, is_language: bool) -> object:
    if isinstance(value, Variant) and value.name == "Ok":
        return value.value
    error = value.value if isinstance(value, Variant) else None
    name = error.name if isinstance(error, Variant) else str(error)
    if is_language:
        message = f"the contract did not understand {spec.label}: {name}"
        raise ChainMismatchError(message)
    raise ContractError(name, spec.label)
