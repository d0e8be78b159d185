"""
The policy file: one TOML file that says which evidence is good enough (docs/policy.md).

Bytes in, values out. What is not in the file is not allowed, a key that is not known is an error,
and so is a value that could be read in two ways. `policy.schema.json` says the same for editors.
"""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Annotated, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    ExtensionNotFound,
    load_pem_x509_certificates,
)
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from orchestrator.encoding import blake2_256
from orchestrator.errors import ConfigError
from orchestrator.evidence.intel_root import INTEL_ROOT, is_intel_root
from orchestrator.evidence.policy import (
    MAX_POLICY_BYTES,
    Attributes,
    MeasurementSet,
    Platforms,
    Policy,
    Root,
    SgxMeasurements,
    TcbRules,
    TdxMeasurements,
)
from orchestrator.evidence.tcb import REVOKED, TCB_STATUSES

__all__ = ["INTEL", "is_event_name", "load_policy", "load_root", "policy_schema"]

INTEL: Final = "intel"
_MOST_SETS: Final = 256
_MOST_ENTRIES: Final = 1_024
# The parser takes time and memory by the square of a dotted key's length; no line of a policy has
# more than a few dots, and a stranger's policy is in a receipt.
_MOST_DOTS: Final = 200
_DAY: Final = 86_400_000
_UNITS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": _DAY}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$"
_EVENT: Final = r"^[!-9;-~]{1,200}$"
_ADVISORY: Final = r"^[A-Z]+-[A-Z]+-[0-9]{5}$"
_PAYLOAD: Final = r"(sha256:[0-9a-fA-F]{64}|([0-9a-fA-F]{2})*)"
_U16: Final = (1 << 16) - 1
_U32: Final = (1 << 32) - 1
_ACCEPTABLE: Final = tuple(status for status in TCB_STATUSES if status != REVOKED)


def _hex(length: int) -> Callable[[object], bytes]:
    def read(value: object) -> bytes:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-fA-F]{{{2 * length}}}", value):
            found = f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
            raise ValueError(f"{found}, must be {2 * length} hex digits ({length} bytes)")
        return bytes.fromhex(value)

    return read


def _hex_schema(length: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^[0-9a-fA-F]{{{2 * length}}}$"})


def _duration(value: object) -> int:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r:.40}, must be a duration like 30s, 10m, 24h or 7d")
    length = int(found[1]) * _UNITS[found[2]]
    if length > 3650 * _DAY:
        raise ValueError(f"{value}, at most 3650d")
    return length


def _version(value: object) -> int:
    # `true` and `1.0` are equal to 1 and are none.
    if type(value) is not int or value != 1:
        raise ValueError("must be 1")
    return value


def _payload(value: object) -> bytes:
    """Return the SHA-256 of an event's payload, which the file has as it is or as that."""
    if not isinstance(value, str) or not re.fullmatch(_PAYLOAD, value):
        raise ValueError("must be the payload in hex, or sha256: and 64 hex digits")
    kind, _, digest = value.rpartition(":")
    return bytes.fromhex(digest) if kind else sha256(bytes.fromhex(value)).digest()


def _status(value: object) -> str:
    if value == REVOKED:
        raise ValueError(f"{REVOKED} is always refused and can't be allowed")
    if value not in _ACCEPTABLE or not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no TCB status{_suggestion(str(value), _ACCEPTABLE)}")
    return value


Register = Annotated[bytes, BeforeValidator(_hex(48)), _hex_schema(48)]
Hash = Annotated[bytes, BeforeValidator(_hex(32)), _hex_schema(32)]
AppId = Annotated[bytes, BeforeValidator(_hex(20)), _hex_schema(20)]
PlatformId = Annotated[bytes, BeforeValidator(_hex(16)), _hex_schema(16)]
Payload = Annotated[
    bytes,
    BeforeValidator(_payload),
    WithJsonSchema({"type": "string", "pattern": f"^{_PAYLOAD}$"}),
]
Version = Annotated[int, BeforeValidator(_version), WithJsonSchema({"type": "integer", "const": 1})]
Duration = Annotated[
    int,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,8}[smhd]$"}),
]
Status = Annotated[
    str,
    BeforeValidator(_status),
    WithJsonSchema({"type": "string", "enum": list(_ACCEPTABLE)}),
]
Name = Annotated[str, Field(pattern=_NAME)]
Event = Annotated[str, Field(pattern=_EVENT)]
Advisory = Annotated[str, Field(pattern=_ADVISORY)]


class _Section(BaseModel):
    """A table of the file; keys that it does not have are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RootsSection(_Section):
    """Roots that quotes may end in."""

    intel: bool = Field(default=False, description="Intel's SGX root: genuine TEEs.")
    other: dict[Name, str] = Field(
        default={},
        max_length=_MOST_ENTRIES,
        description="Other roots by name, as PEM. They prove no TEE.",
    )


class TdxSection(_Section):
    """A measurement set for TDX: all of it must match."""

    name: Name = Field(description="What findings call it; not part of its hash.")
    mrtd: Register = Field(description="The TD's initial contents: firmware.")
    rtmr0: Register = Field(description="Firmware configuration.")
    rtmr1: Register = Field(description="Kernel.")
    rtmr2: Register = Field(description="Kernel command line, initial file system.")
    compose_hash: Hash | None = Field(
        default=None, description="SHA-256 of app-compose.json's bytes."
    )
    app_id: AppId | None = Field(default=None, description="dstack's id of the application.")
    application_in_registers: bool = Field(
        default=False, description="The registers alone say what runs: no compose hash, no app id."
    )

    @model_validator(mode="after")
    def _names_an_application(self) -> "TdxSection":
        named = self.compose_hash is not None or self.app_id is not None
        if named == self.application_in_registers:
            raise ValueError(
                "a set names compose_hash or app_id, or says application_in_registers = true"
                + (", not both" if named else "")
            )
        return self


class SgxSection(_Section):
    """A measurement set for SGX: one enclave, or a signer's product from a version on."""

    name: Name = Field(description="What findings call it; not part of its hash.")
    mrenclave: Hash | None = Field(default=None, description="The enclave's code.")
    mrsigner: Hash | None = Field(default=None, description="Who signed the enclave.")
    isv_prod_id: int | None = Field(default=None, ge=0, le=_U16, description="The product.")
    minimum_isv_svn: int | None = Field(
        default=None, ge=0, le=_U16, description="The least security version."
    )

    @model_validator(mode="after")
    def _names_an_enclave(self) -> "SgxSection":
        if self.mrenclave is None and None in (
            self.mrsigner,
            self.isv_prod_id,
            self.minimum_isv_svn,
        ):
            raise ValueError(
                "a set names mrenclave, or mrsigner with isv_prod_id and minimum_isv_svn"
            )
        return self


class TcbSection(_Section):
    """Which states of a platform's TCB are good enough."""

    statuses: list[Status] = Field(
        default=[], max_length=_MOST_ENTRIES, description="Accepted as they are."
    )
    grace: dict[Status, Duration] = Field(
        default={},
        max_length=_MOST_ENTRIES,
        description="Accepted for so long after the date of the first TCB level that was missed.",
    )
    denied_advisories: list[Advisory] = Field(
        default=[],
        max_length=_MOST_ENTRIES,
        description="Refused when one applies to the platform.",
    )
    minimum_evaluation_number: int = Field(
        default=0, ge=0, le=_U32, description="Least tcbEvaluationDataNumber."
    )


class PlatformsSection(_Section):
    """Which machines."""

    allowed: list[PlatformId] = Field(
        default=[], max_length=_MOST_ENTRIES, description="PPIDs or PIIDs; any machine when empty."
    )
    denied: list[PlatformId] = Field(
        default=[], max_length=_MOST_ENTRIES, description="PPIDs or PIIDs; wins over allowed."
    )
    dynamic_platform: bool = Field(default=True, description="Machines of several packages.")
    cached_keys: bool = Field(default=True, description="Machines whose keys Intel keeps.")
    smt: bool = Field(default=True, description="Machines with hyper-threading.")


class AttributesSection(_Section):
    """Attributes of TDs and enclaves."""

    debug: bool = Field(default=False, description="Debug TDs, under other roots than Intel's.")


class EventsSection(_Section):
    """RTMR3's event log."""

    required: list[Event] = Field(
        default=[], max_length=_MOST_ENTRIES, description="Names: each must be in the log."
    )
    forbidden: list[Event] = Field(
        default=[], max_length=_MOST_ENTRIES, description="Names: none may be in the log."
    )
    payloads: dict[Event, Payload] = Field(
        default={},
        max_length=_MOST_ENTRIES,
        description="Payloads by name: each must be there once, before the application runs.",
    )


class LimitsSection(_Section):
    """Times."""

    maximum_age: Duration = Field(
        default=600_000,
        description="How old a challenge may be.",
        json_schema_extra={"default": "10m"},
    )
    maximum_registration: Duration = Field(
        default=7 * _DAY,
        description="How long a worker may be registered on one piece of evidence.",
        json_schema_extra={"default": "7d"},
    )


class PolicyDocument(_Section):
    """Policy for TEE evidence, version 1. What is not here is not allowed."""

    version: Version = Field(default=1, description="Of this format.")
    roots: RootsSection = RootsSection()
    tdx: list[TdxSection] = Field(
        default=[], max_length=_MOST_SETS, description="Measurement sets; any one must match."
    )
    sgx: list[SgxSection] = Field(
        default=[], max_length=_MOST_SETS, description="Measurement sets; any one must match."
    )
    tcb: TcbSection = TcbSection()
    platforms: PlatformsSection = PlatformsSection()
    attributes: AttributesSection = AttributesSection()
    events: EventsSection = EventsSection()
    limits: LimitsSection = LimitsSection()


_TABLES: Final[Mapping[str, type[_Section]]] = {
    "roots": RootsSection,
    "tdx": TdxSection,
    "sgx": SgxSection,
    "tcb": TcbSection,
    "platforms": PlatformsSection,
    "attributes": AttributesSection,
    "events": EventsSection,
    "limits": LimitsSection,
}


def load_policy(data: bytes) -> Policy:
    """
    Return the policy in a TOML file's bytes; an empty file allows nothing.

    Raises:
        ConfigError: It is no TOML, a key is not known, or a value has not its form: names the key.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise ConfigError(f"policy: {len(data)} bytes, at most {MAX_POLICY_BYTES}")
    if max(line.count(b".") for line in data.split(b"\n")) > _MOST_DOTS:
        raise ConfigError(f"policy: a line has more than {_MOST_DOTS} dots")
    try:
        tables = tomllib.loads(data.decode())
    except (ValueError, OverflowError, RecursionError) as error:
        # The parser lets through what a number or a date of too many digits raises.
        raise ConfigError(f"policy: not TOML: {error}") from error
    try:
        document = PolicyDocument.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(_explained(error)) from error
    return Policy(
        policy_hash=blake2_256(data),
        roots=_roots(document.roots),
        measurements=_measurements(document),
        tcb=TcbRules(
            statuses=frozenset(document.tcb.statuses),
            grace=document.tcb.grace,
            denied_advisories=frozenset(document.tcb.denied_advisories),
            minimum_evaluation_number=document.tcb.minimum_evaluation_number,
        ),
        platforms=Platforms(
            allowed=frozenset(document.platforms.allowed),
            denied=frozenset(document.platforms.denied),
            dynamic_platform=document.platforms.dynamic_platform,
            cached_keys=document.platforms.cached_keys,
            smt=document.platforms.smt,
        ),
        attributes=Attributes(debug=document.attributes.debug),
        required_events=frozenset(document.events.required),
        forbidden_events=frozenset(document.events.forbidden),
        event_payloads=document.events.payloads,
        maximum_age=document.limits.maximum_age,
        maximum_registration=document.limits.maximum_registration,
    )


def policy_schema() -> dict[str, object]:
    """Return the JSON schema of the file; `policy.schema.json` holds it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **PolicyDocument.model_json_schema(),
    }


def is_event_name(name: str) -> bool:
    """Say whether a policy can name such an event: ASCII without spaces and colons."""
    return re.fullmatch(_EVENT, name) is not None


def load_root(name: str, pem: str) -> Root:
    """
    Return a root of a policy that is not Intel's.

    Raises:
        ConfigError: It is not one self-signed CA certificate as PEM, or it is Intel's.
    """
    where = f"policy: roots.other.{name}"
    if name.lower() == INTEL:
        raise ConfigError(f"{where}: the name is Intel's; write intel = true in [roots]")
    try:
        (certificate,) = load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise ConfigError(f"{where}: must be one certificate as PEM") from error
    if not _is_root(certificate):
        raise ConfigError(f"{where}: must be a root: a CA's, signed by itself")
    der = certificate.public_bytes(Encoding.DER)
    if is_intel_root(der):
        raise ConfigError(f"{where}: this is Intel's; write intel = true in [roots]")
    return Root(name=name, certificate=der, is_intel=False)


def _is_root(certificate: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except (ExtensionNotFound, InvalidSignature, TypeError, ValueError):
        return False


def _roots(section: RootsSection) -> tuple[Root, ...]:
    intel = (Root(name=INTEL, certificate=INTEL_ROOT, is_intel=True),) if section.intel else ()
    return (*intel, *(load_root(name, pem) for name, pem in section.other.items()))


def _measurements(document: PolicyDocument) -> tuple[MeasurementSet, ...]:
    sets: tuple[MeasurementSet, ...] = (
        *(
            TdxMeasurements(**one.model_dump(exclude={"application_in_registers"}))
            for one in document.tdx
        ),
        *(SgxMeasurements(**one.model_dump()) for one in document.sgx),
    )
    for name, count in Counter(one.name for one in sets).items():
        if count > 1:
            raise ConfigError(f"policy: two measurement sets are named {name!r}")
    return sets


def _explained(error: ValidationError) -> str:
    """Return the first thing that is wrong, with the key it is at and what may have been meant."""
    errors = error.errors(include_url=False, include_context=False)
    # A misspelt key is also a missing one: the first says more.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    parts = [part for part in first["loc"] if part != "[key]"]
    place = "".join(map(_step, parts)).removeprefix(".")
    if first["type"] == "extra_forbidden":
        return f"policy: {place} is not known" + _suggestion(str(parts[-1]), _keys_at(parts[:-1]))
    message = first["msg"]
    if first["type"] == "value_error":
        message = message.removeprefix("Value error, ")
    else:
        message = message[:1].lower() + message[1:]
    return f"policy: {place}: {message}"


def _step(part: int | str) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if re.fullmatch(r"[\w-]+", part) else f".{part!r}"


def _keys_at(path: list[int | str]) -> list[str]:
    """Return the keys of the table at *path*, which is at most one table deep."""
    table = next((_TABLES[part] for part in path if isinstance(part, str)), PolicyDocument)
    return list(table.model_fields)


def _suggestion(given: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
