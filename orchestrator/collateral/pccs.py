"""
Collateral from a PCCS, or from Intel's own service: the PCS interface, version 4, over HTTP.

`dcap_qvl.get_collateral` asks the same questions, and a test compares the answers; but it reads
whatever comes (2.4 GB in five seconds, measured), for up to three minutes, and follows addresses
in certificates that nobody has verified. Here sizes and time are limited and nothing is followed.
What comes proves itself by its signatures, so the connection need not be https.
"""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import httpx
import stamina

from orchestrator.collateral.facts import PlatformKind, platform_of, read_facts, serve
from orchestrator.errors import CollateralUnavailableError, ConfigError, EncodingError
from orchestrator.evidence import Collateral
from orchestrator.evidence.bundle import MAX_COLLATERAL_BYTES

__all__ = ["PccsCollateral"]

_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 10.0
_NO_ANSWER: Final = (httpx.HTTPError, httpx.InvalidURL, OSError, OverflowError, ValueError)
# Intel's service has no list of its root; its certificates name this place for it.
_INTEL: Final = "https://api.trustedservices.intel.com"
_INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"


class _SilentError(Exception):
    """No answer, or one that asks to come again."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    body: bytes
    headers: Mapping[str, str]

    def chain(self, *names: str) -> str:
        """The certificates that a header holds, percent-encoded PEM."""
        for name in names:
            if name in self.headers:
                return unquote(self.headers[name])
        raise EncodingError(f"no header {names[0]}")

    def signed(self, name: str) -> tuple[str, bytes]:
        """
        The text of a signed document exactly as it stands in the body, and its signature.

        The form that the service documents: `{"NAME":{…},"signature":"hex"}`.
        """
        text = self.body.decode("utf-8", "strict")
        document = json.loads(text)
        held = document[name]
        head = text.index(f'"{name}"') + len(name) + 2
        begin = text.index("{", head)
        decoded, end = json.JSONDecoder().raw_decode(text, begin)
        if text[head:begin].strip() != ":" or decoded != held:
            raise EncodingError(f"{name} is not where it should be")
        return text[begin:end], bytes.fromhex(document["signature"])


class PccsCollateral:
    """
    Asks the service at *url* at each call; nothing is kept.

    A call takes at most *timeout_seconds*, three attempts included, and blocks: from a coroutine,
    call it in a thread. *early* asks for the evaluation that is published and not yet in effect.

    Raises:
        ConfigError: The URL is none, or has a user, a query or a fragment.
    """

    def __init__(
        self,
        url: str,
        *,
        early: bool = False,
        timeout_seconds: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base = _base(url)
        self._update = "early" if early else "standard"
        self._timeout_seconds = timeout_seconds
        self._transport = transport

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        kind = platform_of(quote)
        with ThreadPoolExecutor(max_workers=1) as thread:  # the caller may have an event loop
            fetched = thread.submit(asyncio.run, self._fetch(kind)).result()
        try:
            facts = read_facts(fetched)
        except EncodingError as error:
            raise CollateralUnavailableError(f"{self._base}: {error}") from error
        return serve(fetched, facts, kind, now=now, where=self._base)

    def close(self) -> None:
        """Nothing stays open."""

    async def _fetch(self, kind: PlatformKind) -> Collateral:
        try:
            async with asyncio.timeout(self._timeout_seconds), self._client() as client:
                return await self._ask_all(client, kind)
        except TimeoutError as error:
            late = f"{self._base}: not within {self._timeout_seconds:g} s"
            raise CollateralUnavailableError(late) from error
        except (
            _SilentError,
            EncodingError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ) as error:
            words = str(error) or type(error).__name__
            raise CollateralUnavailableError(f"{self._base}: {words}") from error

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers={"accept-encoding": "identity", "user-agent": "phala-jobs"},
            timeout=httpx.Timeout(
                min(_SILENCE_SECONDS, self._timeout_seconds), connect=_CONNECT_SECONDS
            ),
            follow_redirects=False,
            trust_env=False,
            transport=self._transport,
        )

    async def _ask_all(self, client: httpx.AsyncClient, kind: PlatformKind) -> Collateral:
        sgx = f"{self._base}/sgx/certification/v4"
        own = f"{self._base}/{kind.tee}/certification/v4"
        revoked = await self._ask(client, f"{sgx}/pckcrl?ca={kind.ca}&encoding=der")
        tcb = await self._ask(client, f"{own}/tcb?fmspc={kind.fmspc}&update={self._update}")
        identity = await self._ask(client, f"{own}/qe/identity?update={self._update}")
        is_intel = self._base == _INTEL
        root = await self._ask(client, _INTEL_ROOT_CRL if is_intel else f"{sgx}/rootcacrl")
        tcb_info, tcb_info_signature = tcb.signed("tcbInfo")
        qe_identity, qe_identity_signature = identity.signed("enclaveIdentity")
        return Collateral(
            pck_crl_issuer_chain=revoked.chain("sgx-pck-crl-issuer-chain"),
            root_ca_crl=_list(root.body),
            pck_crl=_list(revoked.body),
            tcb_info_issuer_chain=tcb.chain("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"),
            tcb_info=tcb_info,
            tcb_info_signature=tcb_info_signature,
            qe_identity_issuer_chain=identity.chain("sgx-enclave-identity-issuer-chain"),
            qe_identity=qe_identity,
            qe_identity_signature=qe_identity_signature,
        )

    async def _ask(self, client: httpx.AsyncClient, url: str) -> _Answer:
        async for attempt in stamina.retry_context(
            on=_SilentError, attempts=3, wait_initial=0.2, wait_max=2.0, timeout=None
        ):
            with attempt:
                return await _ask_once(client, url)
        raise AssertionError  # pragma: no cover - the last attempt returns or raises


async def _ask_once(client: httpx.AsyncClient, url: str) -> _Answer:
    what = url.rpartition("/")[2].partition("?")[0]
    try:
        async with client.stream("GET", url) as answer:
            status = answer.status_code
            if status in (408, 429) or status >= 500:
                raise _SilentError(f"answered {status} to {what}")
            if status != 200:
                raise EncodingError(f"answered {status} to {what}")
            body = b""
            async for part in answer.aiter_raw():
                body += part
                if len(body) > MAX_COLLATERAL_BYTES:
                    raise EncodingError(f"more than {MAX_COLLATERAL_BYTES} bytes for {what}")
            return _Answer(body=body, headers=answer.headers)
    except _NO_ANSWER as error:
        raise _SilentError(f"no answer to {what}: {type(error).__name__}") from error


def _list(body: bytes) -> bytes:
    """A revocation list: DER, or its hex, which a PCCS answers for the root's."""
    return body if body.startswith(b"\x30") else bytes.fromhex(body.decode())


def _base(url: str) -> str:
    """The URL without what the interface itself adds; messages name it, so it holds no secret."""
    try:
        parsed = httpx.URL(url)
        parsed.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ConfigError("collateral: not the URL of a PCCS") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError("collateral: a PCCS has an http:// or https:// URL with a host")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError("collateral: the URL of a PCCS has no user, query or fragment")
    base = str(parsed).rstrip("/")
    for tee in ("sgx", "tdx"):
        base = base.removesuffix(f"/{tee}/certification/v4")
    return base
