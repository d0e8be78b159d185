"""Fills blocks of a node that makes one each second, and tells how full they were."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chain_world import OPERATOR, ChainWorld
from orchestrator.chain import ContractCall
from orchestrator.chain.answers import at_key, hex_bytes, hex_text
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.dry_runs import DryRuns
from orchestrator.chain.extrinsics import Sender
from orchestrator.chain.node import Node
from orchestrator.chain.pallet_calls import call_of
from orchestrator.chain.runtime import Mortality
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.crypto.accounts import AccountKey
from orchestrator.encoding import to_ss58
from orchestrator.models import Scheme

__all__ = ["fill_blocks"]

# Enough for several full blocks of submissions, and for one of complete_jobs.
SUBMISSIONS = 3_300
GROUP = 10
AT_ONCE = 50
NORMAL_WEIGHT = 1_500_000_000_000
FLAGS = ("--block-time", "1000", "--finalize-delay-sec", "0")
_ACCOUNTS = tuple(AccountKey.from_uri(f"//{name}") for name in ("Bob", "Charlie", "Eve", "Ferdie"))


class _Filler:
    def __init__(self, url: str) -> None:
        self._node = Node(url, timeout_seconds=60.0)
        self._node.open()
        self._dry_runs = DryRuns(self._node)
        self._sender = Sender(self._node, finality_seconds=60.0)
        self._nonces: Counter[bytes] = Counter()

    def close(self) -> None:
        self._node.close()

    def send(self, calls: Sequence[ContractCall[object]], signers: Sequence[AccountKey]) -> None:
        """Send each call by one of the signers in turn, each with the limits of the first."""
        runtime, rpc = self._node.runtime(), self._node.rpc
        _, dry = self._dry_runs.call(calls[0], signers[0].account_id)
        for signer in signers:
            answer = rpc.request("system_accountNextIndex", to_ss58(signer.account_id))
            assert isinstance(answer, int)
            self._nonces[signer.account_id] = answer
        head = self._node.heads.finalized
        birth = Mortality(number=head.number, hash=head.hash)
        extrinsics = []
        for place, call in enumerate(calls):
            signer = signers[place % len(signers)]
            nonce = self._nonces[signer.account_id]
            self._nonces[signer.account_id] += 1
            extrinsics.append(
                runtime.sign(call_of(call, dry), signer=signer, nonce=nonce, mortality=birth)
            )
        for start in range(0, len(extrinsics), AT_ONCE):
            rpc.request_all(
                [
                    ("author_submitExtrinsic", (hex_text(extrinsic),))
                    for extrinsic in extrinsics[start : start + AT_ONCE]
                ]
            )

    def wait_until_done(self) -> None:
        """Wait until everything that was sent is in a block."""
        for account, nonce in self._nonces.items():
            while self._sender.nonce_at(account, self._node.heads.finalized.hash) < nonce:
                time.sleep(0.5)

    def head(self) -> int:
        return self._node.heads.finalized.number

    def fullest(self, first: int, last: int) -> tuple[int, float]:
        """The most transactions in one block, and the share of the normal weight they took."""
        best = (0, 0.0)
        for number in range(first, last + 1):
            block_hash = self._node.rpc.request("chain_getBlockHash", number)
            block = at_key(self._node.rpc.request("chain_getBlock", block_hash), "block", "a block")
            extrinsics = at_key(block, "extrinsics", "extrinsics")
            assert isinstance(extrinsics, list)
            # The first one is the block's time.
            best = max(best, (len(extrinsics) - 1, self._weight(str(block_hash)) / NORMAL_WEIGHT))
        return best

    def _weight(self, block_hash: str) -> int:
        runtime = self._node.runtime()
        key = runtime.storage_key("System", "BlockWeight")
        found = hex_bytes(self._node.rpc.request("state_getStorage", key, block_hash), "a weight")
        weight = runtime.decode_storage("System", "BlockWeight", found)
        ref_time = at_key(at_key(weight, "normal", "a class"), "ref_time", "a weight")
        assert isinstance(ref_time, int)
        return ref_time


def fill_blocks(program: Path, payload: bytes) -> dict[str, tuple[int, float]]:
    """The most transactions of each kind in one block, and the share of its weight they took."""
    with DevNode(program, flags=FLAGS) as node:
        chain = SubstrateChain(node.url)
        world = ChainWorld(chain, Scheme.ECDSA)
        filler = _Filler(node.url)
        found = {}
        first = filler.head()
        filler.send([world.submission(payload)] * SUBMISSIONS, _ACCOUNTS)
        filler.wait_until_done()
        found["submit_confidential_job"] = filler.fullest(first, filler.head())
        assert chain.read(world.processor.get_job_counter()) == SUBMISSIONS
        done = [world.completion(job_id, payload) for job_id in range(1, SUBMISSIONS + 1)]
        groups = [done[start : start + GROUP] for start in range(0, len(done), GROUP)]
        first = filler.head()
        filler.send([world.processor.complete_jobs(group) for group in groups], [OPERATOR])
        filler.wait_until_done()
        found["complete_jobs of ten"] = filler.fullest(first, filler.head())
        last = chain.read(world.processor.get_job(SUBMISSIONS))
        assert last is not None
        assert last.processed
        filler.close()
        chain.close()
    return found
