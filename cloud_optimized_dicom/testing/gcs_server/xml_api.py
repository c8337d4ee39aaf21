"""The part of the XML API that public URLs and the transfer manager use: objects, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.testing.gcs_server import multipart
from cloud_optimized_dicom.testing.gcs_server.call import Response
from cloud_optimized_dicom.testing.gcs_server.checks import claimed_checksums, require_checksums
from cloud_optimized_dicom.testing.gcs_server.content import Digest
from cloud_optimized_dicom.testing.gcs_server.downloads import media_headers, media_response
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.model import Draft
from cloud_optimized_dicom.testing.gcs_server.preconditions import Preconditions
from cloud_optimized_dicom.testing.gcs_server.resource import object_properties

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server.call import Call
    from cloud_optimized_dicom.testing.gcs_server.model import ObjectVersion

_META = "x-goog-meta-"
_HEADERS = (
    ("cache-control", "cacheControl"),
    ("content-disposition", "contentDisposition"),
    ("content-encoding", "contentEncoding"),
    ("content-language", "contentLanguage"),
    ("content-type", "contentType"),
    ("x-goog-storage-class", "storageClass"),
)


def get(call: Call) -> Response:
    """Send an object's data, with the custom metadata as headers."""
    version = _version(call)
    response = media_response(version, call.request.headers, call.service.spool)
    headers = (*response.headers, *_custom_headers(version))
    return Response(response.status, headers, response.body, response.chunked)


def head(call: Call) -> Response:
    """Send the headers of a GET."""
    version = _version(call)
    length = ("Content-Length", str(version.draft.content.size))
    return Response(200, (*media_headers(version), *_custom_headers(version), length))


def put(call: Call) -> Response:
    """Write an object."""
    if "x-goog-copy-source" in call.request.headers:
        raise ServiceError(501, "This server does not copy by XML.")
    body = call.request.body
    digest = Digest.of(body)
    require_checksums(claimed_checksums(call.request.headers), digest)
    draft = Draft(body, digest.crc32c, digest.md5, _properties(call))
    version = call.service.state.insert(call.locator(), draft, Preconditions.parse_xml(call.request.headers))
    described = tuple(pair for pair in media_headers(version) if pair[0] == "ETag" or pair[0].startswith("x-"))
    return Response(200, described)


def delete(call: Call) -> Response:
    """Delete an object."""
    call.service.state.delete(call.locator(), Preconditions.parse_xml(call.request.headers))
    return Response(204)


def initiate_multipart(call: Call) -> Response:
    """Begin a multipart upload.

    Notes
    -----
    The service knows no condition here.  Ignoring one in silence would make a fenced write look fenced, so this server
    refuses it.
    """
    if Preconditions.parse_xml(call.request.headers) != Preconditions():
        raise ServiceError(400, "XML multipart uploads take no preconditions.")
    return multipart.initiate(call, _properties(call))


def _version(call: Call) -> ObjectVersion:
    return call.service.state.get(call.locator(), Preconditions.parse_xml(call.request.headers))


def _properties(call: Call) -> dict[str, Any]:
    headers = call.request.headers
    body: dict[str, Any] = {name: headers[header] for header, name in _HEADERS if header in headers}
    body["metadata"] = {key.removeprefix(_META): value for key, value in headers.items() if key.startswith(_META)}
    if not body["metadata"]:
        del body["metadata"]
    return {"contentType": "application/octet-stream"} | object_properties(body)


def _custom_headers(version: ObjectVersion) -> tuple[tuple[str, str], ...]:
    return tuple((_META + key, value) for key, value in (version.draft.properties.get("metadata") or {}).items())
