"""`cod://` for universal_pathlib, which wsidicom and others open their files by."""

from __future__ import annotations

from fsspec import get_filesystem_class
from upath import UPath

# universal_pathlib warns of every filesystem class that fsspec knows by its entry point only, and has not loaded yet.
get_filesystem_class("cod")


class CodUPath(UPath):
    """A path of the `cod://` filesystem; registered, so that ``UPath("cod://...")`` is one, without a warning."""
