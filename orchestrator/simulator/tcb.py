"""What Intel publishes about TCBs, as JSON that is signed over its exact text: ours to choose."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

__all__ = ["DAY", "Svns", "TcbLevel", "TcbRelease", "qe_identity_json", "tcb_info_json"]

DAY: Final = 86_400_000
# What names this QE's signer: no key has this hash.
QE_MRSIGNER: Final = b"SIMULATED QE, it proves no TEE".ljust(32, b"\0")
QE_PRODUCT: Final = 2
QE_ATTRIBUTES: Final = bytes.fromhex("1500000000000000e700000000000000")
# Position 1 of `tee_tcb_svn` names the TDX module's identity, position 0 is its SVN.
MODULE_IDENTITY: Final = "TDX_01"
MODULE_SVN: Final = 11
_FIRST_DATE: Final = 1_755_043_200_000  # 2025-08-13, as a TCB level's date


@dataclass(frozen=True, kw_only=True)
class Svns:
    """The security versions of a machine's parts: 16 for SGX, 16 for TDX, one of the PCE."""

    sgx: tuple[int, ...] = (4, 4, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0)
    pce_svn: int = 11
    tdx: tuple[int, ...] = (11, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def raised(self) -> "Svns":
        """Return these with a newer microcode, as a machine has after its update."""
        first, *rest = self.sgx
        return replace(self, sgx=(first + 1, *rest))


@dataclass(frozen=True, kw_only=True)
class TcbLevel:
    """A state of a TCB: machines that have at least these versions have this status."""

    svns: Svns
    status: str = "UpToDate"
    date: int = _FIRST_DATE
    advisories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TcbRelease:
    """
    One TCB evaluation: levels, best first, and what it says of quoting enclave and TDX module.

    It is known from `published_at` (ms), and what a PCCS hands out by default from `effective_at`:
    Intel leaves months between, so that machines can be updated.
    """

    evaluation_number: int
    levels: tuple[TcbLevel, ...]
    published_at: int = 0
    effective_at: int = 0
    qe_status: str = "UpToDate"
    qe_svn: int = 6
    module_status: str = "UpToDate"

    def recovery(
        self, *, published_at: int, effective_at: int, advisories: tuple[str, ...]
    ) -> "TcbRelease":
        """Return the next evaluation: it wants raised versions, and what was best is outdated."""
        best = self.levels[0]
        outdated = tuple(
            replace(level, status="OutOfDate", advisories=(*level.advisories, *advisories))
            if level.status == "UpToDate"
            else level
            for level in self.levels
        )
        newest = TcbLevel(svns=best.svns.raised(), date=published_at)
        return replace(
            self,
            evaluation_number=self.evaluation_number + 1,
            levels=(newest, *outdated),
            published_at=published_at,
            effective_at=effective_at,
        )


def tcb_info_json(release: TcbRelease, *, fmspc: bytes, issued_at: int, expires_at: int) -> str:
    """Return `tcbInfo` v3 of the TDX machines with this FMSPC, as the text that is signed."""
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    level = {
        "tcb": {"isvsvn": MODULE_SVN},
        "tcbDate": _date(_FIRST_DATE),
        "tcbStatus": release.module_status,
    }
    return _text(
        {
            "id": "TDX",
            "version": 3,
            "issueDate": _date(issued_at),
            "nextUpdate": _date(expires_at),
            "fmspc": fmspc.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": release.evaluation_number,
            "tdxModule": module,
            "tdxModuleIdentities": [{"id": MODULE_IDENTITY, **module, "tcbLevels": [level]}],
            "tcbLevels": [_level_json(level) for level in release.levels],
        }
    )


def qe_identity_json(release: TcbRelease, *, issued_at: int, expires_at: int) -> str:
    """Return the identity of the quoting enclave, as the text that is signed."""
    return _text(
        {
            "id": "TD_QE",
            "version": 2,
            "issueDate": _date(issued_at),
            "nextUpdate": _date(expires_at),
            "tcbEvaluationDataNumber": release.evaluation_number,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QE_MRSIGNER.hex().upper(),
            "isvprodid": QE_PRODUCT,
            "tcbLevels": [
                {
                    "tcb": {"isvsvn": release.qe_svn},
                    "tcbDate": _date(_FIRST_DATE),
                    "tcbStatus": release.qe_status,
                }
            ],
        }
    )


def _level_json(level: TcbLevel) -> dict[str, object]:
    found: dict[str, object] = {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn} for svn in level.svns.sgx],
            "pcesvn": level.svns.pce_svn,
            "tdxtcbcomponents": [{"svn": svn} for svn in level.svns.tdx],
        },
        "tcbDate": _date(level.date),
        "tcbStatus": level.status,
    }
    return {**found, "advisoryIDs": list(level.advisories)} if level.advisories else found


def _text(document: dict[str, object]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
