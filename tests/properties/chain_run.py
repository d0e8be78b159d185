"""A run of random calls on a node and its mirror, and the table of what occurred."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from orchestrator.chain import Chain, Cursor, Receipt
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto.keys import AccountKey
from orchestrator.errors import ContractError
from orchestrator.models import Parameters, Role
from orchestrator.testing.mirror_chain import MirrorChain
from tests.properties.chain_calls import SECOND, AnyCall
from tests.properties.chain_model import Model
from tests.properties.chain_pair import Answer, Cells, DifferenceError, Pair
from tests.properties.chain_steps import UNREACHABLE, Steps
from tests.properties.chain_views import views

_NAMES = ("Alice", "Bob", "Charlie", "Dave", "Eve", "Ferdie")
_STATE_EVERY = 100
_VIEWS_EVERY = 1_000
# Deadlines pass by the node's clock: on a quick machine a run goes on until some have.
_AT_MOST = 3
_FIRST = Parameters(min_ttl=10 * SECOND, rate_limit=1_000, rate_window=5 * SECOND)
# A custom section, which means nothing: code of another hash that does the same.
_CUSTOM_SECTION = b"\0\6\5other"


class Run:
    """
    Deploys the contract on *node*, places it on a mirror, and makes *count* random calls on both.

    *cells* reads the node's storage. The draws follow from *seed*, the times are the node's.
    """

    def __init__(self, node: Chain, cells: Cells, *, seed: int, count: int) -> None:
        self.count = count
        self.made: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.compared: Counter[str] = Counter()
        self._seed = seed
        self._rng = random.Random(seed)
        self._accounts = [AccountKey.from_uri(f"//{name}") for name in _NAMES]
        self._pair = self._deploy(node, cells)
        processor = self._pair.processor
        self._model = Model(processor, node.genesis_hash, self._accounts, _FIRST)
        self._variants = processor.bundle.ink.shape("Error").variants
        self._steps = Steps(self._model, self._rng, codes=self._upload(), variants=self._variants)
        self.refused = self._steps.refused

    def go(self) -> None:
        """
        Make the calls, and compare everything at the end.

        Raises:
            DifferenceError: With the seed and the number of the call.
        """
        try:
            self._set_up()
            while self._goes_on():
                before = self.made.total()
                step = self._steps.next(self.count - before % self.count)
                if step.is_batch:
                    answers = self._pair.batch(step.calls, step.caller)
                else:
                    answers = [self._pair.call(step.calls[0], step.caller)]
                self._note(step.calls, answers)
                self._compare_sometimes(before)
            self._compare_all()
        except DifferenceError as error:
            raise DifferenceError(
                f"seed {self._seed}, call {self.made.total()}: {error}"
            ) from error
        finally:
            self._pair.mirror.close()

    @property
    def missing(self) -> list[str]:
        """Messages that were never accepted, and reachable `Error` variants that never occurred."""
        messages = self._pair.processor.bundle.ink.messages
        return [
            *(label for label in messages if not self.accepted[label]),
            *(v for v in self._variants if not self.refused[v] and v not in UNREACHABLE),
        ]

    def table(self) -> str:
        """Return what occurred how often."""
        rows = [f"  {label:26} {self.accepted[label]:5} of {self.made[label]:5} accepted"
                for label in self._pair.processor.bundle.ink.messages]  # fmt: skip
        rows += [
            f"  {variant:26} {self.refused[variant]:5} refused"
            + (f" (unreachable: {UNREACHABLE[variant]})" if variant in UNREACHABLE else "")
            for variant in self._variants
        ]
        compared = ", ".join(f"{number} {what}" for what, number in self.compared.items())
        total, good = self.made.total(), self.accepted.total()
        inside = self.refused_in_blocks
        first = f"{total} calls, {good} accepted, {inside} refused in blocks; compared {compared}"
        return "\n".join([first, *rows])

    @property
    def refused_in_blocks(self) -> int:
        """How many calls were sent and refused by the block, not by a dry run."""
        return self._pair.refused_in_blocks

    def _goes_on(self) -> bool:
        made = self.made.total()
        return made < self.count or (bool(self.missing) and made < _AT_MOST * self.count)

    def _deploy(self, node: Chain, cells: Cells) -> Pair:
        bundle, admin = load_bundle(), self._accounts[0]
        constructor = JobProcessor(bytes(32), bundle).new(node.genesis_hash, _FIRST)
        # The node may have run this seed before.
        salt = node.finalized_head().hash
        ours = node.deploy(bundle.code, constructor, signer=admin, salt=salt)
        mirror = MirrorChain(node.genesis_hash, time=ours.block.timestamp)
        theirs = mirror.place(ours.contract, bundle.code, constructor, deployer=admin.account_id)
        starts = [Cursor(block=d.block.number, index=-1) for d in (ours, theirs)]
        processor = JobProcessor(ours.contract, bundle)
        return Pair(node, mirror, processor, cells=cells, starts=(starts[0], starts[1]))

    def _upload(self) -> list[bytes]:
        """Upload the contract's code once more, and other code that does the same."""
        code, admin = load_bundle().code, self._accounts[0]
        hashes = []
        for variation in (code, code + _CUSTOM_SECTION):
            ours = self._pair.node.upload(variation, signer=admin)
            if ours != self._pair.mirror.upload(variation, signer=admin):
                raise DifferenceError("the code's hash")
            hashes.append(ours)
        return hashes

    def _set_up(self) -> None:
        """Give roles, allow measurements, register workers: enough for every message to work."""
        p, (admin, *others) = self._pair.processor, self._accounts
        ids = [account.account_id for account in self._accounts]
        roles = [(0, Role.REGISTRAR), (0, Role.OPERATOR), (0, Role.GUARDIAN), (1, Role.REGISTRAR),
                 (1, Role.OPERATOR), (2, Role.OPERATOR), (3, Role.GUARDIAN)]  # fmt: skip
        first: list[AnyCall] = [p.grant_role(ids[place], role) for place, role in roles]
        self._note(first, self._pair.batch(first, admin))
        measurements: list[AnyCall] = [
            p.allow_measurement(self._rng.randbytes(32)) for _ in range(3)
        ]
        self._note(measurements, self._pair.batch(measurements, others[0]))
        workers = [self._steps.calls.register() for _ in range(6)]
        known = [call for call in workers if call is not None]
        self._note(known, self._pair.batch(known, admin))

    def _note(self, calls: Sequence[AnyCall], answers: Sequence[Answer]) -> None:
        for call, answer in zip(calls, answers, strict=True):
            self.made[call.label] += 1
            if isinstance(answer, Receipt):
                self.accepted[call.label] += 1
                for event in answer.events:
                    self._model.learn(self._pair.processor.decode_event(event))
                items = answer.value if call.label == "complete_jobs" else []
                self.refused.update(i.variant for i in items if isinstance(i, ContractError))
            elif isinstance(answer, ContractError):
                self.refused[answer.variant] += 1
        self._model.now = self._pair.node.finalized_head().timestamp

    def _compare_sometimes(self, before: int) -> None:
        made = self.made.total()
        due: list[tuple[int, Callable[[], None]]] = [
            (_STATE_EVERY, self._compare_state),
            (_VIEWS_EVERY, self._compare_views),
        ]
        for every, compare in due:
            if made // every > before // every:
                compare()

    def _compare_all(self) -> None:
        self._compare_state()
        self._compare_views()

    def _compare_state(self) -> None:
        self.compared["events"] += self._pair.compare_events()
        self.compared["storage cells"] += self._pair.compare_state()

    def _compare_views(self) -> None:
        self.compared["views"] += self._pair.compare_views(views(self._model))
