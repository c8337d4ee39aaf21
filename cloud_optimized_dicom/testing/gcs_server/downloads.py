"""Reading the bytes of an object: ranges, headers and decompressive transcoding."""

from __future__ import annotations

import base64
import re
import zlib
from email.utils import format_datetime
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.testing.gcs_server.call import Response
from cloud_optimized_dicom.testing.gcs_server.content import CHUNK_BYTES
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloud_optimized_dicom.testing.gcs_server.content import Content, Spool
    from cloud_optimized_dicom.testing.gcs_server.model import ObjectVersion

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_HTTP_HEADERS = (
    ("cacheControl", "Cache-Control"),
    ("contentDisposition", "Content-Disposition"),
    ("contentLanguage", "Content-Language"),
    ("contentEncoding", "Content-Encoding"),
)


def media_response(version: ObjectVersion, headers: Mapping[str, str], spool: Spool) -> Response:
    """Return the answer to a GET of an object's data.

    Notes
    -----
    An object with content encoding gzip is sent as stored to a client that accepts gzip (or where the object says
    ``no-transform``); otherwise decompressed, whole and without a Content-Length: a Range is ignored then.

    Raises
    ------
    ServiceError
        416, for a range that starts past the end; 503, for an object that claims gzip and is not.
    """
    content = version.draft.content
    if _transcodes(version, headers):
        out = tuple(pair for pair in media_headers(version) if pair[0] != "Content-Encoding")
        warning = ("Warning", "214 UploadServer gunzipped")
        return Response(200, (*out, warning), gunzipped(content, spool), chunked=True)
    span = byte_range(headers.get("range"), content.size)
    common = (*media_headers(version), ("Accept-Ranges", "bytes"))
    if span is None:
        return Response(200, common, content)
    start, stop = span
    where = ("Content-Range", f"bytes {start}-{stop - 1}/{content.size}")
    return Response(206, (*common, where), content.slice(start, stop))


def media_headers(version: ObjectVersion) -> tuple[tuple[str, str], ...]:
    """Return the headers that describe an object beside its data; the hashes are those of the whole stored object."""
    properties = version.draft.properties
    standard = tuple((header, str(properties[key])) for key, header in _HTTP_HEADERS if properties.get(key))
    hashes = f"crc32c={encode(version.draft.crc32c)}"
    if version.draft.md5 is not None:
        hashes += f",md5={base64.b64encode(version.draft.md5).decode()}"
    composed = version.draft.component_count
    return (
        ("Content-Type", str(properties.get("contentType", "application/octet-stream"))),
        *standard,
        ("ETag", version.etag),
        ("Last-Modified", format_datetime(version.updated, usegmt=True)),
        ("x-goog-generation", str(version.generation)),
        ("x-goog-metageneration", str(version.metageneration)),
        ("x-goog-hash", hashes),
        ("x-goog-storage-class", version.storage_class),
        ("x-goog-stored-content-encoding", version.content_encoding or "identity"),
        ("x-goog-stored-content-length", str(version.draft.content.size)),
        *((("x-goog-component-count", str(composed)),) if composed is not None else ()),
    )


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the half-open range that a Range header asks for, or None for everything.

    Notes
    -----
    Several ranges in one header are not served as such: the whole object is sent, as RFC 9110 (14.2) allows.

    Raises
    ------
    ServiceError
        416, for a range that holds no byte.
    """
    match = _RANGE.fullmatch((header or "").replace(" ", ""))
    if match is None or match[1] == match[2] == "":
        return None
    if match[1]:
        start = int(match[1])
        stop = min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None  # an invalid range is ignored (RFC 9110, 14.1.1)
    else:
        start, stop = max(0, size - int(match[2])), size
    if start >= stop:
        raise ServiceError(416, "The requested range cannot be satisfied.")
    return start, stop


def _transcodes(version: ObjectVersion, headers: Mapping[str, str]) -> bool:
    if version.content_encoding != "gzip" or "gzip" in headers.get("accept-encoding", ""):
        return False
    return "no-transform" not in version.draft.properties.get("cacheControl", "")


def gunzipped(content: Content, spool: Spool) -> Content:
    """Return the decompressed content.

    Raises
    ------
    ServiceError
        503, if it is not gzip.
    """
    try:
        return spool.store(_inflated(content))
    except zlib.error:
        raise ServiceError(503, "The object's content encoding is gzip, but its data are not.") from None


def _inflated(content: Content) -> Iterator[bytes]:
    machine = zlib.decompressobj(wbits=31)
    for chunk in content.iter_chunks():
        data = chunk
        while data:
            if machine.eof:  # the next member of the file
                machine = zlib.decompressobj(wbits=31)
            yield machine.decompress(data, CHUNK_BYTES)
            data = machine.unconsumed_tail or machine.unused_data
