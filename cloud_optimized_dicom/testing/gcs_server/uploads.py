"""Uploads in one request: ``uploadType=media`` and ``uploadType=multipart``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.testing.gcs_server.call import parse_json
from cloud_optimized_dicom.testing.gcs_server.checks import claimed_checksums, require_checksums
from cloud_optimized_dicom.testing.gcs_server.content import Digest
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.model import Draft, Locator
from cloud_optimized_dicom.testing.gcs_server.resource import object_document, object_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.testing.gcs_server.call import Call, Response
    from cloud_optimized_dicom.testing.gcs_server.content import Content

_HEAD_BYTES = 64 << 10  # of a multipart body: metadata are far smaller
_DEFAULT_TYPE = "application/octet-stream"


def insert(call: Call) -> Response:
    """Carry out ``objects.insert`` of a body that has everything."""
    if call.request.query.get("uploadType") == "multipart":
        return insert_multipart(call)
    properties = {"contentType": call.request.headers.get("content-type", _DEFAULT_TYPE)}
    if encoding := call.request.query.get("contentEncoding"):
        properties["contentEncoding"] = encoding
    return _store(call, {"name": call.name}, properties, call.request.body)


def insert_multipart(call: Call) -> Response:
    """Carry out an upload of metadata and data in one ``multipart/related`` body (RFC 2387)."""
    metadata, content_type, content = split_related(call.request.headers, call.request.body)
    properties = {"contentType": content_type or _DEFAULT_TYPE} | object_properties(metadata)
    return _store(call, metadata, properties, content)


def _store(call: Call, metadata: Mapping[str, Any], properties: dict[str, Any], content: Content) -> Response:
    name = upload_name(call, metadata)
    digest = Digest.of(content)
    require_checksums(claimed_checksums(call.request.headers, metadata), digest)
    draft = Draft(content, digest.crc32c, digest.md5, properties)
    version = call.service.state.insert(Locator(call.bucket, name), draft, call.conditions())
    return call.respond(object_document(version, call.request.base_url))


def upload_name(call: Call, metadata: Mapping[str, Any]) -> str:
    """Return the object's name, from the metadata or from ``name=``.

    Raises
    ------
    ServiceError
        400, where there is none.
    """
    name = str(metadata.get("name") or call.name)
    if not name:
        raise ServiceError(400, "Required", location_type="parameter", location="name")
    return name


def split_related(headers: Mapping[str, str], body: Content) -> tuple[dict[str, Any], str | None, Content]:
    """Return (metadata, media type of the data, data) of a ``multipart/related`` body; no data is copied.

    Raises
    ------
    ServiceError
        400, if it is malformed.
    """
    boundary = multipart_boundary(headers)
    head = body.slice(0, _HEAD_BYTES).read()
    delimiter = b"--" + boundary
    first = _end_of_headers(head, head.find(delimiter))
    second = head.find(b"\r\n" + delimiter, first)
    start = _end_of_headers(head, second)
    media = re.search(rb"(?i)^content-type:\s*(.+?)\r?$", head[second:start], re.MULTILINE)
    tail_start = max(start, body.size - len(delimiter) - 64)
    tail = body.slice(tail_start, body.size).read()
    end = tail.rfind(b"\r\n" + delimiter + b"--")
    if min(second, end) < 0:
        raise _malformed()
    metadata = parse_json(body.slice(first, second))
    return metadata, media and media[1].decode("latin-1"), body.slice(start, tail_start + end)


def multipart_boundary(headers: Mapping[str, str]) -> bytes:
    """Return the boundary that a Content-Type names.

    Raises
    ------
    ServiceError
        400, if it names none.
    """
    match = re.search(r'boundary="?([^";]+)"?', headers.get("content-type", ""))
    if match is None:
        raise _malformed()
    return match[1].encode("latin-1")


def _end_of_headers(head: bytes, start: int) -> int:
    end = head.find(b"\r\n\r\n", max(start, 0))
    if start < 0 or end < 0:
        raise _malformed()
    return end + 4


def _malformed() -> ServiceError:
    return ServiceError(400, "Malformed multipart body.")
