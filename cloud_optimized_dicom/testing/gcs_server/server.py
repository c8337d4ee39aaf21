"""The HTTP server: a thread per connection, connections kept alive."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING

from cloud_optimized_dicom.testing.gcs_server import control_api, transport
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.faults import Fault, FaultBook, FaultKind
from cloud_optimized_dicom.testing.gcs_server.late import LateOperations
from cloud_optimized_dicom.testing.gcs_server.records import Entry, Recorder
from cloud_optimized_dicom.testing.gcs_server.routing import resolve, touched_name
from cloud_optimized_dicom.testing.gcs_server.service import new_request, new_service, refusal, run

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.testing.gcs_server.call import Request, Response
    from cloud_optimized_dicom.testing.gcs_server.routing import Route


class Server(ThreadingTCPServer):
    """A listening server on the loopback interface.

    Parameters
    ----------
    port
        0 takes a free one.
    directory
        Where large objects are kept.
    latency_seconds
        Added to every request.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, port: int, directory: Path, latency_seconds: float = 0.0) -> None:
        self.service = new_service(directory)
        self.faults = FaultBook()
        self.recorder = Recorder()
        self.late = LateOperations()
        self.latency_seconds = latency_seconds
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """What clients take as their endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Report errors of our own; a client that goes away is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 64 << 10
    server: Server

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path.startswith(control_api.PREFIX):
            self._control()
            return
        entry = self.server.recorder.begin(self.command)
        try:
            request = self._receive()
        except ConnectionError:
            self._drop()
            return
        route = resolve(request)
        entry.operation = route.operation
        entry.bucket = route.target_bucket or route.bucket
        entry.object_name = touched_name(route, request)
        entry.bytes_in = request.body.size
        fault = self.server.faults.take(route.operation, entry.object_name)
        if self.server.latency_seconds:
            time.sleep(self.server.latency_seconds)
        Exchange(self, route, request, entry).carry_out(fault)

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        """Write nothing: the records say what happened."""

    def _receive(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        spool = self.server.service.spool
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = spool.store(transport.iter_chunked(self.rfile))
        else:
            body = spool.receive(self.rfile, int(headers.get("content-length", 0)))
        host = headers.get("host") or self.server.url.removeprefix("http://")
        return new_request(self.command, self.path, headers, f"http://{host}", body)

    def _control(self) -> None:
        response = control_api.answer(self.server, self.command, self.path, self._receive().body.read())
        transport.send(self.connection, response, Entry(self.command))

    def _drop(self) -> None:
        """End the connection without a word."""
        self.close_connection = True


class Exchange:
    """One request and what becomes of it."""

    def __init__(self, handler: Handler, route: Route, request: Request, entry: Entry) -> None:
        self._handler = handler
        self._server = handler.server
        self._route = route
        self._request = request
        self._entry = entry

    def carry_out(self, fault: Fault | None) -> None:
        """Answer as usual, or let the fault happen."""
        if fault is None:
            self._answer(self._effect())
            return
        self._entry.fault = fault.kind.value
        acts = {
            FaultKind.STATUS: self._status,
            FaultKind.RESET: self._reset,
            FaultKind.LOST_RESPONSE: self._lose,
            FaultKind.TRUNCATED_BODY: self._truncate,
            FaultKind.STALL_BEFORE: self._stall_before,
            FaultKind.LATENCY: self._stall_before,
            FaultKind.STALL_AFTER: self._stall_after,
            FaultKind.LATE: self._postpone,
            FaultKind.KILL_BEFORE: self._kill_before,
            FaultKind.KILL_AFTER: self._kill_after,
        }
        acts[fault.kind](fault)

    def _effect(self) -> Response:
        response = run(self._server.service, self._route, self._request)
        self._entry.outcome = response.status
        return response

    def _answer(self, response: Response, keep_bytes: int | None = None) -> None:
        self._entry.status = response.status
        connection = self._handler.connection
        keep = 0 if self._request.method == "HEAD" else keep_bytes
        try:
            transport.send(connection, response, self._entry, keep)
        except OSError:
            self._close()  # the client has gone

    def _close(self) -> None:
        self._handler.close_connection = True

    def _status(self, fault: Fault) -> None:
        error = ServiceError(fault.status, "An injected fault.")
        self._answer(refusal(error, self._route.operation))

    def _reset(self, _fault: Fault) -> None:
        self._close()
        transport.reset(self._handler.connection)

    def _lose(self, _fault: Fault) -> None:
        self._effect()
        self._close()

    def _truncate(self, fault: Fault) -> None:
        response = self._effect()
        self._close()
        if response.body.size:
            keep = response.body.size // 2 if fault.keep_bytes is None else fault.keep_bytes
            self._answer(response, min(keep, response.body.size - 1))

    def _stall_before(self, fault: Fault) -> None:
        time.sleep(fault.seconds or 0)
        self._answer(self._effect())

    def _stall_after(self, fault: Fault) -> None:
        response = self._effect()
        time.sleep(fault.seconds or 0)
        self._answer(response)

    def _postpone(self, fault: Fault) -> None:
        operation = partial(_status_of, self._server, self._route, self._request)
        self._server.late.add(operation, self._entry, fault.seconds)
        self._close()

    def _kill_before(self, fault: Fault) -> None:
        _kill(fault)
        self._close()

    def _kill_after(self, fault: Fault) -> None:
        self._effect()
        _kill(fault)
        self._close()


def _status_of(server: Server, route: Route, request: Request) -> int:
    return run(server.service, route, request).status


def _kill(fault: Fault) -> None:
    if fault.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(fault.pid, signal.SIGKILL)
