"""A PCCS on loopback: the documented interface, version 4, over collateral that a test gives it."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

from orchestrator.evidence import Collateral

__all__ = ["StandInPccs"]


class StandInPccs:
    """
    Serves what *collateral_of* returns for `standard` or `early`; `None` is 404.

    `answers` replaces an answer by its path's last part, with status, headers and body; `asked` are
    the paths, in order.
    """

    def __init__(self, collateral_of: Callable[[str], Collateral | None]) -> None:
        self.collateral_of = collateral_of
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                status, headers, body = owner.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        parts = urlsplit(path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        name = parts.path.rpartition("/")[2]
        if name in self.answers:
            return self.answers[name]
        found = self.collateral_of(asked.get("update", "standard"))
        if found is None:
            return 404, {}, b"No cache data for this platform."
        tee = json.loads(found.tcb_info)["id"].lower()
        if parts.path == "/sgx/certification/v4/pckcrl" and asked["encoding"] == "der":
            return 200, _chain("SGX-PCK-CRL", found.pck_crl_issuer_chain), found.pck_crl
        if parts.path == "/sgx/certification/v4/rootcacrl":
            return 200, {}, found.root_ca_crl.hex().encode()
        if parts.path == f"/{tee}/certification/v4/tcb":
            if asked["fmspc"] != json.loads(found.tcb_info)["fmspc"]:
                return 404, {}, b"No cache data for this platform."
            body = _signed("tcbInfo", found.tcb_info, found.tcb_info_signature)
            return 200, _chain("TCB-Info", found.tcb_info_issuer_chain), body
        if parts.path == f"/{tee}/certification/v4/qe/identity":
            body = _signed("enclaveIdentity", found.qe_identity, found.qe_identity_signature)
            return 200, _chain("SGX-Enclave-Identity", found.qe_identity_issuer_chain), body
        return 404, {}, b""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _chain(what: str, chain: str) -> dict[str, str]:
    return {f"{what}-Issuer-Chain": quote(chain)}


def _signed(name: str, text: str, signature: bytes) -> bytes:
    return f'{{"{name}":{text},"signature":"{signature.hex()}"}}'.encode()
