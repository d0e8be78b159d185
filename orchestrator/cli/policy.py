"""Policy files, which say what TEE evidence is good enough: `policy init|show|check|diff|…`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import command
from orchestrator.cli.output import Document, JsonValue, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_time, read_input, read_policy_file, shown_duration
from orchestrator.cli.verdicts import SIMULATED
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.evidence import MeasurementSet, Policy, Root

app = typer.Typer(help="What TEE evidence has to be: policy files.", no_args_is_help=True)

MAX_ROOT_BYTES = 1 << 16
PolicyArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file to write.")
]


@command(app, "init", group="policy")
def init(
    session: Session,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A new file; stdout if none.")
    ] = None,
) -> None:
    """Write a policy file to begin with, explained; it allows nothing yet."""
    from orchestrator.evidence.policy_text import starter_policy

    _write(session, starter_policy(), file)


@command(app, "show", group="policy")
def show(session: Session, file: PolicyArgument) -> None:
    """Print what a policy allows, each measurement set whole with its hash for the chain."""
    policy = _load(file)
    _warn(session, policy)
    document = _document(policy)
    if session.output.as_json:
        session.output.result(document)
        return
    del document["measurements"]
    session.output.result(document)
    for held in policy.measurements:
        session.output.console().print()
        fields = _set_document(held)
        session.output.result(
            {
                "measurement_set": fields.pop("name"),
                **{name: value for name, value in fields.items() if value is not None},
            }
        )


@command(app, "check", group="policy")
def check(session: Session, file: PolicyArgument) -> None:
    """Say whether a policy file can be read, and what is odd or loose about it."""
    from orchestrator.evidence.policy_changes import policy_warnings

    policy = _load(file)
    _warn(session, policy)
    warnings = list(policy_warnings(policy))
    document: dict[str, JsonValue] = {"policy_hash": to_json(policy.policy_hash), "valid": True}
    if session.output.as_json:
        document["warnings"] = warnings
    session.output.result(document)


@command(app, "diff", group="policy")
def diff(
    session: Session,
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A policy file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.")],
) -> None:
    """Say in words what a change of a policy does: what is allowed more, and what less."""
    from orchestrator.evidence.policy_changes import PolicyEffect, compare_policies

    before, after = _load(old), _load(new)
    changes = compare_policies(before, after)
    rows: list[Document] = [
        {"effect": change.effect.value, "change": change.text} for change in changes
    ]
    more = any(change.effect is PolicyEffect.MORE for change in changes)
    session.output.rows(
        "changes",
        rows,
        allows_more=more,
        old_policy_hash=to_json(before.policy_hash),
        new_policy_hash=to_json(after.policy_hash),
    )
    if not changes and before.policy_hash != after.policy_hash:
        session.output.say(
            "both allow the same, but the hash, by which evidence names its policy, is another:"
            f" {to_json(before.policy_hash)}, then {to_json(after.policy_hash)}"
        )


@command(app, "from-evidence", group="policy")
def from_evidence(
    session: Session,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An evidence bundle.")],
    output: OutputOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to call the measurement set; TEE and hash's first digits if none.",
        ),
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A root beside Intel's, as PEM; it proves no TEE. May be repeated.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="As of then, such as 2026-08-13T10:45:38Z; now if none."),
    ] = None,
) -> None:
    """
    Write the strict policy that this evidence meets, and nothing else does.

    Whether what it measures is the code that you reviewed, only you can find out.
    """
    import time

    from orchestrator.evidence import MAX_BUNDLE_BYTES
    from orchestrator.evidence.policy_text import policy_from_evidence

    now = time.time_ns() // 1_000_000 if at is None else parse_time("at", at)
    data = read_input("bundle", bundle, max_bytes=MAX_BUNDLE_BYTES)
    roots = _roots(root or ())
    _write(session, policy_from_evidence(data, now=now, name=name, roots=roots), output)


@command(app, "hash", group="policy")
def hash_policy(session: Session, file: PolicyArgument) -> None:
    """Print the hash that names a policy file in evidence: blake2-256 of its bytes."""
    session.output.result({"policy_hash": to_json(_load(file).policy_hash)})


@command(app, "schema", group="policy")
def schema(session: Session) -> None:
    """Print the JSON schema of policy files, for editors."""
    import json

    from orchestrator.evidence.policy_file import policy_schema

    del session
    sys.stdout.write(json.dumps(policy_schema(), indent=2) + "\n")


def _load(file: Path) -> "Policy":
    return read_policy_file(file)[0]


def _warn(session: Session, policy: "Policy") -> None:
    from orchestrator.evidence.policy_changes import policy_warnings

    for warning in policy_warnings(policy):
        session.output.say(f"warning: {warning}")


def _roots(named: "list[str] | tuple[()]") -> "list[Root]":
    """Intel's root, and those that the command line names."""
    from orchestrator.evidence.policy_file import load_policy, load_root

    roots = list(load_policy(b"[roots]\nintel = true\n").roots)
    for text in named:
        name, separator, file = text.partition("=")
        if not separator or not name or not file:
            raise InputError(f"root {text!r}: must be NAME=FILE")
        pem = read_input("root", Path(file), max_bytes=MAX_ROOT_BYTES)
        roots.append(load_root(name, pem.decode("ascii", "replace")))
    return roots


def _write(session: Session, text: str, file: Path | None) -> None:
    """Write a policy's text to a new file, or print it."""
    from orchestrator.encoding import blake2_256
    from orchestrator.keystore.private_files import write_new_file

    facts: dict[str, JsonValue] = {"policy_hash": to_json(blake2_256(text.encode("utf-8")))}
    if file is not None:
        write_new_file(file, text.encode("utf-8"))
        session.output.result({**facts, "written": str(file)})
    elif session.output.as_json:
        session.output.result({**facts, "policy": text})
    else:
        sys.stdout.write(text)


def _document(policy: "Policy") -> dict[str, JsonValue]:
    """A policy as JSON has it; times in words, as in the file."""
    return {
        "policy_hash": to_json(policy.policy_hash),
        "roots": [
            root.name if root.is_intel else f"{root.name} ({SIMULATED})" for root in policy.roots
        ],
        "measurements": [_set_document(held) for held in policy.measurements],
        "tcb_statuses": sorted(policy.tcb.statuses),
        "tcb_grace": {
            status: shown_duration(length) for status, length in sorted(policy.tcb.grace.items())
        },
        "denied_advisories": sorted(policy.tcb.denied_advisories),
        "minimum_evaluation_number": policy.tcb.minimum_evaluation_number,
        "platforms_allowed": _hexed(policy.platforms.allowed) or "any",
        "platforms_denied": _hexed(policy.platforms.denied),
        "dynamic_platform": policy.platforms.dynamic_platform,
        "cached_keys": policy.platforms.cached_keys,
        "smt": policy.platforms.smt,
        "debug": policy.attributes.debug,
        "required_events": sorted(policy.required_events),
        "forbidden_events": sorted(policy.forbidden_events),
        "event_payloads": {
            name: f"sha256:{digest.hex()}" for name, digest in sorted(policy.event_payloads.items())
        },
        "maximum_age": shown_duration(policy.maximum_age),
        "maximum_registration": shown_duration(policy.maximum_registration),
    }


def _set_document(held: "MeasurementSet") -> dict[str, JsonValue]:
    from orchestrator.evidence import TdxMeasurements

    fields = to_json(held)
    if not isinstance(fields, dict):
        raise TypeError("a measurement set is a dataclass")
    tee = "tdx" if isinstance(held, TdxMeasurements) else "sgx"
    return {"name": held.name, "tee": tee, "measurement": to_json(held.measurement), **fields}


def _hexed(values: frozenset[bytes]) -> list[str]:
    return sorted(value.hex() for value in values)
