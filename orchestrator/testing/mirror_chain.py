"""
An embedded chain that follows another chain, so that a test can compare the two.

It is in memory alone and no URL opens it: nothing that runs in earnest can have a contract at an
address of choice, or a time of choice.
"""

from orchestrator.chain import ContractCall, Deployment
from orchestrator.chain.embedded import EmbeddedChain

__all__ = ["MirrorChain"]


class MirrorChain(EmbeddedChain):
    """
    An embedded chain in memory with another chain's genesis hash and times.

    `time` is the time (ms) that dry runs and reads see and the next block gets. It can't be put
    before the last block's, as on any chain: `dry_run` at an earlier time comes first.
    """

    def __init__(self, genesis_hash: bytes, *, time: int) -> None:
        self.time = time
        self._genesis_hash = genesis_hash
        super().__init__(":memory:", clock=lambda: self.time)

    @property
    def genesis_hash(self) -> bytes:
        """The other chain's identity."""
        return self._genesis_hash

    def place(
        self, contract: bytes, code: bytes, constructor: ContractCall[None], *, deployer: bytes
    ) -> Deployment:
        """
        Instantiate *code* at the address that the contract has on the other chain.

        Raises:
            InputError: The code is refused, or the address is taken.
            ContractError: The constructor refused.
            ContractTrappedError: The constructor trapped.
        """
        return self._deploy_at(contract, code, constructor, deployer)

    def cells(self, contract: bytes) -> dict[bytes, bytes]:
        """Return every storage cell of the contract, by key."""
        keys = self.cell_sizes(contract)
        with self._state.reading():
            found = self._state.contract(contract)
            if found is None:
                return {}
            return {key: self._state.cell(found[0], key) or b"" for key in keys}
