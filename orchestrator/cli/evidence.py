"""Workers' TEE evidence: `evidence fetch|show|verify`."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ
from orchestrator.cli.command import command
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.output import Document, JsonValue, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_time, read_input
from orchestrator.cli.verdicts import SIMULATED, show_verdict, verdict_document, verdict_words
from orchestrator.errors import (
    CollateralUnavailableError,
    EncodingError,
    InputError,
    WorkerProtocolError,
)

if TYPE_CHECKING:
    from orchestrator.evidence import (
        EvidenceBundle,
        ExpectedBinding,
        IssuedChallenge,
        KeyStanding,
        Verdict,
    )
    from orchestrator.models import PublicKey, Worker

app = typer.Typer(help="What workers show of their TEE: fetch, look, verify.", no_args_is_help=True)

JUDGE = (*READ, "policy", "collateral")
UNVERIFIED = "nothing of this is verified: these are the bundle's claims"

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="An evidence bundle.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file for the bundle.")
]


@command(app, "fetch", settings=JUDGE, group="evidence")
def fetch(
    session: Session,
    target: Annotated[
        str,
        typer.Argument(metavar="URL|WORKER", help="Where a worker listens, or its id."),
    ],
    output: OutputOption = None,
) -> None:
    """
    Ask a worker for evidence, with a challenge of one's own, and verify it with --policy.

    Who asks knows that the challenge is new: this is the one way to have E13 checked. Nothing that
    a registrar, an orchestrator or the node says is believed.
    """
    import asyncio

    from orchestrator.evidence import ExpectedBinding, dump_bundle, load_bundle
    from orchestrator.keystore.private_files import write_new_file

    listed, url = _target(session, target)
    challenge = _new_challenge()
    with session.output.progress(f"Asking {url} for evidence"):
        key, encryption_key, data = asyncio.run(_ask(session, url, listed, challenge))
    try:
        bundle = load_bundle(data)
    except EncodingError as error:
        raise WorkerProtocolError(f"{url} answers with no evidence bundle: {error}") from error
    bundle = _completed(session, bundle, now=challenge.issued_at)
    data = dump_bundle(bundle)
    if output is not None:
        write_new_file(output, data)
    facts = {
        **_facts(bundle),
        "worker": None if listed is None else listed.worker,
        "written": None if output is None else str(output),
    }
    if session.policy is None:
        session.output.say(f"{UNVERIFIED}; --policy verifies it")
        session.output.result({**facts, "verified": False})
        return
    registered = _listed_under(session, key)
    expected = ExpectedBinding(
        genesis_hash=session.chain.genesis_hash,
        contract=session.contract,
        signing_key=key,
        encryption_key=encryption_key,
        measurement=None if registered is None else registered.measurement,
    )
    standing = _standing(session, registered)
    _report(
        session,
        _examine(session, data, expected, now=_clock(), challenge=challenge, standing=standing),
        facts,
    )


@command(app, "show", group="evidence")
def show(
    session: Session,
    file: FileArgument,
    *,
    compose: Annotated[
        bool,
        typer.Option(
            "--compose", help="Print the compose document; control characters are replaced."
        ),
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Print names and payloads of RTMR3's events.")
    ] = False,
) -> None:
    """Print what an evidence bundle claims; nothing is verified."""
    from orchestrator.evidence.event_log import runtime_events

    bundle = _load(file)
    session.output.say(UNVERIFIED)
    document: dict[str, JsonValue] = {}
    rows: list[Document] = []
    text = (bundle.compose or b"").decode("utf-8", "replace")
    if events:
        rows = [
            {"event": one.name, "payload": one.payload.hex(), "text": _plain(one.payload)}
            for one in runtime_events(bundle.event_log)
        ]
        document["events"] = rows
    if compose:
        if bundle.compose is None:
            raise InputError(f"file {file}: this evidence has no compose document")
        document["compose"] = text
    if session.output.as_json or not document:
        session.output.result({**_facts(bundle), "verified": False, **document})
        return
    if events:
        session.output.rows("events", rows)
    if compose:
        session.output.text(text)


def _plain(payload: bytes) -> str | None:
    """A payload that is text, as that."""
    text = payload.decode("ascii", "replace")
    return text if text and text.isascii() and text.isprintable() else None


@command(app, "verify", settings=JUDGE, group="evidence")
def verify(
    session: Session,
    file: FileArgument,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="As of then, such as 2026-08-13T10:45:38Z; now if none."),
    ] = None,
    worker: Annotated[
        int | None,
        typer.Option(
            metavar="ID", min=1, help="Compare the keys with this worker's on the chain too."
        ),
    ] = None,
) -> None:
    """
    Make all checks of evidence in a file that can be made against a policy, and print each.

    Without --worker it needs no network, and says which keys the evidence is for; whether they are
    revoked (E14) only the chain could tell, whether the challenge was new (E13) only its issuer.
    """
    from orchestrator.evidence import ExpectedBinding, dump_bundle

    session.required("policy")
    now = _clock() if at is None else parse_time("at", at)
    bundle = _load(file)
    facts = _facts(bundle)
    bundle = _completed(session, bundle, now=now)
    if worker is None:
        standing = None
        expected = ExpectedBinding(
            genesis_hash=bundle.genesis_hash,
            contract=bundle.contract,
            signing_key=bundle.signing_key,
            encryption_key=bundle.encryption_key,
        )
    else:
        listed = _listed(session, worker)
        standing = _standing(session, listed)
        expected = ExpectedBinding(
            genesis_hash=session.chain.genesis_hash,
            contract=session.contract,
            signing_key=listed.signing_key,
            encryption_key=listed.encryption_key,
            measurement=listed.measurement,
        )
        facts["worker"] = worker
        facts["is_on_chain"] = facts["evidence_hash"] == to_json(listed.evidence_hash)
    verdict = _examine(
        session, dump_bundle(bundle), expected, now=now, challenge=None, standing=standing
    )
    _report(session, verdict, facts)


def _clock() -> int:
    import time

    return time.time_ns() // 1_000_000


def _new_challenge() -> "IssuedChallenge":
    import secrets

    from orchestrator.evidence import IssuedChallenge

    return IssuedChallenge(value=secrets.token_bytes(32), issued_at=_clock())


def _target(session: Session, target: str) -> "tuple[Worker | None, str]":
    """The worker of the chain's list, where an id is given, and its URL."""
    if not target.isdecimal():
        return None, target
    listed = _listed(session, int(target))
    return listed, listed.endpoint.decode("utf-8", "replace")


def _listed(session: Session, worker: int) -> "Worker":
    from orchestrator.client.chain_view import ChainView

    return ChainView(session.chain, session.processor.contract, session.bundle).worker(worker)


def _listed_under(session: Session, key: "PublicKey") -> "Worker | None":
    return session.chain.read(session.processor.worker_by_key(key))


def _standing(session: Session, listed: "Worker | None") -> "KeyStanding":
    """What the chain says about the keys; unregistered ones must be nobody's."""
    from orchestrator.evidence import KeyStanding

    is_revoked = False
    if listed is not None:
        measurement = session.processor.has_measurement(listed.measurement)
        is_revoked = not session.chain.read(measurement)
    return KeyStanding(
        worker=listed,
        renews=None if listed is None else listed.worker,
        is_measurement_revoked=is_revoked,
    )


async def _ask(
    session: Session, url: str, listed: "Worker | None", challenge: "IssuedChallenge"
) -> "tuple[PublicKey, bytes, bytes]":
    """The keys that the evidence has to be for, and a bundle's bytes, unverified."""
    from orchestrator.workers.http import HttpWorkerClient

    client = HttpWorkerClient(url, None)
    try:
        if listed is None:
            identity = await client.identity()
            keys = (identity.signing_key, identity.encryption_key)
        else:
            keys = (listed.signing_key, listed.encryption_key)
        data = await client.evidence(
            genesis=session.chain.genesis_hash,
            contract=session.contract,
            challenge=challenge.value,
            signing_key=keys[0],
        )
    finally:
        await client.close()
    return *keys, data


def _load(file: Path) -> "EvidenceBundle":
    from orchestrator.evidence import MAX_BUNDLE_BYTES, load_bundle

    return load_bundle(read_input("file", file, max_bytes=MAX_BUNDLE_BYTES))


def _completed(session: Session, bundle: "EvidenceBundle", *, now: int) -> "EvidenceBundle":
    """
    The bundle with the collateral to judge it by, where the settings say whence.

    Raises:
        CollateralUnavailableError: It has none, none is named, and it is to be judged.
    """
    source = session.collateral
    if source is not None:
        return replace(bundle, collateral=source.collateral(bundle.quote, now=now))
    if bundle.collateral is None and session.settings.policy is not None:
        raise CollateralUnavailableError(
            "the bundle has no collateral: --collateral says where it comes from"
        )
    return bundle


def _examine(
    session: Session,
    data: bytes,
    expected: "ExpectedBinding",
    *,
    now: int,
    challenge: "IssuedChallenge | None",
    standing: "KeyStanding | None",
) -> "Verdict":
    from orchestrator.evidence import examine_evidence

    policy = session.policy
    if policy is None:
        raise ValueError("the caller has asked for the policy")
    return examine_evidence(
        data, policy=policy, now=now, expected=expected, challenge=challenge, standing=standing
    )


def _facts(bundle: "EvidenceBundle") -> dict[str, JsonValue]:
    """What the bundle says, as JSON has it: none of it verified."""
    from hashlib import sha256

    from orchestrator.encoding import to_ss58
    from orchestrator.evidence import evidence_hash
    from orchestrator.evidence.intel_root import is_intel_root
    from orchestrator.evidence.quote import parse_quote

    facts: dict[str, JsonValue] = {
        "evidence_hash": to_json(evidence_hash(bundle)),
        "producer": bundle.producer,
        "genesis_hash": to_json(bundle.genesis_hash),
        "contract": to_ss58(bundle.contract),
        "signing_key": to_json(bundle.signing_key.key),
        "encryption_key": to_json(bundle.encryption_key),
        "challenge": to_json(bundle.challenge),
        "policy_hash": to_json(bundle.policy_hash),
        "has_collateral": bundle.collateral is not None,
        "event_log_bytes": None if bundle.event_log is None else len(bundle.event_log),
        "compose_hash": None
        if bundle.compose is None
        else to_json(sha256(bundle.compose).digest()),
        "quote_bytes": len(bundle.quote),
    }
    try:
        quote = parse_quote(bundle.quote)
    except EncodingError as error:
        return {**facts, "quote": f"can't be parsed: {error}"}
    registers = {
        field.name: to_json(getattr(quote.report, field.name)) for field in fields(quote.report)
    }
    try:
        is_intel = is_intel_root(quote.certificates[2])
    except ValueError:  # no certificate at all
        is_intel = False
    root = "Intel's, as it claims" if is_intel else f"not Intel's; {SIMULATED}"
    return {
        **facts,
        "tee": quote.tee,
        "root": root,
        "quote_version": quote.version,
        **registers,
    }


def _report(session: Session, verdict: "Verdict", facts: dict[str, JsonValue]) -> None:
    """Print the verdict; the command ends with 1 when a check refused."""
    show_verdict(session.output, verdict)
    refused = verdict.refused_by
    document = {**facts, **verdict_document(verdict)}
    if refused is not None:
        session.output.error(refused.check.value, verdict_words(verdict), **document)
        raise typer.Exit(ExitCode.REFUSED)
    if session.output.as_json:
        session.output.result(document)
    else:
        shown = (
            "evidence_hash",
            "signing_key",
            "encryption_key",
            "worker",
            "is_on_chain",
            "written",
        )
        session.output.result({name: facts[name] for name in shown if facts.get(name) is not None})
