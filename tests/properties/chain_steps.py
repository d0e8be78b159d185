"""Which calls come next: single ones and batches, good ones, bad ones, the same one twice."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.crypto.keys import AccountKey
from orchestrator.models import Mode
from tests.properties.chain_calls import AnyCall, Recipe
from tests.properties.chain_job_faults import JobFaults, StatementFaults
from tests.properties.chain_model import Model
from tests.properties.chain_rule_calls import Calls
from tests.properties.chain_rule_faults import RuleFaults, WorkerFaults

# `Error` variants that no call can cause, and why.
UNREACHABLE: Mapping[str, str] = {
    "Overflow": "needs a counter of 32 or 128 bits at its end, or an account that has no job and"
    " purges one; a unit test plants that",
}

_BATCH = (2, 24)
_TRIES = 200
_ODD = 0.03


@dataclass(frozen=True, kw_only=True)
class Step:
    """Calls of one account: one by itself, or several in one transaction."""

    caller: AccountKey
    calls: Sequence[AnyCall]
    is_batch: bool


class Steps:
    """
    Draws steps; what the contract answered to earlier ones is told by `model` and `refused`.

    A variant of `Error` that did not occur yet is more likely to be provoked.
    """

    def __init__(
        self, model: Model, rng: random.Random, *, codes: Sequence[bytes], variants: Sequence[str]
    ) -> None:
        self.calls = Calls(model, rng, codes)
        self.rng = rng
        self.refused: Counter[str] = Counter()
        self._variants = [variant for variant in variants if variant not in UNREACHABLE]

    def next(self, most: int) -> Step:
        """Return the next step, of at most *most* calls."""
        is_batch = most > 1 and self.rng.random() < 0.5
        # The rules are what a dry run of a statement depends on: they do not change beside one.
        of_jobs = 0.7 if self.calls.model.mode is Mode.RUNNING else 0.3
        is_of_jobs = self.rng.random() < of_jobs
        family = self.calls.job_recipes if is_of_jobs else self.calls.rule_recipes
        caller, first = self._draw(family, None)
        calls = [first]
        if not is_batch and self.rng.random() < _ODD:
            calls = [self.calls.odd()]
        if is_batch:
            size = self.rng.randint(_BATCH[0], min(_BATCH[1], most))
            while len(calls) < size:
                again = self.rng.random() < 0.1
                calls.append(self.rng.choice(calls) if again else self._draw(family, caller)[1])
        self.calls.called.update(call.label for call in calls)
        return Step(caller=caller, calls=calls, is_batch=is_batch)

    def _draw(
        self, family: Callable[[], list[Recipe]], caller: AccountKey | None
    ) -> tuple[AccountKey, AnyCall]:
        for _ in range(_TRIES):
            recipe = self._fault() if self.rng.random() < 0.3 else self._good(family())
            senders = [a for a in recipe.who() if caller is None or a is caller]
            if not senders:
                continue
            sender = self.rng.choice(senders)
            call = recipe.make(sender)
            if call is not None:
                return sender, call
        return caller or self.calls.anyone()[0], self.calls.look()

    def _good(self, recipes: Sequence[Recipe]) -> Recipe:
        return self.rng.choices(recipes, [recipe.weight for recipe in recipes])[0]

    def _fault(self) -> Recipe:
        unseen = [variant for variant in self._variants if not self.refused[variant]]
        chosen = unseen if unseen and self.rng.random() < 0.6 else self._variants
        return self.rng.choice(self._faults()[self.rng.choice(chosen)])

    def _faults(self) -> Mapping[str, Sequence[Recipe]]:
        recipes: dict[str, list[Recipe]] = defaultdict(list)
        for faults in (JobFaults, StatementFaults, WorkerFaults, RuleFaults):
            for variant, found in faults(self.calls).recipes().items():
                recipes[variant] += found
        return recipes
