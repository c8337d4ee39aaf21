"""Run the server: ``python -m cloud_optimized_dicom.testing.gcs_server --port 0``; it prints its URL."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from cloud_optimized_dicom.testing.gcs_server.server import Server

_WATCH_SECONDS = 0.5


def main() -> int:
    """Serve until SIGTERM, SIGINT, or the end of the parent process."""
    options = _parse()
    parent = os.getppid() if options.parent is None else options.parent
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(
            prefix="gcs-server-", dir=options.directory, ignore_cleanup_errors=True
        ) as directory,
        Server(options.port, Path(directory), options.latency) as server,
    ):
        if parent:
            threading.Thread(target=_watch, args=(parent, server), daemon=True).start()
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        try:
            server.serve_forever(_WATCH_SECONDS)
        except KeyboardInterrupt:
            return 130
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gcs_server", description="A strict Google Cloud Storage server for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="added to every request")
    parser.add_argument("--directory", help="where large objects are kept (default: the system's temporary directory)")
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="end with this process (default: the one that started us; 0: none)"
    )
    return parser.parse_args()


def _watch(parent: int, server: Server) -> None:
    """Shut the server down once its parent is gone: a crashed test run leaves nothing behind."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(_WATCH_SECONDS)
    server.shutdown()


if __name__ == "__main__":
    raise SystemExit(main())
