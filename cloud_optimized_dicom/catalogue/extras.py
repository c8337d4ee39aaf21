"""pyarrow and DuckDB, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from cloud_optimized_dicom.errors import MissingDependencyError


def load(name: str, extra: str, feature: str) -> Any:
    """Return a module of an extra.

    Raises
    ------
    MissingDependencyError
        If the extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(feature, extra) from error


def pyarrow(part: str = "") -> Any:
    """Return pyarrow, or a part of it such as ``"parquet"``."""
    return load(f"pyarrow.{part}" if part else "pyarrow", "export", "a catalogue")


def duckdb() -> Any:
    """Return DuckDB, with what it needs to give times that have a zone."""
    load("pytz", "query", "asking a catalogue")
    return load("duckdb", "query", "asking a catalogue")
