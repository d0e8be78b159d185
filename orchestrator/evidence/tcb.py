"""
Intel's TCB info: which versions a platform's parts must have, and which of them are too old.

`dcap-qvl` decides the status. This says why, which it does not, and since when a platform is
behind; and it decides the status where the library gives none, because it stopped at something else
(a debug TD, a revoked platform). A test holds the two together.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import EncodingError
from orchestrator.evidence.instants import parse_utc

__all__ = [
    "REVOKED",
    "TCB_STATUSES",
    "QeIdentity",
    "SvnLevel",
    "Svns",
    "TcbInfo",
    "TcbLevel",
    "TcbPart",
    "converged",
    "parse_qe_identity",
    "parse_tcb_info",
]

REVOKED: Final = "Revoked"
# From best to worst: of two parts the worse status counts.
TCB_STATUSES: Final = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    REVOKED,
)

_NEEDS_CONFIGURATION: Final = ("ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")


@dataclass(frozen=True, kw_only=True)
class Svns:
    """Security versions: 16 of the CPU, 16 of TDX (empty for SGX), one of the PCE."""

    sgx: tuple[int, ...]
    tdx: tuple[int, ...]
    pce: int

    def shortfall(self, needed: "Svns", kinds: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """Return a phrase for each version that is below *needed*; *kinds* describes places."""
        kinds = kinds or {}
        found = [
            f"{place}{kinds.get(place, '')} is {have}, must be {want}"
            for name, ours, theirs in (
                ("sgx", self.sgx, needed.sgx),
                ("tdx", self.tdx, needed.tdx),
            )
            for index, (have, want) in enumerate(zip(ours, theirs, strict=False))
            for place in (f"{name}_svn[{index}]",)
            if have < want
        ]
        if self.pce < needed.pce:
            found.append(f"pce_svn is {self.pce}, must be {needed.pce}")
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class TcbLevel:
    """A platform with at least these versions has this status; `date` in seconds."""

    svns: Svns
    date: int
    status: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SvnLevel:
    """A TDX module or quoting enclave with at least this version has this status; date in s."""

    isv_svn: int
    date: int
    status: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TcbPart:
    """
    A part of a platform: its status, and since when (s) Intel wants more of it than it has.

    That is the date of the first level that it missed: a later one moves nothing. Where it missed
    none, it is the date of its own.
    """

    status: str
    since: int


@dataclass(frozen=True, kw_only=True)
class QeIdentity:
    """What Intel says of the quoting enclave; `levels` best first."""

    evaluation_number: int
    levels: tuple[SvnLevel, ...]

    def match(self, isv_svn: int) -> SvnLevel | None:
        """Return the level of a quoting enclave of this version."""
        return next((one for one in self.levels if isv_svn >= one.isv_svn), None)

    def parts(self, isv_svn: int) -> tuple[TcbPart, ...]:
        """Return the quoting enclave as a part; nothing where no level fits."""
        return _svn_part(self.levels, isv_svn)


@dataclass(frozen=True, kw_only=True)
class TcbInfo:
    """What Intel says of one kind of platform; `levels` as given, `kinds` names the versions."""

    evaluation_number: int
    levels: tuple[TcbLevel, ...]
    modules: Mapping[str, tuple[SvnLevel, ...]]
    kinds: Mapping[str, str]

    @property
    def newest(self) -> TcbLevel:
        """The level of the newest date; of several the first."""
        return max(self.levels, key=lambda level: level.date)

    def match(self, svns: Svns) -> tuple[str, tuple[str, ...]] | None:
        """Return status and advisories of a platform with these versions; `None`: no level."""
        level = next((one for one in self.levels if not svns.shortfall(one.svns)), None)
        if level is None:
            return None
        status, advisories = level.status, level.advisories
        wanted = self._module_levels(svns)
        if wanted:
            module = next((one for one in wanted if svns.tdx[0] >= one.isv_svn), None)
            if module is None:
                return None
            status = _worse(status, module.status)
            advisories += tuple(one for one in module.advisories if one not in advisories)
        return status, advisories

    def parts(self, svns: Svns) -> tuple[TcbPart, ...]:
        """Return the platform and its TDX module as parts; nothing of what no level fits."""
        level = next((one for one in self.levels if not svns.shortfall(one.svns)), None)
        if level is None:
            return ()
        # Levels differ in more than age (configuration, PCE), so better is one that came later; and
        # one that is not outdated, where this is, whatever dates the two have.
        missed = [
            one.date
            for one in self.levels
            if svns.shortfall(one.svns)
            and (one.date > level.date or (_is_outdated(level) and not _is_outdated(one)))
        ]
        platform = TcbPart(status=level.status, since=min(missed, default=level.date))
        modules = self._module_levels(svns)
        return (platform, *_svn_part(modules, svns.tdx[0])) if modules else (platform,)

    def shortfall(self, svns: Svns) -> tuple[str, ...]:
        """Return a phrase for each version that is below those of the newest level."""
        found = svns.shortfall(self.newest.svns, self.kinds)
        wanted = self._module_levels(svns)
        if wanted and svns.tdx[0] < wanted[0].isv_svn:
            return (*found, f"the TDX module's SVN is {svns.tdx[0]}, must be {wanted[0].isv_svn}")
        return found

    def _module_levels(self, svns: Svns) -> tuple[SvnLevel, ...]:
        # Place 1 of the TDX versions names the TDX module's line, place 0 is its version.
        if not svns.tdx or svns.tdx[1] == 0:
            return ()
        return self.modules.get(f"TDX_{svns.tdx[1]:02X}", ())


def _is_outdated(level: TcbLevel) -> bool:
    return level.status.startswith("OutOfDate")


def _svn_part(levels: tuple[SvnLevel, ...], isv_svn: int) -> tuple[TcbPart, ...]:
    level = next((one for one in levels if isv_svn >= one.isv_svn), None)
    if level is None:
        return ()
    missed = [one.date for one in levels if one.isv_svn > isv_svn]
    return (TcbPart(status=level.status, since=min(missed, default=level.date)),)


def converged(platform: str, enclave: str) -> str:
    """Return the status of a platform with a quoting enclave, as Intel's library merges them."""
    if enclave == "OutOfDate" and platform in _NEEDS_CONFIGURATION:
        return "OutOfDateConfigurationNeeded"
    return _worse(platform, enclave)


def _worse(left: str, right: str) -> str:
    """Return the worse of two statuses; one that is not known is the worst."""
    order = {status: place for place, status in enumerate(TCB_STATUSES)}
    return max(left, right, key=lambda status: order.get(status, len(order)))


def parse_tcb_info(text: str) -> TcbInfo:
    """
    Return what a `tcbInfo` document of version 3 says.

    Does **not** check its signature.

    Raises:
        EncodingError: It is not such a document.
    """
    try:
        document = json.loads(text)
        levels = document["tcbLevels"]
        return TcbInfo(
            evaluation_number=_number(document["tcbEvaluationDataNumber"]),
            levels=tuple(map(_level, levels)),
            modules={
                str(identity["id"]).upper(): tuple(map(_svn_level, identity["tcbLevels"]))
                for identity in document.get("tdxModuleIdentities") or ()
            },
            kinds=_kinds(levels[0]["tcb"]),
        )
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise EncodingError("TCB info: not a document of version 3") from error


def parse_qe_identity(text: str) -> QeIdentity:
    """
    Return what an `enclaveIdentity` document says.

    Does **not** check its signature.

    Raises:
        EncodingError: It is not such a document.
    """
    try:
        document = json.loads(text)
        return QeIdentity(
            evaluation_number=_number(document["tcbEvaluationDataNumber"]),
            levels=tuple(map(_svn_level, document["tcbLevels"])),
        )
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise EncodingError("QE identity: not a document of version 2") from error


def _level(entry: Mapping[str, object]) -> TcbLevel:
    tcb = entry["tcb"]
    if not isinstance(tcb, dict):
        raise TypeError("tcb")
    return TcbLevel(
        svns=Svns(
            sgx=_svns(tcb["sgxtcbcomponents"]),
            tdx=_svns(tcb.get("tdxtcbcomponents", [])),
            pce=_number(tcb["pcesvn"]),
        ),
        date=parse_utc(entry["tcbDate"]),
        status=str(entry["tcbStatus"]),
        advisories=_texts(entry.get("advisoryIDs")),
    )


def _svn_level(entry: Mapping[str, object]) -> SvnLevel:
    tcb = entry["tcb"]
    if not isinstance(tcb, dict):
        raise TypeError("tcb")
    return SvnLevel(
        isv_svn=_number(tcb["isvsvn"]),
        date=parse_utc(entry["tcbDate"]),
        status=str(entry["tcbStatus"]),
        advisories=_texts(entry.get("advisoryIDs")),
    )


def _kinds(tcb: Mapping[str, list[Mapping[str, object]]]) -> dict[str, str]:
    return {
        f"{name}_svn[{index}]": f" ({component['type']})"
        for name in ("sgx", "tdx")
        for index, component in enumerate(tcb.get(f"{name}tcbcomponents", []))
        if component.get("type")
    }


def _svns(components: object) -> tuple[int, ...]:
    if not isinstance(components, list):
        raise TypeError("components")
    return tuple(_number(component["svn"]) for component in components)


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("not a number")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(map(str, value))
