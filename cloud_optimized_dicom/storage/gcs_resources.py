"""What Google Cloud Storage says of an object, in a JSON resource or in a download's headers, as an `ObjectInfo`."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.checksum import decode
from cloud_optimized_dicom.storage.base import Attributes, ObjectInfo
from cloud_optimized_dicom.storage.clock import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

WRITE_ID = "cod-write-id"
"""Key of the custom metadata that carries the write id."""

LISTED_FIELDS = (
    "items(name,size,generation,crc32c,updated,metadata,contentEncoding,storageClass),prefixes,nextPageToken"
)


def info_of_resource(name: str, resource: Mapping[str, Any]) -> ObjectInfo:
    """Return the state that an object resource describes; `name` is the object's name in its store."""
    crc = resource.get("crc32c")
    updated = resource.get("updated")
    return ObjectInfo(
        name=name,
        size=int(resource.get("size", 0)),
        version=str(resource["generation"]),
        crc32c=decode(crc) if crc else None,
        updated=datetime.fromisoformat(updated) if updated else utc_now(),
        write_id=(resource.get("metadata") or {}).get(WRITE_ID),
        content_encoding=resource.get("contentEncoding") or None,
        storage_class=resource.get("storageClass"),
    )


def resource_of(write_id: str, attributes: Attributes) -> dict[str, Any]:
    """Return what an object resource says of an object that is to be written."""
    labels = {
        "contentType": attributes.content_type or "application/octet-stream",
        "contentEncoding": attributes.content_encoding,
        "storageClass": attributes.storage_class,
        "metadata": {WRITE_ID: write_id},
    }
    return {name: value for name, value in labels.items() if value is not None}


def info_of_download(name: str, response: requests.Response) -> ObjectInfo | None:
    """Return the state that a whole download's headers describe, or None where the server leaves out too much."""
    headers = response.headers
    generation = headers.get("x-goog-generation")
    updated = headers.get("Last-Modified")
    size = stored_size(response)
    if generation is None or updated is None or size is None:
        return None
    encoding = headers.get("x-goog-stored-content-encoding", headers.get("Content-Encoding"))
    return ObjectInfo(
        name=name,
        size=size,
        version=generation,
        crc32c=_crc32c(headers.get("x-goog-hash", "")),
        updated=parsedate_to_datetime(updated),
        write_id=headers.get(f"x-goog-meta-{WRITE_ID}"),
        content_encoding=None if encoding in {None, "", "identity"} else encoding,
        storage_class=headers.get("x-goog-storage-class"),
    )


def served_at(response: requests.Response) -> datetime:
    """Return the server's clock at the moment of an answer; ours where the server does not tell."""
    date = response.headers.get("Date")
    return parsedate_to_datetime(date) if date else utc_now()


def stored_size(response: requests.Response) -> int | None:
    """Return the size of the whole object that a download is of, or None where the server does not tell."""
    headers = response.headers
    _, slash, total = headers.get("Content-Range", "").partition("/")
    if slash:
        return int(total) if total.isdigit() else None
    size = headers.get("x-goog-stored-content-length", headers.get("Content-Length"))
    return int(size) if size is not None else None


def _crc32c(hashes: str) -> int | None:
    """Return the CRC32C of an ``x-goog-hash`` header (``crc32c=...,md5=...``)."""
    for item in hashes.split(","):
        kind, _, value = item.strip().partition("=")
        if kind == "crc32c":
            return decode(value)
    return None
