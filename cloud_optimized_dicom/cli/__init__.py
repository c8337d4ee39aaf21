"""The `cod` command.  Importing this package imports neither typer nor rich: they are in the extra ``cli``."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import MissingDependencyError

if TYPE_CHECKING:
    from types import FrameType


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run() -> None:
    """Run the command line and exit with its code; without the extra, say which one to install and exit with 2."""
    if find_spec("typer") is None or find_spec("rich") is None:
        sys.stderr.write(f"{MissingDependencyError('the cod command', 'cli')}\n")
        raise SystemExit(2)
    from cloud_optimized_dicom.cli.main import main  # noqa: PLC0415 - needs the extra

    # To be stopped by a service manager is like Ctrl-C: what is staged is dropped, locks are released.
    signal.signal(signal.SIGTERM, _stop)
    raise SystemExit(main())
