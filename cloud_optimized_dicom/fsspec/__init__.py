"""Datastores as a read-only filesystem, ``cod://``, for every tool that opens files through fsspec."""

from __future__ import annotations

from importlib.util import find_spec

from cloud_optimized_dicom.errors import MissingDependencyError

if find_spec("fsspec") is None:
    raise MissingDependencyError("the cod:// filesystem", "fsspec")

from cloud_optimized_dicom.fsspec.filesystem import CodFileSystem

__all__ = ["CodFileSystem"]
