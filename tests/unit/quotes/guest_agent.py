"""A stand-in for dstack's guest agent: its documented interface, over a simulator's quotes."""

import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from aiohttp import web

from orchestrator.simulator import Simulator

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GuestAgent:
    """
    Answers on a Unix socket as the interface says; `faults` replaces methods by name.

    `questions` are the methods that were asked for, with the JSON that came.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.faults: dict[str, Handler] = {}
        self.questions: list[tuple[str, object]] = []

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve while the context lasts; gives the socket's path, which has to be short."""
        app = web.Application()
        app.router.add_post("/{method}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        with tempfile.TemporaryDirectory(prefix="guest") as folder:
            socket = str(Path(folder) / "dstack.sock")
            await web.UnixSite(runner, socket).start()
            try:
                yield socket
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.questions.append((method, await request.json()))
        if method in self.faults:
            return await self.faults[method](request)
        match method:
            case "GetQuote":
                return web.json_response(self.quote((await request.json())["report_data"]))
            case "Info":
                return web.json_response(self.info())
            case _:
                return web.json_response({"error": f"no such method: {method}"}, status=400)

    def quote(self, report_data: str) -> dict[str, str]:
        """Return the answer to `GetQuote`."""
        data = bytes.fromhex(report_data).ljust(64, b"\0")
        return {
            "quote": self.simulator.quote(data).hex(),
            "event_log": self.simulator.guest.event_log.decode(),
            "report_data": data.hex(),
            "vm_config": "{}",
        }

    def info(self) -> dict[str, str]:
        """Return the answer to `Info`."""
        guest = self.simulator.guest
        tcb_info = {
            "mrtd": guest.mrtd.hex(),
            "rtmr0": guest.rtmr0.hex(),
            "rtmr1": guest.rtmr1.hex(),
            "rtmr2": guest.rtmr2.hex(),
            "rtmr3": guest.rtmr3.hex(),
            "mr_aggregated": "",
            "os_image_hash": "",
            "compose_hash": guest.compose_hash.hex(),
            "device_id": "",
            "app_compose": guest.compose.decode(),
            "event_log": json.loads(guest.event_log),
        }
        return {
            "app_id": guest.app_id.hex(),
            "instance_id": "",
            "app_cert": "",
            "tcb_info": json.dumps(tcb_info),
            "app_name": "simulated",
            "device_id": "",
            "mr_aggregated": "",
            "os_image_hash": "",
            "key_provider_info": "",
            "compose_hash": guest.compose_hash.hex(),
            "vm_config": "{}",
        }
