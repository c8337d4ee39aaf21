"""Which operation a request is, of which object.

The names of operations are those of the JSON API (``objects.compose``), with ``uploads.*`` for resumable uploads,
``xml.*`` for the XML API, ``batch``, and ``unknown``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from cloud_optimized_dicom.testing.gcs_server import buckets, multipart, objects, resumable, uploads, xml_api
from cloud_optimized_dicom.testing.gcs_server.call import parse_json
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloud_optimized_dicom.testing.gcs_server.call import Call, Request, Response

HANDLERS: dict[str, Callable[[Call], Response]] = {
    "buckets.list": buckets.list_buckets,
    "buckets.insert": buckets.insert,
    "buckets.get": buckets.get,
    "buckets.patch": buckets.patch,
    "buckets.update": buckets.update,
    "buckets.delete": buckets.delete,
    "objects.list": objects.list_objects,
    "objects.get": objects.get,
    "objects.download": objects.download,
    "objects.patch": objects.patch,
    "objects.update": objects.update,
    "objects.delete": objects.delete,
    "objects.compose": objects.compose,
    "objects.rewrite": objects.rewrite,
    "objects.copy": objects.copy,
    "objects.move": objects.move,
    "objects.insert": uploads.insert,
    "uploads.start": resumable.start,
    "uploads.chunk": resumable.put,
    "uploads.finalize": resumable.put,
    "uploads.query": resumable.put,
    "uploads.cancel": resumable.cancel,
    "xml.get": xml_api.get,
    "xml.head": xml_api.head,
    "xml.put": xml_api.put,
    "xml.delete": xml_api.delete,
    "xml.initiate_multipart": xml_api.initiate_multipart,
    "xml.upload_part": multipart.upload_part,
    "xml.complete_multipart": multipart.complete,
    "xml.abort_multipart": multipart.abort,
}

_BUCKET = "/b/(?P<bucket>[^/]+)"
_OBJECT = _BUCKET + "/o/(?P<name>[^/]+)"
_JSON_ROUTES = (
    ("", "/b", {"GET": "buckets.list", "POST": "buckets.insert"}),
    (
        "",
        _BUCKET,
        {"GET": "buckets.get", "PATCH": "buckets.patch", "PUT": "buckets.update", "DELETE": "buckets.delete"},
    ),
    ("", _BUCKET + "/o", {"GET": "objects.list"}),
    (
        "",
        _OBJECT,
        {"GET": "objects.get", "PATCH": "objects.patch", "PUT": "objects.update", "DELETE": "objects.delete"},
    ),
    ("", _OBJECT + "/compose", {"POST": "objects.compose"}),
    ("", _OBJECT + "/rewriteTo/b/(?P<bucket2>[^/]+)/o/(?P<name2>[^/]+)", {"POST": "objects.rewrite"}),
    ("", _OBJECT + "/copyTo/b/(?P<bucket2>[^/]+)/o/(?P<name2>[^/]+)", {"POST": "objects.copy"}),
    ("", _OBJECT + "/moveTo/o/(?P<name2>[^/]+)", {"POST": "objects.move"}),
    ("/download", _OBJECT, {"GET": "objects.download"}),
    ("(?:/resumable)?/upload", _BUCKET + "/o", {"POST": "upload", "PUT": "upload", "DELETE": "upload"}),
)
_COMPILED = tuple((re.compile(f"{head}/storage/v1{tail}"), verbs) for head, tail, verbs in _JSON_ROUTES)
_XML = re.compile(r"/(?P<bucket>[^/_][^/]*)/(?P<name>.+)")


class Route(NamedTuple):
    """Where a request goes; names are decoded, empty where the operation has none."""

    operation: str
    bucket: str = ""
    name: str = ""
    target_bucket: str = ""
    target_name: str = ""


def resolve(request: Request) -> Route:
    """Return the route of a request, from its head alone."""
    if request.path == "/batch/storage/v1" and request.method == "POST":
        return Route("batch")
    for pattern, verbs in _COMPILED:
        if (match := pattern.fullmatch(request.path)) is not None:
            names = {key: unquote(value) for key, value in match.groupdict().items()}
            name = names.get("name") or request.query.get("name", "")
            operation = _refined(verbs.get(request.method, "unknown"), request)
            return Route(operation, names.get("bucket", ""), name, names.get("bucket2", ""), names.get("name2", ""))
    match = _XML.fullmatch(request.path)
    if match is None or request.path.startswith(("/storage/", "/download/", "/upload/")):
        return Route("unknown")
    return Route(_xml_operation(request.method, request.query), unquote(match["bucket"]), unquote(match["name"]))


def touched_name(route: Route, request: Request) -> str:
    """Return which object a request writes or reads: the target of a copy; an upload may name it in its body only."""
    if route.target_name or route.name:
        return route.target_name or route.name
    try:
        if route.operation == "uploads.start":
            return str(parse_json(request.body).get("name", ""))
        if route.operation == "objects.insert":
            return str(uploads.split_related(request.headers, request.body)[0].get("name", ""))
    except ServiceError:
        pass  # the handler will say what is wrong
    return ""


def _refined(operation: str, request: Request) -> str:
    if operation == "objects.get" and request.query.get("alt") == "media":
        return "objects.download"
    if operation != "upload":
        return operation
    if "upload_id" not in request.query:
        start = request.query.get("uploadType") == "resumable"
        return ("uploads.start" if start else "objects.insert") if request.method == "POST" else "unknown"
    if request.method == "DELETE":
        return "uploads.cancel"
    if resumable.is_query(request.headers):
        return "uploads.query"
    return "uploads.finalize" if resumable.is_final(request.headers) else "uploads.chunk"


def _xml_operation(method: str, query: Mapping[str, str]) -> str:
    if "uploadId" in query:
        by_method = {"PUT": "upload_part", "POST": "complete_multipart", "DELETE": "abort_multipart"}
        operation = by_method.get(method)
        if operation == "upload_part" and "partNumber" not in query:
            operation = None
    elif "uploads" in query:
        operation = {"POST": "initiate_multipart"}.get(method)
    else:
        operation = {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "delete"}.get(method)
    return f"xml.{operation}" if operation else "unknown"
