"""A web server that sources are read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ingest.web import Web, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL, LARGE = bytes(range(256)) * 40, bytes(range(251)) * 30_000


@pytest.fixture
def web() -> Iterator[Web]:
    """Return a web server that holds a small file, a large one and an empty one."""
    with serving({"small.dcm": SMALL, "large.dcm": LARGE, "empty.dcm": b""}) as server:
        yield server
