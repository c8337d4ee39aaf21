"""Handles on a running server, for tests."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import cloud_optimized_dicom
from cloud_optimized_dicom.testing.gcs_server.control_api import PREFIX
from cloud_optimized_dicom.testing.gcs_server.records import RequestRecord

if TYPE_CHECKING:
    from types import TracebackType

    from cloud_optimized_dicom.testing.gcs_server.faults import Fault

_MODULE = "cloud_optimized_dicom.testing.gcs_server"
_STOP_SECONDS = 10
_CONTROL_TIMEOUT_SECONDS = 60


class GcsControl:
    """A handle on a server that somebody runs; it pickles, so that other processes may control the same server.

    Parameters
    ----------
    url
        Such as ``http://127.0.0.1:4443``; what ``STORAGE_EMULATOR_HOST`` takes.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, project: str = "test-project") -> Any:
        """Return a new ``google.cloud.storage.Client`` of the server, without credentials; close it after use.

        Notes
        -----
        The SDK's look-up of bucket metadata for traces is switched off in this process: it sends one more request, from
        a thread of its own, at a moment that no test can foresee.
        """
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        storage = importlib.import_module("google.cloud.storage")
        credentials = importlib.import_module("google.auth.credentials")
        return storage.Client(
            project=project,
            credentials=credentials.AnonymousCredentials(),
            client_options={"api_endpoint": self.url},
        )

    def create_bucket(self, name: str, **properties: Any) -> None:
        """Make a bucket; it is recorded like any other request.

        Parameters
        ----------
        properties
            Of the bucket resource, e.g. ``versioning={"enabled": True}``.
        """
        self._request("POST", "/storage/v1/b?project=test-project", {"name": name} | properties)

    def inject(self, *faults: Fault) -> None:
        """Arm faults; where several are due, the one injected first happens."""
        self._request("POST", PREFIX + "faults", [fault.as_json() for fault in faults])

    def clear_faults(self) -> None:
        """Disarm all faults; what is late stays late."""
        self._request("DELETE", PREFIX + "faults")

    def release_late(self) -> tuple[int, ...]:
        """Let every late operation happen now, and return the statuses that they came to."""
        return tuple(self._request("POST", PREFIX + "late"))

    def discard_late(self) -> int:
        """Drop every late operation and return how many there were."""
        return int(self._request("DELETE", PREFIX + "late"))

    def counters(self) -> tuple[RequestRecord, ...]:
        """Return one record per request since the last reset, in order of arrival; control requests are not counted."""
        return tuple(RequestRecord(**record) for record in self._request("GET", PREFIX + "counters"))

    def reset_counters(self) -> None:
        """Forget all records."""
        self._request("DELETE", PREFIX + "counters")

    def _request(self, method: str, target: str, document: Any = None) -> Any:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_CONTROL_TIMEOUT_SECONDS)
        try:
            connection.request(method, target, body=json.dumps(document) if document is not None else None)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise ValueError(f"{method} {target}: {response.status} {body.decode(errors='replace')}")
        return json.loads(body)


class GcsServer(GcsControl):
    """A server in a process of its own; a context manager.

    Parameters
    ----------
    latency_seconds
        Added to every request.
    port
        0 takes a free one.

    Notes
    -----
    The process ends with the block, or with this process.  Clients got from :meth:`client` are closed with the block.
    """

    def __init__(self, *, latency_seconds: float = 0.0, port: int = 0) -> None:
        super().__init__("")
        self._arguments = ["--port", str(port), "--latency", str(latency_seconds), "--parent", str(os.getpid())]
        self._process: subprocess.Popen[str] | None = None
        self._clients: list[Any] = []

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._process is None:
            raise ValueError("the server is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start the process and wait until it listens.

        Raises
        ------
        RuntimeError
            If it does not start.
        """
        root = str(Path(cloud_optimized_dicom.__file__).parents[1])
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        process = self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", _MODULE, *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": search},
        )
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("http://"):
            self.stop()
            raise RuntimeError("the storage server did not start; its standard error says why")
        self.url = line.strip()
        return self

    def stop(self) -> None:
        """Close the clients and end the process."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

    def client(self, project: str = "test-project") -> Any:
        """Return a new client that is closed with the server."""
        client = super().client(project)
        self._clients.append(client)
        return client

    def control(self) -> GcsControl:
        """Return a handle that pickles."""
        return GcsControl(self.url)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
