"""A simulated machine and the simulator around it, as values that quotes come from."""

import secrets
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.evidence import Collateral
from orchestrator.simulator.authority import Authority, Issued
from orchestrator.simulator.guest import Guest
from orchestrator.simulator.quote import encode_quote
from orchestrator.simulator.sgx_extension import encode_sgx_extension
from orchestrator.simulator.tcb import DAY, Svns, TcbLevel, TcbRelease

__all__ = ["Platform", "Simulator"]

_FMSPC: Final = b"SIM\0\0\0"
_FIRST_RELEASE: Final = TcbRelease(evaluation_number=20, levels=(TcbLevel(svns=Svns()),))


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A machine: PPID and PIID of 16 bytes, FMSPC of 6, its versions, and the keys it quotes by."""

    ppid: bytes
    piid: bytes
    fmspc: bytes
    svns: Svns
    pck: Issued
    attestation_key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(
        cls,
        authority: Authority,
        *,
        ppid: bytes | None = None,
        piid: bytes | None = None,
        fmspc: bytes = _FMSPC,
        svns: Svns | None = None,
        dynamic_platform: bool = False,
        cached_keys: bool = False,
        smt: bool = False,
        certificate_until: int | None = None,
    ) -> "Platform":
        """
        Return a machine with new keys.

        The flags are those of its PCK certificate, which may expire early (ms).
        """
        ppid = secrets.token_bytes(16) if ppid is None else ppid
        piid = secrets.token_bytes(16) if piid is None else piid
        svns = Svns() if svns is None else svns
        extension = encode_sgx_extension(
            ppid=ppid,
            piid=piid,
            fmspc=fmspc,
            svns=svns,
            dynamic_platform=dynamic_platform,
            cached_keys=cached_keys,
            smt=smt,
        )
        return cls(
            ppid=ppid,
            piid=piid,
            fmspc=fmspc,
            svns=svns,
            pck=authority.issue_pck(extension, until=certificate_until),
            attestation_key=ec.generate_private_key(ec.SECP256R1()),
        )


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """
    One vendor, one machine and what runs on it. Everything it makes is simulated: proves no TEE.

    `releases` are the TCB evaluations, oldest first. `dataclasses.replace` changes any part.
    """

    authority: Authority
    platform: Platform
    guest: Guest = field(default_factory=Guest)
    releases: tuple[TcbRelease, ...] = (_FIRST_RELEASE,)

    @classmethod
    def create(cls, *, guest: Guest | None = None) -> "Simulator":
        """Return one with new keys and an up-to-date machine."""
        authority = Authority.create()
        return cls(
            authority=authority,
            platform=Platform.create(authority),
            guest=Guest() if guest is None else guest,
        )

    @property
    def root_certificate(self) -> bytes:
        """The root as DER: what a policy has to name."""
        return self.authority.root_certificate

    @property
    def root_pem(self) -> str:
        """The root as PEM."""
        return self.authority.root.pem

    def quote(self, report_data: bytes, *, version: int = 4) -> bytes:
        """
        Return a quote of this machine that carries these 64 bytes.

        Raises:
            ValueError: A register, the attributes or *report_data* has not its length.
        """
        machine = self.platform
        return encode_quote(
            self.guest,
            svns=machine.svns,
            qe_svn=_FIRST_RELEASE.qe_svn,
            report_data=report_data,
            attestation_key=machine.attestation_key,
            pck_key=machine.pck.key,
            pck_chain=self.authority.pck_chain(machine.pck),
            version=version,
        )

    def release_at(self, now: int, *, early: bool = False) -> TcbRelease:
        """Return the evaluation that collateral is made by at *now* (ms); *early*: the newest."""
        known = [
            release
            for release in self.releases
            if (release.published_at if early else release.effective_at) <= now
        ]
        return max(known or self.releases[:1], key=lambda release: release.evaluation_number)

    def collateral(
        self,
        *,
        now: int,
        valid_for: int = 30 * DAY,
        crls_valid_for: int | None = None,
        early: bool = False,
        fmspc: bytes | None = None,
        is_revoked: bool = False,
    ) -> Collateral:
        """
        Return collateral for this machine, issued at *now*; times in ms.

        Args:
            now: When it is issued.
            valid_for: How long it is valid.
            crls_valid_for: How long the revocation lists are, if not as long as the rest.
            early: By the newest evaluation that is published, not by the one in effect.
            fmspc: Of another kind of machine.
            is_revoked: The machine's PCK certificate is on the list.
        """
        return self.authority.collateral(
            self.release_at(now, early=early),
            fmspc=self.platform.fmspc if fmspc is None else fmspc,
            issued_at=now,
            expires_at=now + valid_for,
            crls_expire_at=None if crls_valid_for is None else now + crls_valid_for,
            revoked=(self.platform.pck.certificate,) if is_revoked else (),
        )

    def tcb_recovery(
        self,
        *,
        now: int,
        effective_at: int | None = None,
        advisories: tuple[str, ...] = ("SIMULATED-SA-00001",),
    ) -> "Simulator":
        """
        Return this after a TCB recovery: a new evaluation number, a version raised.

        The machine stays as it is, so it is out of date once that evaluation is in effect; until
        *effective_at* (ms, at once if absent) only early collateral says so.
        """
        recovery = self.releases[-1].recovery(
            published_at=now,
            effective_at=now if effective_at is None else effective_at,
            advisories=advisories,
        )
        return replace(self, releases=(*self.releases, recovery))

    def with_status(self, status: str, *, advisories: tuple[str, ...] = ()) -> "Simulator":
        """Return this with the machine's TCB in a status of Intel's (`OutOfDate`, `Revoked`, …)."""
        level = TcbLevel(svns=self.platform.svns, status=status, advisories=advisories)
        return replace(
            self, releases=(*self.releases[:-1], replace(self.releases[-1], levels=(level,)))
        )

    def updated(self) -> "Simulator":
        """Return this with the machine brought up to the newest evaluation's versions."""
        machine = self.platform
        newest = Platform.create(
            self.authority,
            ppid=machine.ppid,
            piid=machine.piid,
            fmspc=machine.fmspc,
            svns=self.releases[-1].levels[0].svns,
        )
        return replace(self, platform=newest)
