"""A web server for sources: honest about ranges, versions and lengths, or, by the first part of a path, less so."""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Web:
    """What the server holds, and what it was asked."""

    def __init__(self, url: str, files: dict[str, bytes]) -> None:
        self.url = url
        self.files = files
        self.asked: list[tuple[str, str | None]] = []
        self.sent_bytes = 0


class Handler(BaseHTTPRequestHandler):
    """``/plain/NAME`` has ranges and ETags; the other first parts say what is wrong with them."""

    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        path = self.path if self.path.rpartition("/")[2] in self.web.files else self.path.partition("?")[0]
        kind, _, name = path.removeprefix("/").partition("/")
        self.web.asked.append((self.path, self.headers.get("Range")))
        if kind == "moved":
            self.answer(302, b"", Location=f"/plain/{name}")
        elif kind == "loop":
            self.answer(302, b"", Location=self.path)
        elif kind.isdecimal():
            self.answer(int(kind), b"no")
        elif name not in self.web.files:
            self.answer(404, b"no such file")
        else:
            self.serve(kind, self.web.files[name])

    def serve(self, kind: str, data: bytes) -> None:
        """Send a file as `kind` says."""
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", self.headers.get("Range", ""))
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if kind == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(data), 1000):
                piece = data[start : start + 1000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif kind == "packed":
            self.answer(200, gzip.compress(data), **{"Content-Encoding": "gzip"})
        elif asked is None or kind == "noranges":
            self.answer(200, data, ETag=tag)
        elif int(asked[1]) >= len(data):
            self.answer(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
        else:
            part = data[int(asked[1]) : int(asked[2]) + 1]
            span = f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}"
            self.answer(206, part, ETag=tag, **{"Content-Range": span})

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.web.sent_bytes += len(body)
        self.wfile.write(body)


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Web]:
    """Serve files on a port of this machine."""
    handler = type("_Handler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    handler.web = Web(f"http://127.0.0.1:{server.server_address[1]}", files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield handler.web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
