"""Checks E09 to E11: what runs in the TEE, against the measurement sets of the policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from orchestrator.errors import EncodingError
from orchestrator.evidence.event_log import RuntimeEvent, replay, runtime_events
from orchestrator.evidence.finding import CheckFailedError
from orchestrator.evidence.policy import (
    KEY_PROVIDER,
    MeasurementSet,
    Policy,
    SgxMeasurements,
    TdxMeasurements,
)
from orchestrator.evidence.quote import Quote, SgxReport, TdxReport

__all__ = [
    "Application",
    "attested_application",
    "boot_payload",
    "check_event_log",
    "matching_sets",
    "select_set",
]

# dstack's last event of the boot: what comes after it may be the application's.
_READY = "system-ready"
_REGISTERS = ("mrtd", "rtmr0", "rtmr1", "rtmr2")
# dstack's first version of MRCONFIGID: 0x01, the compose hash, zeros.
_CONFIG_V1 = 1


def matching_sets(
    quote: Quote, policy: Policy, registered: bytes | None
) -> tuple[MeasurementSet, ...]:
    """
    E09: return the sets whose registers are all those of the quote.

    Of a worker that is *registered* with a measurement, only sets with that one.

    Raises:
        CheckFailedError: There is none.
    """
    report = quote.report
    candidates = [
        (one, _differences(report, one)) for one in policy.measurements if _is_for(report, one)
    ]
    matched = tuple(one for one, differences in candidates if not differences)
    same = tuple(one for one in matched if registered in (None, one.measurement))
    if same:
        return same
    if matched:
        raise CheckFailedError(
            f"all registers of {', '.join(repr(one.name) for one in matched)}, and the worker is"
            " registered with another measurement",
            "a measurement never changes: register the worker anew, with new keys",
        )
    if not candidates:
        raise CheckFailedError(
            f"the policy has no measurement set for {quote.tee}",
            "take the set from reviewed evidence: policy from-evidence",
        )
    nearest, differences = min(candidates, key=lambda candidate: len(candidate[1]))
    raise CheckFailedError(
        f"no set matches whole; nearest is {nearest.name!r}, other: {', '.join(differences)}",
        "is this the version that was reviewed? Then add its set: policy from-evidence",
    )


def _is_for(report: TdxReport | SgxReport, measurements: MeasurementSet) -> bool:
    return isinstance(report, TdxReport) == isinstance(measurements, TdxMeasurements)


def _differences(report: TdxReport | SgxReport, wanted: MeasurementSet) -> list[str]:
    if isinstance(report, TdxReport) and isinstance(wanted, TdxMeasurements):
        return [name for name in _REGISTERS if getattr(report, name) != getattr(wanted, name)]
    if isinstance(report, SgxReport) and isinstance(wanted, SgxMeasurements):
        return _sgx_differences(report, wanted)
    return ["everything"]


def _sgx_differences(report: SgxReport, wanted: SgxMeasurements) -> list[str]:
    if wanted.mrenclave is None and wanted.mrsigner is None:
        return ["mrenclave", "mrsigner"]  # a set that names no code matches none
    found = [
        name
        for name in ("mrenclave", "mrsigner", "isv_prod_id")
        if getattr(wanted, name) not in (None, getattr(report, name))
    ]
    least = wanted.minimum_isv_svn
    if least is not None and report.isv_svn < least:
        found.append(f"isv_svn (is {report.isv_svn}, must be {least})")
    return found


def check_event_log(
    quote: Quote, log: bytes | None, policy: Policy
) -> tuple[tuple[RuntimeEvent, ...], str]:
    """
    E10: return the events that are shown to have happened, and a sentence.

    1. The log can be read, and no entry contradicts itself.
    2. Its replay gives the quote's RTMR3; an SGX quote has none, so no log either.
    3. The events that the policy requires are there, and none that it forbids.
    4. Those whose payload it pins are there once, of the boot, with that payload.

    Raises:
        CheckFailedError: One of these is not so.
    """
    # 1.
    try:
        events = runtime_events(log)
    except EncodingError as error:
        raise CheckFailedError(str(error), "send the log as the guest agent gives it") from error
    # 2.
    if isinstance(quote.report, TdxReport):
        if replay(events) != quote.report.rtmr3:
            raise CheckFailedError(
                f"the replay of {len(events)} events does not give the quote's RTMR3",
                "send the whole log, from the same boot as the quote",
            )
        sentence = f"{len(events)} events give RTMR3"
    elif log is not None:
        raise CheckFailedError("an SGX quote has no register that a log could be held against")
    else:
        sentence = "SGX has no event log"
    # 3.
    names = {event.name for event in events}
    missing = sorted(policy.required_events - names)
    if missing:
        raise CheckFailedError(
            f"required and not in the log: {', '.join(missing)}",
            "is this the image that was reviewed?",
        )
    forbidden = sorted(policy.forbidden_events & names)
    if forbidden:
        raise CheckFailedError(
            f"forbidden and in the log: {', '.join(forbidden)}",
            "is this the image that was reviewed?",
        )
    # 4.
    for name, pinned in sorted(policy.event_payloads.items()):
        _check_pinned(events, name, pinned)
    return events, sentence


def _check_pinned(events: Sequence[RuntimeEvent], name: str, pinned: bytes) -> None:
    payload = boot_payload(events, name)
    if payload is None:
        raise CheckFailedError(
            f"pinned and not in the log: {name}", "is this the image that was reviewed?"
        )
    if sha256(payload).digest() != pinned:
        raise CheckFailedError(
            f"{name!r} is {_shown(payload)}, and the policy pins another payload",
            "its keys may come from a server of the host's own; if you reviewed who it is, pin it"
            " in [events.payloads]"
            if name == KEY_PROVIDER
            else "if you reviewed what it is now, pin it in [events.payloads]",
        )


def _shown(payload: bytes) -> str:
    """Say what a payload is, which whoever runs the host may have chosen."""
    text = payload.decode("ascii", "replace")
    if text.isascii() and text.isprintable() and len(text) <= 200:
        return repr(text)
    return f"{len(payload)} bytes of SHA-256 {sha256(payload).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Application:
    """What a TD says it runs: compose hash (32) and app id (20), if it says so."""

    compose_hash: bytes | None
    app_id: bytes | None


def attested_application(
    quote: Quote, events: Sequence[RuntimeEvent], compose: bytes | None
) -> Application:
    """
    Return what the replayed log and the quote say about the application (first half of E11).

    1. The log names compose hash and app id at most once, and in the boot: whoever emits a second
       one, or one when the system is ready, is not the system.
    2. MRCONFIGID, where it is dstack's version 1, does not contradict the log. It is no source of
       its own: the host chooses it, and only software in the TD can hold it against what runs.
    3. The compose document, if there is one, hashes to it.

    Raises:
        CheckFailedError: One of these is not so.
    """
    # 1.
    compose_hash = boot_payload(events, "compose-hash", length=32)
    app_id = boot_payload(events, "app-id", length=20)
    # 2.
    report = quote.report
    if isinstance(report, TdxReport) and report.mr_config_id[0] == _CONFIG_V1:
        configured = report.mr_config_id[1:33]
        if any(report.mr_config_id[33:]) or compose_hash not in (None, configured):
            raise CheckFailedError("MRCONFIGID names another compose hash than the event log")
    # 3.
    if compose is not None and sha256(compose).digest() != compose_hash:
        raise CheckFailedError(
            "the compose document is not the one that the TEE says it runs",
            "send app-compose.json byte for byte: its hash is over the raw bytes",
        )
    return Application(compose_hash=compose_hash, app_id=app_id)


def boot_payload(
    events: Sequence[RuntimeEvent], name: str, *, length: int | None = None
) -> bytes | None:
    """Return the payload of the boot's one event of that name, `None` if there is none."""
    places = [place for place, event in enumerate(events) if event.name == name]
    if not places:
        return None
    if len(places) > 1:
        raise CheckFailedError(
            f"the event log has {len(places)} events {name!r}",
            "the application must not emit events with a name of the system's",
        )
    ready = next((place for place, event in enumerate(events) if event.name == _READY), None)
    if ready is not None and places[0] > ready:
        raise CheckFailedError(
            f"{name!r} comes after {_READY!r}, when the application may emit events",
            "the application must not emit events with a name of the system's",
        )
    payload = events[places[0]].payload
    if length not in (None, len(payload)):
        raise CheckFailedError(f"{name!r} is {len(payload)} bytes, must be {length}")
    return payload


def select_set(
    sets: Sequence[MeasurementSet], application: Application
) -> tuple[MeasurementSet, str]:
    """
    Return the set whose application this is, of those that matched E09, and a sentence (E11).

    Raises:
        CheckFailedError: There is none.
    """
    for one in sets:
        if isinstance(one, SgxMeasurements):
            return one, f"set {one.name!r}: the enclave is the application"
        if one.compose_hash not in (None, application.compose_hash):
            continue
        if one.app_id not in (None, application.app_id):
            continue
        if one.compose_hash is None and one.app_id is None:
            return one, f"set {one.name!r}: the application is in the registers"
        return one, f"set {one.name!r}: {_named(application)}"
    raise CheckFailedError(
        f"{_named(application)}; not that of {', '.join(repr(one.name) for one in sets)}",
        "is this the version that was reviewed? Then add its set: policy from-evidence",
    )


def _named(application: Application) -> str:
    compose_hash, app_id = (
        "none" if value is None else value.hex()
        for value in (application.compose_hash, application.app_id)
    )
    return f"compose hash {compose_hash}, app id {app_id}"
