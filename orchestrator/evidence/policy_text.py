"""Policy files as text: one to begin with, and the strict one that some evidence meets."""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from orchestrator.attestation import CheckOutcome
from orchestrator.encoding import blake2_256
from orchestrator.errors import InputError
from orchestrator.evidence.application_checks import (
    attested_application,
    boot_payload,
    check_event_log,
)
from orchestrator.evidence.appraisal import Genuine, appraise
from orchestrator.evidence.bundle import EvidenceBundle, load_bundle
from orchestrator.evidence.event_log import RuntimeEvent
from orchestrator.evidence.finding import CheckFailedError
from orchestrator.evidence.instants import format_utc
from orchestrator.evidence.intel_root import INTEL_ROOT
from orchestrator.evidence.platform_checks import (
    TcbState,
    check_attributes,
    evaluation_number,
    tcb_state,
)
from orchestrator.evidence.policy import (
    KEY_PROVIDER,
    Attributes,
    MeasurementSet,
    Policy,
    Root,
    SgxMeasurements,
    TdxMeasurements,
)
from orchestrator.evidence.policy_file import INTEL, is_event_name, load_policy
from orchestrator.evidence.quote import Quote, SgxReport, parse_quote
from orchestrator.evidence.tcb import REVOKED

__all__ = ["policy_from_evidence", "starter_policy"]

_PINNED = (KEY_PROVIDER, "mr-kms", "os-image-hash")
_MAX_PLAIN_PAYLOAD = 256

_STARTER = """\
# Which TEE evidence is good enough. What is not allowed here is refused: as it stands, this file
# allows nothing, because it names no measurement set. docs/policy.md explains every line;
# `phala-jobs policy from-evidence FILE` writes the set that reviewed evidence meets.
version = 1

[roots]
intel = true

# [[tdx]]
# name = "my service 1.0"
# mrtd = "…"          # 48 bytes each, in hex
# rtmr0 = "…"
# rtmr1 = "…"
# rtmr2 = "…"
# compose_hash = "…"  # 32 bytes: SHA-256 of app-compose.json

[tcb]
statuses = ["UpToDate"]
denied_advisories = []
minimum_evaluation_number = 0

[tcb.grace]
# OutOfDate = "14d"

[platforms]
allowed = []
denied = []
dynamic_platform = true
cached_keys = true
smt = true

[attributes]
debug = false

[events]
required = []
forbidden = []

[events.payloads]
# key-provider = "…"  # who gives the TD its keys: the event's payload in hex

[limits]
maximum_age = "10m"
maximum_registration = "7d"
"""


def starter_policy() -> str:
    """Return a policy file to begin with: it can be loaded, and allows nothing yet."""
    return _STARTER


def policy_from_evidence(
    data: bytes, *, now: int, name: str | None = None, roots: Sequence[Root] | None = None
) -> str:
    """
    Return the strict policy file that the bundle *data* meets at *now* (ms).

    It allows one root, one measurement set called *name*, one TCB status, one machine, this
    evaluation or a newer one, and wants the same events in the log, from the same key provider.
    Whether these measurements are
    those of the code that you reviewed, nobody but you can know.

    Args:
        data: The bundle's bytes, with collateral.
        now: In ms.
        name: Of the measurement set; the TEE and the first digits of its hash if absent.
        roots: That the evidence may end in; Intel's if absent.

    Raises:
        EncodingError: The bundle or its quote can't be read.
        InputError: No policy accepts this evidence: says which check fails and why.
    """
    if roots is None:
        roots = (Root(name=INTEL, certificate=INTEL_ROOT, is_intel=True),)
    permissive = Policy(
        policy_hash=bytes(32), roots=tuple(roots), attributes=Attributes(debug=True)
    )
    bundle = load_bundle(data)
    quote = parse_quote(bundle.quote)
    genuine = _genuine(bundle, quote, permissive, now)
    state = tcb_state(genuine, quote)
    if state is None or state.status == REVOKED:
        raise InputError("E05: no policy accepts the TCB of this platform")
    try:
        check_attributes(genuine, quote, permissive)
        events, _ = check_event_log(quote, bundle.event_log, permissive)
        measured = _set_lines(name, quote, events, bundle.compose)
        pinned = _payload_lines(events)
    except CheckFailedError as error:
        raise InputError(f"no policy accepts this evidence: {error.detail}") from error
    required = dict.fromkeys(event.name for event in events if is_event_name(event.name))
    text = "\n".join(
        (
            f"# Made from the evidence {blake2_256(data).hex()} at {format_utc(now)}.",
            "# It allows what this evidence shows and nothing else. That these measurements are",
            "# those of the code you reviewed is for you to find out.",
            "version = 1",
            *_root_lines(genuine),
            *measured,
            *_platform_lines(genuine, quote, state),
            "",
            "[events]",
            f"required = {_list(required)}",
            *pinned,
            "",
            "[limits]",
            'maximum_age = "10m"',
            'maximum_registration = "7d"',
            "",
        )
    )
    load_policy(text.encode())  # what can't be read must not be written
    return text


def _genuine(bundle: EvidenceBundle, quote: Quote, policy: Policy, now: int) -> Genuine:
    appraisal = appraise(bundle.quote, quote, bundle.collateral, policy=policy, now=now)
    for finding in (appraisal.signatures, appraisal.collateral):
        if finding.outcome is CheckOutcome.FAILED:
            hint = f"; {finding.hint}" if finding.hint else ""
            raise InputError(f"{finding.check.value}: {finding.detail}{hint}")
    if appraisal.genuine is None:
        raise InputError("E01: the quote can't be read")
    return appraisal.genuine


def _root_lines(genuine: Genuine) -> tuple[str, ...]:
    if genuine.is_intel:
        return ("", "[roots]", "intel = true")
    certificate = load_der_x509_certificate(genuine.root.certificate)
    pem = certificate.public_bytes(Encoding.PEM).decode().strip()
    return (
        "",
        "# simulated: proves no TEE",
        "[roots.other]",
        f'{_quoted(genuine.root.name)} = """',
        pem,
        '"""',
    )


def _set_lines(
    name: str | None, quote: Quote, events: Sequence[RuntimeEvent], compose: bytes | None
) -> tuple[str, ...]:
    application = attested_application(quote, tuple(events), compose)
    report = quote.report
    made: MeasurementSet
    if isinstance(report, SgxReport):
        made = SgxMeasurements(name="", mrenclave=report.mrenclave)
        named = {"mrenclave": made.mrenclave}
    else:
        made = TdxMeasurements(
            name="",
            mrtd=report.mrtd,
            rtmr0=report.rtmr0,
            rtmr1=report.rtmr1,
            rtmr2=report.rtmr2,
            compose_hash=application.compose_hash,
            app_id=application.app_id,
        )
        keys = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "compose_hash", "app_id")
        named = {key: getattr(made, key) for key in keys}
    called = f"{quote.tee}-{made.measurement.hex()[:12]}" if name is None else name
    lines = ["", f"[[{quote.tee}]]", f"name = {_quoted(called)}"]
    lines += [f'{key} = "{value.hex()}"' for key, value in named.items() if value is not None]
    if isinstance(made, TdxMeasurements) and made.compose_hash is None and made.app_id is None:
        lines.append("application_in_registers = true")
    return tuple(lines)


def _payload_lines(events: Sequence[RuntimeEvent]) -> tuple[str, ...]:
    """Pin who gave the TD its keys, and which image it runs, where the log says so."""
    lines: list[str] = []
    for name in _PINNED:
        payload = boot_payload(events, name)
        if payload is None:
            continue
        text = payload.decode("ascii", "replace")
        if text and text.isascii() and text.isprintable() and len(text) <= _MAX_PLAIN_PAYLOAD:
            lines.append(f"# {text}")
        is_long = len(payload) > _MAX_PLAIN_PAYLOAD
        value = f"sha256:{sha256(payload).hexdigest()}" if is_long else payload.hex()
        lines.append(f'{name} = "{value}"')
    return ("", "[events.payloads]", *lines) if lines else ()


def _platform_lines(genuine: Genuine, quote: Quote, state: TcbState) -> tuple[str, ...]:
    pck = genuine.pck
    attributes = int.from_bytes(quote.report.attributes[:8], "little")
    is_debug = bool(attributes & (0x02 if isinstance(quote.report, SgxReport) else 0x01))
    return (
        "",
        "[tcb]",
        f"statuses = {_list([state.status])}",
        f"minimum_evaluation_number = {evaluation_number(genuine)}",
        "",
        "[platforms]",
        f"allowed = {_list([(pck.ppid if pck.piid is None else pck.piid).hex()])}",
        f"dynamic_platform = {_flag(pck.dynamic_platform)}",
        f"cached_keys = {_flag(pck.cached_keys)}",
        f"smt = {_flag(pck.smt)}",
        *(("", "[attributes]", "debug = true") if is_debug else ()),
    )


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(map(_quoted, values)) + "]"


def _quoted(value: str) -> str:
    # A TOML basic string has JSON's escapes.
    return json.dumps(value)


def _flag(value: bool | None) -> str:  # noqa: FBT001 - one value of the file, not an option
    # A certificate that does not say is refused where the flag is not allowed.
    return "false" if value is False else "true"
