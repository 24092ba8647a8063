"""`oho-bench watch` serves a page that shows a results folder while it is being filled, to this machine alone."""

from __future__ import annotations

import errno
import os
import socketserver
import threading
import webbrowser
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from bench.experiment.yaml_file import ConfigError
from bench.process.signals import tell
from bench.process.standard_streams import say
from bench.records.files import reason
from bench.records.plans import check_results_folder

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
"""Names under which a browser may ask: a site elsewhere whose name leads here, by DNS rebinding, has another."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
LONGEST_WAIT_SECONDS = 10


class Content(Protocol):
    """What is served; both may be called from several threads."""

    def page(self) -> bytes:
        """Returns the page as HTML."""

    def data(self, seen: str = "") -> bytes | None:
        """Returns the data as JSON; None if they are still those of the version that was `seen`."""


class Server(ThreadingHTTPServer):
    """A server of two paths, the page and its data."""

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__((ADDRESS, port), _Handler)
        self.content: Content | None = None

    def server_bind(self) -> None:
        """Binds the socket, without the library's question to the network for the machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has gone; other errors are ours and are shown."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET alone; other methods are refused by the library."""

    server: Server
    server_version, sys_version = "oho-bench", ""
    timeout = LONGEST_WAIT_SECONDS

    def do_GET(self) -> None:
        """Answers with the page or its data."""
        content, asked = self.server.content, urlsplit(self.path)
        if not _is_ours(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, "this page is served to its own machine alone")
        elif content is None:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
        elif asked.path == "/":
            self._answer(content.page(), "text/html; charset=utf-8")
        elif asked.path == "/data.json":
            self._answer(content.data(parse_qs(asked.query).get("seen", [""])[0]), "application/json")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, body: bytes | None, kind: str) -> None:
        self.send_response(HTTPStatus.NO_CONTENT if body is None else HTTPStatus.OK)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs nothing."""


def _is_ours(host: str) -> bool:
    """Returns whether a request's `Host` is this machine; the port may be that of a tunnel."""
    try:
        return urlsplit(f"//{host}").hostname in NAMES
    except ValueError:
        return False


def watch(root: Path, content_of: Callable[[Path], Content], *, port: int = 0, opens: bool = False) -> None:
    """Serves until a signal ends it.

    Raises:
        RecordError: if what was named cannot be a results folder.
        ConfigError: if the port cannot be had.
    """
    check_results_folder(root)
    with _server(port) as server:
        os.nice(19)  # runs that are timed beside it come first
        server.content = content_of(root)
        say(f"{server.url} shows {root}; Ctrl-C ends it")
        if not any((root / "experiments").glob("*.json")):
            say(f"{root}: no experiment has been run into this folder yet; waiting for one")
        if opens:
            threading.Thread(target=_open, args=(server.url,), daemon=True).start()
        server.serve_forever(poll_interval=1)


def _server(port: int) -> Server:
    try:
        return Server(port)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({reason(error)})"
        raise ConfigError(f"--port {port}: {why}; choose another one, or 0 for any that is free") from None


def _open(url: str) -> None:
    if not webbrowser.open(url):
        tell(f"oho-bench: no browser was found; open {url} yourself")
