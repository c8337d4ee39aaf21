"""What the published library does, on ours: the series of the core tests, in every kind of store."""

from __future__ import annotations

from tests.core.conftest import files, open_cod, stored

__all__ = ["files", "open_cod", "stored"]
