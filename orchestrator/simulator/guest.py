"""What runs in a simulated TD: registers, application, event log as dstack writes it."""

import json
from dataclasses import dataclass
from hashlib import sha256, sha384
from typing import Final

from orchestrator.evidence import TdxMeasurements

__all__ = ["Guest", "RuntimeEvent"]

_RUNTIME_EVENT: Final = 0x08000001
_SERVICE_VM: Final = b'{"name":"simulated, proves no TEE"}'


def _register(name: str) -> bytes:
    return sha384(f"simulated, proves no TEE: {name}".encode()).digest()


@dataclass(frozen=True, kw_only=True)
class RuntimeEvent:
    """An event that extends RTMR3."""

    name: str
    payload: bytes = b""

    @property
    def digest(self) -> bytes:
        """What the register is extended by, as dstack computes it."""
        head = _RUNTIME_EVENT.to_bytes(4, "little")
        return sha384(b":".join((head, self.name.encode(), self.payload))).digest()


@dataclass(frozen=True, kw_only=True)
class Guest:
    """
    A TD: registers of 48 bytes, attributes of 8, the compose document that it runs.

    `boot_events` replaces the events of a dstack boot; `events` come after them. RTMR3 is theirs.
    """

    mrtd: bytes = _register("mrtd")
    rtmr0: bytes = _register("rtmr0")
    rtmr1: bytes = _register("rtmr1")
    rtmr2: bytes = _register("rtmr2")
    compose: bytes = _SERVICE_VM
    boot_events: tuple[RuntimeEvent, ...] | None = None
    events: tuple[RuntimeEvent, ...] = ()
    td_attributes: bytes = bytes.fromhex("0000001000000000")  # SEPT_VE_DISABLE, not debug
    xfam: bytes = bytes.fromhex("e702060000000000")

    @property
    def compose_hash(self) -> bytes:
        """SHA-256 of the compose document's bytes."""
        return sha256(self.compose).digest()

    @property
    def app_id(self) -> bytes:
        """The application's id: 20 bytes of its first compose hash."""
        return self.compose_hash[:20]

    @property
    def all_events(self) -> tuple[RuntimeEvent, ...]:
        """What extended RTMR3, in order."""
        if self.boot_events is not None:
            return self.boot_events + self.events
        return (
            RuntimeEvent(name="system-preparing"),
            RuntimeEvent(name="app-id", payload=self.app_id),
            RuntimeEvent(name="compose-hash", payload=self.compose_hash),
            RuntimeEvent(name="instance-id", payload=sha256(self.compose_hash).digest()[:20]),
            RuntimeEvent(name="boot-mr-done"),
            RuntimeEvent(name="key-provider", payload=b'{"name":"simulated","id":""}'),
            RuntimeEvent(name="system-ready"),
            *self.events,
        )

    @property
    def rtmr3(self) -> bytes:
        """The register after all events."""
        register = bytes(48)
        for event in self.all_events:
            register = sha384(register + event.digest).digest()
        return register

    @property
    def event_log(self) -> bytes:
        """The log of RTMR3, in dstack's JSON."""
        return json.dumps(
            [
                {
                    "imr": 3,
                    "event_type": _RUNTIME_EVENT,
                    "digest": event.digest.hex(),
                    "event": event.name,
                    "event_payload": event.payload.hex(),
                }
                for event in self.all_events
            ],
            separators=(",", ":"),
        ).encode()

    def measurements(self, name: str = "simulated") -> TdxMeasurements:
        """Return the measurement set that this guest matches."""
        return TdxMeasurements(
            name=name,
            mrtd=self.mrtd,
            rtmr0=self.rtmr0,
            rtmr1=self.rtmr1,
            rtmr2=self.rtmr2,
            compose_hash=self.compose_hash,
            app_id=self.app_id,
        )
