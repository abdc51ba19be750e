"""Who may see the live page: this machine, or whoever has the token."""

import hmac
import ipaddress
from dataclasses import dataclass
from email.message import Message
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from runtime.errors import UserError

COOKIE = "npu-run-token"
SHORTEST = 16
"""Characters of a token, at least."""


@dataclass(frozen=True)
class Access:
    """Where the page is served, and the token that requests must carry; ``None``: none is needed."""

    host: str
    port: int
    token: str | None

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return _loopback(self.host)

    def admits(self, headers: Message, query: str) -> bool:
        """Whether a request may be answered.

        With a token it must come along: as ``Authorization: Bearer``, as a cookie, or as ``?token=``. Without one, the
        request must name this machine as its host, so that no web page elsewhere reads it through a name of its own
        that leads here.
        """
        if self.token is None:
            return _loopback(_host(headers.get("Host", "")))
        if self.admits_change(headers):
            return True
        offered = [token_in(query)]
        try:
            cookie = SimpleCookie(headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        offered.append("" if cookie is None else cookie.value)
        return any(hmac.compare_digest(text.encode(), self.token.encode()) for text in offered)

    def admits_change(self, headers: Message) -> bool:
        """Whether a request may change something: only with the token as ``Authorization: Bearer``."""
        offered = headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return self.token is not None and hmac.compare_digest(offered.encode(), self.token.encode())


def parse_access(text: str, token: str | None) -> Access:
    """``HOST:PORT`` or ``PORT`` (of 127.0.0.1) as ``--serve`` has it; port 0 is any that is free.

    Raises:
        UserError: it is no address, or others than this machine can reach it and there is no token.
    """
    host, _, port = f"127.0.0.1:{text}".rpartition(":") if text.isdigit() else text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UserError("is no address to serve at", where=text, fix="give HOST:PORT, as 127.0.0.1:8080")
    if token is not None and (len(token) < SHORTEST or not token.isascii() or not token.isprintable()):
        raise UserError(f"a token has at least {SHORTEST} plain characters", fix="as from: openssl rand -hex 16")
    access = Access(host, int(port), token)
    if token is None and not access.local:
        fix = "set NPU_RUN_TOKEN, or serve at 127.0.0.1"
        raise UserError("others can reach this address, so it needs a token", where=text, fix=fix)
    return access


def token_in(query: str) -> str:
    """The token of an address's query, empty when there is none."""
    return parse_qs(query).get("token", [""])[0]


def _host(header: str) -> str:
    return urlsplit(f"//{header}").hostname or ""


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
