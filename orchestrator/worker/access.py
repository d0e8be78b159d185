"""Who may ask a worker for what: tokens, and over which connections they count."""

import ipaddress

from starlette.requests import Request
from starlette.types import Scope

from orchestrator.errors import ConfigError
from orchestrator.worker.refusal import RefusalError
from orchestrator.worker.tokens import TokenList, TokenScope

__all__ = ["Access"]

_PREFIX = b"bearer "


class Access:
    """Looks for a token in a request's headers."""

    def __init__(self, tokens: TokenList) -> None:
        self._tokens = tokens

    def require(self, request: Request, *scopes: TokenScope) -> TokenScope:
        """
        Return the scope of the request's token, if it is one of *scopes*.

        1. It came over https, or from this machine.
        2. It carries a token of the list.
        3. The token is for this.

        Raises:
            RefusalError: 403 for 1. and 3., 401 for 2.
        """
        if not _is_private(request.scope):  # 1.
            raise RefusalError(403, "a token is accepted over https alone")
        found = self._scope_of(request.scope)
        if found is None:  # 2.
            raise RefusalError(401, "a token of this worker is needed")
        if found not in scopes:  # 3.
            words = " or ".join(scope.value for scope in scopes)
            raise RefusalError(403, f"the token is not for {words}")
        return found

    def is_known(self, scope: Scope) -> bool:
        """Whether the request carries a token that counts, whatever for."""
        return _is_private(scope) and self._scope_of(scope) is not None

    def _scope_of(self, scope: Scope) -> TokenScope | None:
        for name, value in scope["headers"]:
            if name == b"authorization" and value[: len(_PREFIX)].lower() == _PREFIX:
                token = value[len(_PREFIX) :].strip().decode("latin-1")
                try:
                    return self._tokens.scope_of(token)
                except ConfigError:
                    # A list that can't be read has no tokens.
                    return None
        return None


def _is_private(scope: Scope) -> bool:
    if scope["scheme"] == "https":
        return True
    host, _ = scope.get("client") or ("", 0)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
