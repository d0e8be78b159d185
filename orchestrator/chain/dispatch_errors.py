"""Why a runtime refused: the names of its pallets' errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from orchestrator.chain.runtime_types import RuntimeTypes
from orchestrator.chain.scale import Variant

__all__ = ["DispatchErrors", "DispatchFailure"]


@dataclass(frozen=True, kw_only=True)
class DispatchFailure:
    """Why the runtime refused: `pallet` is `Contracts` or another, or the kind of error."""

    pallet: str
    name: str

    def __str__(self) -> str:
        return f"{self.pallet}.{self.name}"


class DispatchErrors:
    """The errors of a runtime with *pallets*; `codec` is of its `DispatchError`."""

    def __init__(self, types: RuntimeTypes, pallets: Mapping[str, Mapping[str, object]]) -> None:
        self._types = types
        self._pallets = pallets
        self.codec = types.codec(types.id_of(("sp_runtime", "DispatchError")))

    def failure(self, error: object) -> DispatchFailure:
        """Return the name of a decoded `DispatchError`."""
        variant = cast("Variant", error)
        if variant.name != "Module":
            inner = variant.value
            name = inner.name if isinstance(inner, Variant) else variant.name
            return DispatchFailure(pallet=variant.name, name=name)
        fields = cast("Mapping[str, object]", variant.value)
        index, code = fields["index"], cast("Sequence[int]", fields["error"])[0]
        for name, pallet in self._pallets.items():
            if pallet["index"] == index and pallet["error"] is not None:
                errors = self._types.variants(cast("Mapping[str, int]", pallet["error"])["ty"])
                return DispatchFailure(pallet=name, name=errors.get(code, f"error {code}"))
        return DispatchFailure(pallet=f"pallet {index}", name=f"error {code}")
