"""What the commands that admit workers share: the registrar of the settings, tokens, and words."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.output import Document, to_json
from orchestrator.cli.tokens import read_tokens
from orchestrator.cli.values import shown_duration
from orchestrator.cli.verdicts import SIMULATED, verdict_document
from orchestrator.errors import ContractError, InputError, WorkerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.cli.session import Session
    from orchestrator.collateral import CollateralSource
    from orchestrator.collateral.cache import AlarmHook
    from orchestrator.evidence import Policy
    from orchestrator.registrar import Admission, EvidenceArchive, Examined, Registrar

EVIDENCE = ("policy", "collateral", "evidence", "registrar_tokens")


def read_policy(session: "Session") -> "tuple[Policy, bytes]":
    """
    The policy of the settings, and the bytes of its file.

    Raises:
        ConfigError: None is named.
        InputError: The file can't be read, or is no policy.
    """
    from orchestrator.cli.values import read_policy_file

    return read_policy_file(Path(session.required("policy")).expanduser())


def open_archive(session: "Session") -> "EvidenceArchive":
    """The folder of evidence, made when it is not there."""
    from orchestrator.blobs.directory import DirectoryBlobStore
    from orchestrator.keystore.private_files import ensure_private_directory
    from orchestrator.registrar import EvidenceArchive

    folder = ensure_private_directory(session.settings.evidence)
    return EvidenceArchive(DirectoryBlobStore(folder), folder)


def open_source(
    session: "Session", policy: "Policy", on_alarm: "AlarmHook | None" = None
) -> "CollateralSource | None":
    """
    Where collateral comes from, `None` for the workers' own.

    What a PCCS says is kept for when it is away, and asked for anew each time: a registration is
    to rest on the newest.
    """
    from orchestrator.collateral.opening import newest_of, open_collateral
    from orchestrator.keystore.private_files import ensure_private_directory

    text = session.settings.collateral
    if text is None:
        return None
    source = open_collateral(
        text,
        cache_folder=ensure_private_directory(session.settings.registrar_folder) / "collateral",
        roots=[root.certificate for root in policy.roots],
        on_alarm=on_alarm,
    )
    session.closing.callback(source.close)
    return newest_of(source)


def open_registrar(session: "Session", on_alarm: "AlarmHook | None" = None) -> "Registrar":
    """
    The registrar that the settings describe; it sends with the session's account.

    *on_alarm* hears what is wrong with a source of collateral; the log does without it.
    """
    from orchestrator.registrar import ChainCalls, Registrar

    policy, policy_file = read_policy(session)
    processor, signer = session.processor, session.signer
    return Registrar(
        calls=ChainCalls(session.chain, signer, on_receipt=session.paid.add),
        processor=processor,
        policy=policy,
        policy_file=policy_file,
        archive=open_archive(session),
        collateral=open_source(session, policy, on_alarm),
        clock=clock,
    )


def clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class RegistrationTokens:
    """Finds the token, of scope registration, for a worker's URL."""

    def __init__(self, session: "Session", token_file: Path | None = None) -> None:
        from orchestrator.cli.secrets import read_secret_file

        self._one = None if token_file is None else read_secret_file("token_file", token_file)
        path = session.settings.registrar_tokens
        self._by_url: Mapping[str, str] = (
            {}
            if path is None
            else {
                url.rstrip("/"): token
                for url, token in read_tokens(
                    "registrar.tokens", path, example='"https://worker.example.org" = "token"'
                ).items()
            }
        )

    def token(self, url: str) -> str | None:
        """The token, `None` when there is none for this URL."""
        return self._one or self._by_url.get(url.rstrip("/"))


def admission_document(admission: "Admission", examined: "Examined") -> Document:
    """What was registered, with the whole verdict, as JSON has it."""
    worker, evidence = admission.worker, admission.evidence
    return {
        "worker": worker.worker,
        "endpoint": worker.endpoint.decode("utf-8", "replace"),
        "valid_until": worker.valid_until,
        "measurement": to_json(worker.measurement),
        "measurement_set": evidence.measurement_set,
        "signing_key": to_json(worker.signing_key.key),
        "encryption_key": to_json(worker.encryption_key),
        "evidence_hash": to_json(worker.evidence_hash),
        "policy_hash": to_json(evidence.policy_hash),
        "verified": True,
        "tee": SIMULATED if evidence.is_simulated else evidence.tee,
        "simulated": evidence.is_simulated,
        "verdict": verdict_document(examined.verdict),
    }


def explained_refusal(session: "Session", refusal: ContractError) -> ContractError:
    """What the contract refused about a worker, with its limit or with what to do about it."""
    from orchestrator.encoding import to_ss58

    match refusal.variant:
        case "ValidityOutOfRange":
            longest = session.chain.read(session.processor.parameters()).max_registration
            words = f"valid_for: the contract takes up to {shown_duration(longest)}"
        case "MissingRole":
            account = to_ss58(session.signer.account_id)
            words = (
                f"account {account} has no role Registrar, nor one that may do this; the admin"
                f" runs: phala-jobs roles grant {account} registrar"
            )
        case variant if variant in _WHAT_TO_DO:
            words = _WHAT_TO_DO[variant]
        case _:
            return refusal
    return ContractError(refusal.variant, words)


def no_answer(url: str, error: WorkerUnavailableError) -> WorkerUnavailableError:
    """The error with what to look at, where nobody answers at all."""
    if " answered " in str(error):
        return error
    return WorkerUnavailableError(f"no worker answers at {url}; is worker run running? ({error})")


def parse_platform(text: str) -> bytes:
    """
    A PPID or PIID from 32 hex digits.

    Raises:
        InputError: It is none.
    """
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 16:
        raise InputError(f"platform: {text!r} is not 32 hex digits (16 bytes), a PPID or PIID")
    return found


_WHAT_TO_DO = {
    "MeasurementNotAllowed": (
        "the contract does not allow the worker's measurement, or it was revoked, which is final:"
        " phala-jobs measurements list"
    ),
    "KeyAlreadyRegistered": (
        "one of these keys was registered before, perhaps by a worker that is revoked now:"
        " phala-jobs workers renew for a worker that is on the list, phala-jobs workers rotate for"
        " new keys"
    ),
    "InvalidKey": "the worker's encryption key is all zeros",
    "BadSignature": "the worker has signed something else than this registration",
    "EndpointTooLong": "the worker's URL is too long for the contract",
    "WorkerNotFound": "there is no such worker: phala-jobs workers list",
    "WorkerRevoked": "the worker is revoked, which is final: it needs new keys and a new id",
    "WrongStatus": "the worker's status does not allow it: phala-jobs workers list",
}
