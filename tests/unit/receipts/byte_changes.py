"""Changing a receipt byte by byte: every change outside its events has to be refused by a step."""

import random
from collections import Counter
from collections.abc import Iterable

from orchestrator.chain.cells import ContractCells
from orchestrator.receipts import examine_receipt

# A change inside one of these keeps the file's form more often than any other would.
_ALIKE = (b"0123456789", b"abcdef", b"ghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def events_range(data: bytes) -> range:
    """Where the events are, which nothing proves: their list from its first to its last bracket."""
    start = data.rindex(b'"events": [') + len(b'"events": [')
    return range(start, data.rindex(b"]"))


def alike(byte: int) -> int:
    """Another byte of the same kind: digits stay digits, letters letters."""
    for kind in _ALIKE:
        if byte in kind:
            return kind[(kind.index(byte) + 1) % len(kind)]
    return byte ^ 1


def refusals(
    data: bytes,
    places: Iterable[int],
    *,
    cells: ContractCells,
    trusted_block: bytes,
    changes: int,
    seed: int = 5,
) -> Counter[str]:
    """
    Change each byte of *places* so often, first to one of its kind, and count who refuses.

    A change counts for the first step that refuses it; one that none refuses counts for `nobody`.
    """
    source = random.Random(seed)
    found: Counter[str] = Counter()
    for at in places:
        others = source.sample([byte for byte in range(256) if byte != data[at]], changes - 1)
        for byte in [alike(data[at]), *others]:
            changed = data[:at] + bytes([byte]) + data[at + 1 :]
            report = examine_receipt(changed, cells=cells, trusted_block=trusted_block)
            found[report.failed[0].name if report.failed else f"nobody, byte {at}"] += 1
    return found
