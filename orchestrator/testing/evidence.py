"""Workers with simulated evidence, and policies that it meets. All of it proves no TEE."""

from collections.abc import Callable
from dataclasses import replace

from orchestrator.encoding import report_data
from orchestrator.evidence import (
    Collateral,
    EvidenceBundle,
    Policy,
    Root,
    TcbRules,
    dump_bundle,
)
from orchestrator.models import PublicKey
from orchestrator.simulator import Simulator

__all__ = ["EvidenceMaker", "evidence_maker", "simulated_bundle", "simulated_policy"]

EvidenceMaker = Callable[[PublicKey, bytes], bytes]


def simulated_policy(simulator: Simulator) -> Policy:
    """Return a policy that evidence of *simulator* meets while its TCB is up to date."""
    return Policy(
        policy_hash=b"\x70" * 32,
        roots=(Root(name="simulated", certificate=simulator.root_certificate, is_intel=False),),
        measurements=(simulator.guest.measurements(),),
        tcb=TcbRules(statuses=frozenset({"UpToDate"})),
    )


def simulated_bundle(
    simulator: Simulator,
    *,
    genesis_hash: bytes,
    contract: bytes,
    signing_key: PublicKey,
    encryption_key: bytes,
    challenge: bytes = b"\xc4" * 32,
    collateral: Collateral | None,
) -> bytes:
    """Return a bundle of *simulator*, complete, for these keys."""
    bundle = EvidenceBundle(
        producer="phala-jobs testing",
        genesis_hash=genesis_hash,
        contract=contract,
        signing_key=signing_key,
        encryption_key=encryption_key,
        challenge=challenge,
        quote=b"",
        collateral=collateral,
        event_log=simulator.guest.event_log,
        compose=simulator.guest.compose,
        policy_hash=b"\x72" * 32,
    )
    return dump_bundle(replace(bundle, quote=simulator.quote(report_data(bundle.binding()))))


def evidence_maker(
    simulator: Simulator, *, genesis_hash: bytes, contract: bytes, collateral: Collateral | None
) -> EvidenceMaker:
    """Return what makes a bundle from a signing key and an encryption key."""
    return lambda signing_key, encryption_key: simulated_bundle(
        simulator,
        genesis_hash=genesis_hash,
        contract=contract,
        signing_key=signing_key,
        encryption_key=encryption_key,
        collateral=collateral,
    )
