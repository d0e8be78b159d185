"""
What evidence must be to be accepted: a policy, as its TOML file says it.

`policy_file` reads and writes the file. An empty policy allows nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from orchestrator.encoding import measurement_hash
from orchestrator.errors import ConfigError

__all__ = [
    "KEY_PROVIDER",
    "MAX_POLICY_BYTES",
    "Attributes",
    "MeasurementSet",
    "Platforms",
    "Policy",
    "Root",
    "SgxMeasurements",
    "TcbRules",
    "TdxMeasurements",
]

# A strict policy is 2 KiB. Whoever reads one, also a stranger's in a receipt, reads no more.
MAX_POLICY_BYTES: Final = 1 << 16
# dstack's event that says who gave the TD its keys.
KEY_PROVIDER: Final = "key-provider"


@dataclass(frozen=True, kw_only=True)
class Root:
    """A root that quotes may end in; `certificate` is DER. Any but Intel's proves no TEE."""

    name: str
    certificate: bytes
    is_intel: bool


@dataclass(frozen=True, kw_only=True)
class TdxMeasurements:
    """
    A measurement set for TDX: registers of 48 bytes, and what runs on them.

    Without a compose hash (32) and an app id (20) the application is in the registers themselves,
    and the policy has to say so. An app id alone says nothing by itself: the host chooses it, and
    only a key provider that the policy pins can have held it against the compose document.
    """

    name: str
    mrtd: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    compose_hash: bytes | None = None
    app_id: bytes | None = None

    @property
    def measurement(self) -> bytes:
        """What stands for the set on the chain (protocol 3.3): its name is not part of it."""
        return measurement_hash(
            [
                "tdx",
                self.mrtd,
                self.rtmr0,
                self.rtmr1,
                self.rtmr2,
                self.compose_hash,
                self.app_id,
            ]
        )


@dataclass(frozen=True, kw_only=True)
class SgxMeasurements:
    """A measurement set for SGX: MRENCLAVE, or MRSIGNER with product and least version."""

    name: str
    mrenclave: bytes | None = None
    mrsigner: bytes | None = None
    isv_prod_id: int | None = None
    minimum_isv_svn: int | None = None

    @property
    def measurement(self) -> bytes:
        """What stands for the set on the chain (protocol 3.3): its name is not part of it."""
        return measurement_hash(
            ["sgx", self.mrenclave, self.mrsigner, self.isv_prod_id, self.minimum_isv_svn]
        )


MeasurementSet: TypeAlias = TdxMeasurements | SgxMeasurements


@dataclass(frozen=True, kw_only=True)
class TcbRules:
    """
    Which states of a platform's TCB are good enough.

    `statuses` are accepted as they are; those in `grace` for so many milliseconds after the date of
    the newest TCB level. `Revoked` is always refused. `minimum_evaluation_number` is the least
    `tcbEvaluationDataNumber` that collateral may have.
    """

    statuses: frozenset[str] = frozenset()
    grace: Mapping[str, int] = field(default_factory=dict)
    denied_advisories: frozenset[str] = frozenset()
    minimum_evaluation_number: int = 0


@dataclass(frozen=True, kw_only=True)
class Platforms:
    """
    Which machines: PPIDs and PIIDs (16 bytes each); `allowed` is any when empty.

    The flags are of the PCK certificate: several packages, keys cached by Intel, hyper-threading.
    """

    allowed: frozenset[bytes] = frozenset()
    denied: frozenset[bytes] = frozenset()
    dynamic_platform: bool = True
    cached_keys: bool = True
    smt: bool = True


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """Debug TDs and enclaves: never under Intel's root, whatever is said here."""

    debug: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """
    Everything that is not allowed here is refused; times in ms.

    `required_events` and `forbidden_events` are names in RTMR3's log. `event_payloads` are events
    that must be there once with this payload (its SHA-256), from before the application ran; but
    for them, an event's name alone says nothing about who is behind it. `maximum_age` is how old a
    challenge may be when its evidence is verified, `maximum_registration` how long a worker may be
    registered on one piece of evidence. `policy_hash` is blake2-256 of the file's bytes.
    """

    policy_hash: bytes
    roots: tuple[Root, ...] = ()
    measurements: tuple[MeasurementSet, ...] = ()
    tcb: TcbRules = field(default_factory=TcbRules)
    platforms: Platforms = field(default_factory=Platforms)
    attributes: Attributes = field(default_factory=Attributes)
    required_events: frozenset[str] = frozenset()
    forbidden_events: frozenset[str] = frozenset()
    event_payloads: Mapping[str, bytes] = field(default_factory=dict)
    maximum_age: int = 600_000
    maximum_registration: int = 7 * 86_400_000

    def __post_init__(self) -> None:
        """
        See that no set rests on an app id alone, which a host can claim for whatever it runs.

        Raises:
            ConfigError: One does.
        """
        for one in self.measurements:
            if not isinstance(one, TdxMeasurements) or one.compose_hash or not one.app_id:
                continue
            if KEY_PROVIDER not in self.event_payloads:
                raise ConfigError(
                    f"policy: set {one.name!r} names app_id alone, which any host can claim for any"
                    f" compose document: name compose_hash, or pin {KEY_PROVIDER} in"
                    " [events.payloads]"
                )
