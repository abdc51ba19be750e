"""The HTTP server.

=======================  =========================================================================================
``/``                    the live page
``/video/N``             annotated frames of source N as MJPEG (``multipart/x-mixed-replace``)
``/frame/N``             the newest annotated frame of source N as JPEG
``/api/status``          everything, see ``runtime.serve.facts``
``/api/counts``          sums by source, name and minute; ``?minutes=60&step=1``
``/metrics``             Prometheus text
``POST /bundle``         a new bundle as the body: 202, then it is tested and takes over; needs a token as ``Bearer``
``/healthz``             200 with ``ok`` or ``degraded``, 503 with ``failing``
=======================  =========================================================================================

Requests need a token when the server can be reached from elsewhere (``runtime.serve.access``).
"""

import importlib.resources
import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from runtime.errors import UserError
from runtime.limits import LIMITS
from runtime.serve.access import COOKIE, Access, token_in
from runtime.serve.facts import Facts
from runtime.serve.metrics import CONTENT_TYPE, render
from runtime.serve.pictures import Pictures

Offer = Callable[[bytes], None]

VIEWERS = 16
"""Videos that are watched at a time; the next one is told to try later."""

IDLE_S = 5.0
"""A video without a new frame for so long repeats the newest, so that a viewer that went away is noticed."""

TIMEOUT_S = 20.0
"""A client that neither sends nor takes anything for so long is left."""

BOUNDARY = "frame"
POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class Server:
    """Serves until it is left; each request in a thread of its own."""

    def __init__(
        self, access: Access, facts: Callable[[], Facts], pictures: Pictures, offer: Offer | None = None
    ) -> None:
        """Bind to the address.

        Args:
            access: where, and for whom.
            facts: asked at every request, since a bundle may be changed.
            pictures: of the sources.
            offer: takes a bundle that came with ``POST /bundle``, and refuses it with a ``UserError``.

        Raises:
            UserError: the address cannot be used.
        """
        self.access, self.facts, self.pictures, self.offer = access, facts, pictures, offer
        self.page = importlib.resources.files("runtime.serve").joinpath("page.html").read_bytes()
        self.viewers = threading.BoundedSemaphore(VIEWERS)
        try:
            self._http = _Http((access.host, access.port), self)
        except OSError as error:
            where = f"{access.host}:{access.port}"
            raise UserError(f"cannot be served at: {error.strerror}", where=where, fix="give another port") from error
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="http", daemon=True)

    @property
    def url(self) -> str:
        """The page's address."""
        host = f"[{self.access.host}]" if ":" in self.access.host else self.access.host
        return f"http://{host}:{self._http.server_port}/"

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop serving; open videos end."""
        self.pictures.close()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], server: Server) -> None:
        self.npu_run = server
        if ":" in address[0]:
            import socket  # noqa: PLC0415

            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = TIMEOUT_S
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "npu-run", ""

    def do_GET(self) -> None:
        """Answer."""
        served, parts = self.server.npu_run, urlsplit(self.path)
        if not served.access.admits(self.headers, parts.query):
            self._send(HTTPStatus.FORBIDDEN if served.access.token is None else HTTPStatus.UNAUTHORIZED, b"no\n")
            return
        if parts.path == "/" and token_in(parts.query):
            self._admit(served.access)
            return
        kind, _, number = parts.path.removeprefix("/").partition("/")
        if kind in ("video", "frame") and number.isdigit() and int(number) < len(served.pictures.names):
            self._picture(served.pictures.names[int(number)], once=kind == "frame")
            return
        page = _PAGES.get(parts.path)
        if page is None:
            self._send(HTTPStatus.NOT_FOUND, b"there is no such page\n")
            return
        status, content, body = page(served, parse_qs(parts.query))
        self._send(status, body, content)

    def do_POST(self) -> None:
        """Take a bundle; a cookie is not enough, since another site's page could send it along."""
        served, length = self.server.npu_run, self.headers.get("Content-Length", "")
        self.close_connection = True
        if urlsplit(self.path).path != "/bundle" or served.offer is None:
            self._send(HTTPStatus.NOT_FOUND, b"there is no such page\n")
        elif not served.access.admits_change(self.headers):
            self._send(HTTPStatus.UNAUTHORIZED, b"a change needs a token, as Authorization: Bearer\n")
        elif not length.isdigit() or not 0 < int(length) <= LIMITS.bundle_bytes:
            self._send(HTTPStatus.LENGTH_REQUIRED, b"the bundle's length is needed\n")
        else:
            data = self.rfile.read(int(length))
            try:
                served.offer(data)
            except UserError as error:
                self._send(HTTPStatus.CONFLICT, f"{error}\n".encode())
                return
            self._send(HTTPStatus.ACCEPTED, b"it is tested, and takes over when it passes\n")

    def _admit(self, access: Access) -> None:
        """Keep the token as a cookie, so that it leaves the address bar."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{COOKIE}={access.token}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _picture(self, source: str, *, once: bool) -> None:
        served = self.server.npu_run
        if once:
            newest = served.pictures.newest(source, -1, 0)
            if newest is None:
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"there is no frame yet\n")
            else:
                self._send(HTTPStatus.OK, newest[1], "image/jpeg")
            return
        if not served.viewers.acquire(blocking=False):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"too many watch\n")
            return
        try:
            self._video(source)
        except OSError:
            self.close_connection = True  # who watched went away
        finally:
            served.viewers.release()

    def _video(self, source: str) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        pictures, index = self.server.npu_run.pictures, -1
        while True:
            newest = pictures.newest(source, index, IDLE_S) or pictures.newest(source, -1, 0)
            if newest is None:
                return
            index, jpeg = newest
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _send(self, status: int, body: bytes, content: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", content),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is logged per request."""


Answer = tuple[int, str, bytes]
JSON = "application/json"


def _page(server: Server, query: dict[str, list[str]]) -> Answer:
    return HTTPStatus.OK, "text/html; charset=utf-8", server.page


def _status(server: Server, query: dict[str, list[str]]) -> Answer:
    return HTTPStatus.OK, JSON, json.dumps({**server.facts().everything(), "pictures": server.pictures.names}).encode()


def _counts(server: Server, query: dict[str, list[str]]) -> Answer:
    minutes, step = (query.get(name, [default])[0] for name, default in (("minutes", "60"), ("step", "1")))
    if not (minutes.isdigit() and step.isdigit() and 1 <= int(step) <= int(minutes) <= 60 * 24 * 400):
        return HTTPStatus.BAD_REQUEST, "text/plain", b"minutes and step are whole numbers, 1 <= step <= minutes\n"
    return HTTPStatus.OK, JSON, json.dumps(server.facts().counts(int(minutes), int(step))).encode()


def _metrics(server: Server, query: dict[str, list[str]]) -> Answer:
    return HTTPStatus.OK, CONTENT_TYPE, render(server.facts()).encode()


def _health(server: Server, query: dict[str, list[str]]) -> Answer:
    health = server.facts().health()
    failing = health["status"] == "failing"
    return HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK, JSON, json.dumps(health).encode()


_PAGES: dict[str, Callable[[Server, dict[str, list[str]]], Answer]] = {
    "/": _page,
    "/api/status": _status,
    "/api/counts": _counts,
    "/metrics": _metrics,
    "/healthz": _health,
}
