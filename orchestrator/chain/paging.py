"""Lists of the contract, page by page, from a node that may answer anything."""

from collections.abc import Iterator
from typing import Final

from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.errors import ChainMismatchError
from orchestrator.models import Worker

__all__ = ["all_workers", "next_place"]

_PAGE: Final = 50


def all_workers(chain: Chain, processor: JobProcessor) -> Iterator[Worker]:
    """
    Return all registered workers by id, revoked ones too; a page is read when it is reached.

    Raises:
        ChainMismatchError: The node's pages do not advance.
    """
    start: int | None = 1
    while start is not None:
        page = chain.read(processor.workers_page(start, _PAGE))
        yield from page.items
        start = next_place("workers_page", start, page.next)


def next_place(label: str, place: int, following: int | None) -> int | None:
    """
    Return where to go on after *place*; a node that does not advance would keep us for ever.

    Raises:
        ChainMismatchError: It does not.
    """
    if following is not None and following <= place:
        raise ChainMismatchError(f"{label}: the node answers to go on at {following} after {place}")
    return following
