"""What fake-gcs-server leaves out of its answers, put in by a proxy before it.

The service tells the storage class of every object that it sends.  The published library needs to hear it, and
otherwise pulls no tar.
"""

from __future__ import annotations

import http.client
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@contextmanager
def with_storage_class(url: str) -> Iterator[str]:
    """Run the proxy of a server; give its URL."""
    upstream = urlsplit(url).netloc

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            with closing(http.client.HTTPConnection(upstream, timeout=60)) as connection:
                connection.request(self.command, self.path, body, sent)
                answer = connection.getresponse()
                data = answer.read()
            self.send_response_only(answer.status)  # the other one adds a Date, and there is one
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("X-Goog-Storage-Class", "STANDARD")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
