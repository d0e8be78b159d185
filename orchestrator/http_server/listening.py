"""Where a server listens."""

import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError, InputError

__all__ = ["Listen", "bind", "load_certificate", "parse_listen", "require_usable"]

BACKLOG = 512


@dataclass(frozen=True, kw_only=True)
class Listen:
    """
    Where to listen; port 0 takes a free one.

    With a certificate and its key it speaks https. *trusted_proxies* are addresses or networks
    whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    private_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: {self.port}, must be 0 to 65535")
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("certificate and its key: one needs the other")
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ConfigError(f"trusted_proxies: {error}") from error


def parse_listen(
    text: str,
    *,
    certificate: Path | None = None,
    private_key: Path | None = None,
    trusted_proxies: tuple[str, ...] = (),
) -> Listen:
    """
    Return the place that `HOST:PORT` or `[IPv6]:PORT` names.

    Raises:
        ConfigError: It is neither, or the rest does not fit together, see `Listen`.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not (port.isascii() and port.isdigit()) or len(port) > 5:
        raise ConfigError(f"listen: {text!r}, must be HOST:PORT")
    return Listen(
        host=bare,
        port=int(port),
        certificate=certificate,
        private_key=private_key,
        trusted_proxies=trusted_proxies,
    )


def require_usable(listen: Listen) -> None:
    """
    Refuse a place that can't be served, before anything else is begun.

    Raises:
        InputError: The port is in use, or the address is not one of this machine.
        ConfigError: The certificate or its key can't be used.
    """
    load_certificate(listen)
    bind(listen).close()


def load_certificate(listen: Listen) -> ssl.SSLContext | None:
    """
    Return what https needs, `None` where there is no certificate.

    Raises:
        ConfigError: The certificate or its key can't be used.
    """
    if listen.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An empty password: without one OpenSSL would ask for it on the terminal.
        context.load_cert_chain(listen.certificate, listen.private_key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(f"certificate {listen.certificate}: {error}") from error
    return context


def bind(listen: Listen) -> socket.socket:
    """
    Return a socket that listens.

    Raises:
        InputError: The port is in use, or the address is not one of this machine.
    """
    where = f"{listen.host}:{listen.port}"
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"listen: {where}: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
        bound.settimeout(0)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"listen: port {listen.port} of {listen.host} is in use") from error
        raise InputError(f"listen: {where}: {error.strerror or error}") from error
    return bound
