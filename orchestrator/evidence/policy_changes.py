"""What a policy's change does, in words, and what is odd about one policy."""

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import Final

from orchestrator.evidence.policy import (
    KEY_PROVIDER,
    MeasurementSet,
    Policy,
    SgxMeasurements,
    TdxMeasurements,
)

__all__ = ["PolicyChange", "PolicyEffect", "compare_policies", "policy_warnings"]

_HOUR: Final = 3_600_000
_DAY: Final = 24 * _HOUR
_UNITS: Final = ((_DAY, "d"), (_HOUR, "h"), (60_000, "m"), (1_000, "s"))


class PolicyEffect(Enum):
    """What a change does to what is accepted."""

    MORE = "allows more"
    LESS = "allows less"
    NEITHER = "allows the same"


@dataclass(frozen=True, kw_only=True)
class PolicyChange:
    """One change between two policies; `text` says what, `effect` what follows."""

    text: str
    effect: PolicyEffect


def compare_policies(old: Policy, new: Policy) -> tuple[PolicyChange, ...]:
    """Return what changes from *old* to *new*; nothing means that both accept the same."""
    return tuple(
        change
        for part in (_roots, _sets, _tcb, _platforms, _switches, _events, _times)
        for change in part(old, new)
    )


def policy_warnings(policy: Policy) -> tuple[str, ...]:
    """Return what is odd, loose or without effect in *policy*, a sentence each."""
    return tuple(
        warning
        for part in (_nothing_allowed, _loose_roots, _loose_sets, _loose_tcb, _loose_rest)
        for warning in part(policy)
    )


def _change(text: str, *, more: bool) -> PolicyChange:
    return PolicyChange(text=text, effect=PolicyEffect.MORE if more else PolicyEffect.LESS)


def _members(
    what: str, old: AbstractSet[str], new: AbstractSet[str], *, adding_allows: bool
) -> Iterator[PolicyChange]:
    for one in sorted(new - old):
        yield _change(f"{what} {one} is added", more=adding_allows)
    for one in sorted(old - new):
        yield _change(f"{what} {one} is removed", more=not adding_allows)


def _roots(old: Policy, new: Policy) -> Iterator[PolicyChange]:
    before = {root.certificate: root for root in old.roots}
    after = {root.certificate: root for root in new.roots}
    for certificate in after.keys() - before.keys():
        root = after[certificate]
        note = "" if root.is_intel else ", which is not Intel's: it proves no TEE"
        yield _change(f"root {root.name!r} is added{note}", more=True)
    for certificate in before.keys() - after.keys():
        yield _change(f"root {before[certificate].name!r} is removed", more=False)
    for certificate in before.keys() & after.keys():
        names = before[certificate].name, after[certificate].name
        if names[0] != names[1]:
            yield PolicyChange(
                text=f"root {names[0]!r} is now called {names[1]!r}", effect=PolicyEffect.NEITHER
            )


def _sets(old: Policy, new: Policy) -> Iterator[PolicyChange]:
    before, after = _by_measurement(old), _by_measurement(new)
    for measurement in sorted(after.keys() - before.keys()):
        name = after[measurement].name
        yield _change(f"measurement set {name!r} ({measurement.hex()}) is added", more=True)
    for measurement in sorted(before.keys() - after.keys()):
        name = before[measurement].name
        yield _change(f"measurement set {name!r} ({measurement.hex()}) is removed", more=False)
    for measurement in sorted(before.keys() & after.keys()):
        names = before[measurement].name, after[measurement].name
        if names[0] != names[1]:
            yield PolicyChange(
                text=f"measurement set {names[0]!r} is now called {names[1]!r}",
                effect=PolicyEffect.NEITHER,
            )


def _by_measurement(policy: Policy) -> dict[bytes, MeasurementSet]:
    return {one.measurement: one for one in policy.measurements}


def _tcb(old: Policy, new: Policy) -> Iterator[PolicyChange]:
    before, after = old.tcb, new.tcb
    yield from _members("TCB status", before.statuses, after.statuses, adding_allows=True)
    for status in sorted(before.grace.keys() | after.grace.keys()):
        # A status that is accepted as it is needs no grace, before or after.
        lengths = before.grace.get(status, 0), after.grace.get(status, 0)
        if lengths[0] != lengths[1]:
            text = f"grace of {status}: {_length(lengths[0])}, then {_length(lengths[1])}"
            if status in before.statuses and status in after.statuses:
                yield PolicyChange(text=text, effect=PolicyEffect.NEITHER)
            else:
                yield _change(text, more=lengths[1] > lengths[0])
    yield from _members(
        "denied advisory", before.denied_advisories, after.denied_advisories, adding_allows=False
    )
    numbers = before.minimum_evaluation_number, after.minimum_evaluation_number
    if numbers[0] != numbers[1]:
        yield _change(
            f"least evaluation number: {numbers[0]}, then {numbers[1]}",
            more=numbers[1] < numbers[0],
        )


def _platforms(old: Policy, new: Policy) -> Iterator[PolicyChange]:
    before, after = _hexed(old.platforms.allowed), _hexed(new.platforms.allowed)
    if before and not after:
        yield _change(f"any machine is allowed, not only {len(before)}", more=True)
    elif after and not before:
        yield _change(f"only {len(after)} machines are allowed, not any", more=False)
    else:
        yield from _members("allowed machine", before, after, adding_allows=True)
    yield from _members(
        "denied machine",
        _hexed(old.platforms.denied),
        _hexed(new.platforms.denied),
        adding_allows=False,
    )


def _switches(old: Policy, new: Policy) -> Iterator[PolicyChange]:
    for name, before, after in (
        ("dynamic_platform", old.platforms.dynamic_platform, new.platforms.dynamic_platform),
        ("cached_keys", old.platforms.cached_keys, new.platforms.cached_keys),
        ("smt", old.platforms.smt, new.platforms.smt),
        ("debug", old.attributes.debug, new.attributes.debug),
    ):
        if before != after:
            yield _change(f"{name} is {'allowed' if after else 'no longer allowed'}", more=after)


def _events(old: Policy, new: Policy) -> Iterator[PolicyChange]:
    for what, before, after in (
        ("required event", old.required_events, new.required_events),
        ("forbidden event", old.forbidden_events, new.forbidden_events),
    ):
        yield from _members(what, before, after, adding_allows=False)
    for name in sorted(old.event_payloads.keys() | new.event_payloads.keys()):
        first, then = old.event_payloads.get(name), new.event_payloads.get(name)
        if first is None or then is None:
            yield _change(
                f"the payload of event {name} is {'no longer ' if then is None else ''}pinned",
                more=then is None,
            )
        elif first != then:
            yield _change(f"event {name} with payload sha256:{then.hex()} is accepted", more=True)
            yield _change(f"event {name} with payload sha256:{first.hex()} is not", more=False)


def _times(old: Policy, new: Policy) -> Iterator[PolicyChange]:
    for what, before, after in (
        ("challenges may be as old as", old.maximum_age, new.maximum_age),
        ("registrations may last", old.maximum_registration, new.maximum_registration),
    ):
        if before != after:
            yield _change(f"{what} {_length(before)}, then {_length(after)}", more=after > before)


def _nothing_allowed(policy: Policy) -> Iterator[str]:
    missing = [
        what
        for what, held in (
            ("root", policy.roots),
            ("measurement set", policy.measurements),
            ("TCB status", [*policy.tcb.statuses, *policy.tcb.grace]),
        )
        if not held
    ]
    yield from (f"nothing is allowed: the policy names no {what}" for what in missing)
    wanted = policy.required_events | policy.event_payloads.keys()
    both = sorted(wanted & policy.forbidden_events)
    if both:
        yield f"nothing is allowed: required and forbidden at once: {', '.join(both)}"
    denied = policy.platforms.allowed & policy.platforms.denied
    yield from (f"machine {one} is allowed and denied: denied" for one in sorted(_hexed(denied)))


def _loose_roots(policy: Policy) -> Iterator[str]:
    others = [root.name for root in policy.roots if not root.is_intel]
    yield from (f"root {name!r} is not Intel's: simulated, proves no TEE" for name in others)
    if others and len(others) < len(policy.roots):
        yield "genuine and simulated workers would be registered side by side"
    if policy.attributes.debug:
        yield (
            "debug TDs are allowed under the roots that are not Intel's"
            if others
            else "debug has no effect: no policy makes a debug TD pass under Intel's root"
        )


def _loose_sets(policy: Policy) -> Iterator[str]:
    for one in policy.measurements:
        if isinstance(one, SgxMeasurements) and one.mrenclave is None:
            yield f"set {one.name!r}: whatever its signer signs for this product is accepted"
        if isinstance(one, TdxMeasurements) and one.compose_hash is None:
            yield (
                f"set {one.name!r}: no application is named, so what runs must be in the registers"
                if one.app_id is None
                else f"set {one.name!r}: every compose document that the key provider allows for"
                " this app id is accepted"
            )
    if KEY_PROVIDER not in policy.event_payloads:
        for one in policy.measurements:
            if isinstance(one, TdxMeasurements) and (one.compose_hash or one.app_id):
                yield (
                    f"set {one.name!r}: {KEY_PROVIDER} is not pinned in [events.payloads], so a"
                    " host that gives the TD its keys from a server of its own is accepted"
                )
    hashes = Counter(one.measurement for one in policy.measurements)
    for one in policy.measurements:
        if hashes[one.measurement] > 1:
            yield f"set {one.name!r}: another set has the same measurements"


def _loose_tcb(policy: Policy) -> Iterator[str]:
    tcb = policy.tcb
    for status in sorted(tcb.statuses):
        if status.startswith("OutOfDate"):
            yield f"{status} is accepted without end: a grace would end"
    for status, length in sorted(tcb.grace.items()):
        if status in tcb.statuses:
            yield f"the grace of {status} has no effect: it is accepted as it is"
        elif length > 30 * _DAY:
            yield f"the grace of {status} is long: {_length(length)}"
    if tcb.minimum_evaluation_number == 0:
        yield "collateral of any evaluation is accepted, also of one that Intel has replaced"


def _loose_rest(policy: Policy) -> Iterator[str]:
    if policy.maximum_age > _HOUR:
        yield f"challenges may be {_length(policy.maximum_age)} old"
    if policy.maximum_registration > 30 * _DAY:
        yield f"registrations may last {_length(policy.maximum_registration)} on one evidence"


def _hexed(values: Iterable[bytes]) -> frozenset[str]:
    return frozenset(value.hex() for value in values)


def _length(milliseconds: int) -> str:
    """Return a duration as a policy file writes it; `none` for zero."""
    for unit, name in _UNITS:
        if milliseconds and milliseconds % unit == 0:
            return f"{milliseconds // unit}{name}"
    return f"{milliseconds} ms" if milliseconds else "none"
