"""Functions that programs of this format's first library import from here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.checksum import crc32c_of_stream, encode
from cloud_optimized_dicom.storage.urls import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable

_REMOTE = re.compile(
    r"(?!file:)[a-z][a-z0-9+-]*://", re.IGNORECASE
)  # a scheme with a dot in it is an archive: a.tar://


def is_remote(uri: str) -> bool:
    """Return whether a URI names something that is no file of this machine; members are where their archive is."""
    return _REMOTE.match(uri) is not None


def generate_ptr_crc32c(ptr: BinaryIO, blocksize: int = 1 << 20) -> str:  # noqa: ARG001 - reads what suits the checksum
    """Return the CRC32C of what is left of an open file, as Google Cloud Storage prints it: ``"4jvPnQ=="``."""
    return encode(crc32c_of_stream(ptr)[0])


def delete_uploaded_blobs(client: Any, uris_to_delete: Iterable[str]) -> None:
    """Delete every object below folders, for tests that tidy up after themselves.

    Parameters
    ----------
    client
        A ``google.cloud.storage.Client``.
    uris_to_delete
        ``gs://bucket/folder``: what is in the folder goes; ``gs://bucket/folder2`` stays.
    """
    for uri in uris_to_delete:
        store = open_store(uri, client)
        store.delete_all([(info.name, info.version) for info in store.list()])
