"""Which worker software the contract allows: `measurements list|allow|revoke`."""

from typing import Annotated

import typer

from orchestrator.cli.access import READ, SEND, FromBlock
from orchestrator.cli.command import command
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_bytes32

app = typer.Typer(help="Which worker software the contract allows.", no_args_is_help=True)

MeasurementArgument = Annotated[str, typer.Argument(metavar="MEASUREMENT", help="64 hex digits.")]


@command(app, "list", settings=READ, group="measurements")
def list_measurements(session: Session, from_block: FromBlock = 0) -> None:
    """
    List the measurements ever allowed, from the contract's events, each asked again.

    What was allowed before --from-block is not listed.
    """
    seen: dict[bytes, None] = {}
    for event in session.events(first_block=from_block):
        measurement = event.fields.get("measurement")
        if event.name == "MeasurementAllowed" and isinstance(measurement, bytes):
            seen[measurement] = None
    session.output.rows(
        "measurements",
        [
            {
                "measurement": "0x" + measurement.hex(),
                "allowed": session.chain.read(session.processor.has_measurement(measurement)),
            }
            for measurement in seen
        ],
    )


@command(app, "allow", settings=SEND, group="measurements")
def allow(session: Session, measurement: MeasurementArgument) -> None:
    """Allow workers of this measurement to be registered. Registrar only."""
    value = parse_bytes32("measurement", measurement)
    session.send(session.processor.allow_measurement(value), "Allowing the measurement")
    session.output.result({"measurement": "0x" + value.hex(), "allowed": True})


@command(app, "revoke", settings=SEND, group="measurements")
def revoke(session: Session, measurement: MeasurementArgument) -> None:
    """Revoke a measurement for ever: all its workers are untrusted at once. Registrar only."""
    value = parse_bytes32("measurement", measurement)
    session.send(session.processor.revoke_measurement(value), "Revoking the measurement")
    session.output.result({"measurement": "0x" + value.hex(), "allowed": False})
