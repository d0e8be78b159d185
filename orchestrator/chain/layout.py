"""
Where a contract's storage keeps what, by its metadata: two builds with one layout fit each other.

It does **not** see what a contract packs into bytes by itself; that is what the contract's own
storage version is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.chain.bundle import Bundle
from orchestrator.chain.registry import int_at, object_at, objects_at
from orchestrator.errors import ChainMismatchError

__all__ = ["require_same_layout"]

_TYPES = frozenset({"ty", "type", "tuple"})
_UNSAID = frozenset({"docs", "typeName"})  # nothing about the bytes


def require_same_layout(new: Bundle, known: Bundle) -> None:
    """
    Refuse a build that keeps its storage elsewhere, or in other types, than the *known* one.

    Raises:
        ChainMismatchError: It does, or its metadata does not say.
    """
    if _Layout.of(new).resolved() != _Layout.of(known).resolved():
        raise ChainMismatchError(
            f"the storage of code 0x{new.code_hash.hex()} is laid out differently from that of"
            f" code 0x{known.code_hash.hex()}: it would read what is stored as something else"
        )


@dataclass(frozen=True)
class _Layout:
    storage: Mapping[str, object]
    types: Mapping[int, Mapping[str, object]]

    @classmethod
    def of(cls, bundle: Bundle) -> "_Layout":
        listed = objects_at(bundle.metadata, "types")
        return cls(
            storage=object_at(bundle.metadata, "storage"),
            types={int_at(item, "id"): object_at(item, "type") for item in listed},
        )

    def resolved(self) -> object:
        """The layout with every type written out: its number differs from build to build."""
        return self._written_out(self.storage, ())

    def _written_out(self, value: object, inside: tuple[int, ...]) -> object:
        if isinstance(value, list):
            return [self._written_out(held, inside) for held in value]
        if not isinstance(value, Mapping):
            return value
        return {
            key: self._types_of(held, inside) if key in _TYPES else self._written_out(held, inside)
            for key, held in value.items()
            if key not in _UNSAID
        }

    def _types_of(self, value: object, inside: tuple[int, ...]) -> object:
        if isinstance(value, list):
            return [self._types_of(held, inside) for held in value]
        return self._type(value, inside) if isinstance(value, int) else value

    def _type(self, type_id: int, inside: tuple[int, ...]) -> object:
        if type_id in inside:
            return f"recursion {len(inside) - inside.index(type_id)} up"
        if type_id not in self.types:
            raise ChainMismatchError(f"the metadata has no type {type_id}")
        return self._written_out(self.types[type_id], (*inside, type_id))
