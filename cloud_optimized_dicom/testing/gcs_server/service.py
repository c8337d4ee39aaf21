"""From a received request to an answer, without any socket."""

from __future__ import annotations

import email
from email.message import Message
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from cloud_optimized_dicom.testing.gcs_server.call import Call, Request, Response, Service
from cloud_optimized_dicom.testing.gcs_server.content import Content, Spool
from cloud_optimized_dicom.testing.gcs_server.errors import NOT_MODIFIED, ServiceError
from cloud_optimized_dicom.testing.gcs_server.multipart import MultipartUploads
from cloud_optimized_dicom.testing.gcs_server.resumable import Sessions
from cloud_optimized_dicom.testing.gcs_server.routing import HANDLERS, Route, resolve
from cloud_optimized_dicom.testing.gcs_server.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_BATCH = 100
_BOUNDARY = "batch_answer_of_this_server"


def new_service(directory: Path) -> Service:
    """Return a service without buckets that keeps large bodies in `directory`."""
    spool = Spool(directory)
    return Service(spool, State(spool), Sessions(), MultipartUploads())


def new_request(method: str, target: str, headers: Mapping[str, str], base_url: str, body: Content) -> Request:
    """Return a request; `target` is the request target, absolute or not."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method, parts.path, query, headers, base_url, body)


def run(service: Service, route: Route, request: Request) -> Response:
    """Carry out a request; refusals are answers too."""
    call = Call(service, request, route.bucket, route.name, route.target_bucket, route.target_name)
    try:
        return _HANDLERS.get(route.operation, _unknown)(call)
    except ServiceError as error:
        return refusal(error, route.operation)


def refusal(error: ServiceError, operation: str) -> Response:
    """Return the answer that refuses an operation, in the shape that its clients expect."""
    if error.status == NOT_MODIFIED:
        return Response(NOT_MODIFIED)
    if operation.startswith("xml."):
        return Response(error.status, (("Content-Type", "application/xml; charset=UTF-8"),), Content.of(error.as_xml()))
    if operation == "objects.download":
        return Response(error.status, (("Content-Type", "text/html; charset=UTF-8"),), Content.of(error.as_text()))
    return Response(error.status, (("Content-Type", "application/json; charset=UTF-8"),), Content.of(error.as_json()))


def _unknown(_call: Call) -> Response:
    raise ServiceError(501, "This server does not know the operation.")


def _batch(call: Call) -> Response:
    """Carry out the requests of a ``multipart/mixed`` body one after the other."""
    head = f"Content-Type: {call.request.headers.get('content-type', '')}\r\n\r\n".encode()
    message = email.message_from_bytes(head + call.request.body.read())
    parts = message.get_payload()
    if not isinstance(parts, list) or not all(isinstance(part, Message) for part in parts):
        raise ServiceError(400, "Failed to parse batch request.")
    if len(parts) > _MAX_BATCH:
        raise ServiceError(400, f"The batch request has more than {_MAX_BATCH} calls.")
    answers = [_batch_part(call, part) for part in parts if isinstance(part, Message)]
    body = b"".join(answers) + f"--{_BOUNDARY}--\r\n".encode()
    return Response(200, (("Content-Type", f"multipart/mixed; boundary={_BOUNDARY}"),), Content.of(body))


def _batch_part(call: Call, part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    line, _, rest = raw.partition(b"\n")
    words = line.decode("latin-1").split()
    if len(words) < 2:
        raise ServiceError(400, "Failed to parse batch request.")
    inner = email.message_from_bytes(rest)
    headers = {key.lower(): value for key, value in inner.items()}
    text = str(inner.get_payload())
    request = new_request(
        words[0], words[1], headers, call.request.base_url, Content.of(text.strip().encode("utf-8", "surrogateescape"))
    )
    response = run(call.service, resolve(request), request)
    body = response.body.read()
    fields = "".join(f"{key}: {value}\r\n" for key, value in response.headers)
    identity = part.get("Content-ID", "").strip("<>")
    return (
        (
            f"--{_BOUNDARY}\r\nContent-Type: application/http\r\nContent-ID: <response-{identity}>\r\n\r\n"
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n{fields}"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        + b"\r\n"
    )


_HANDLERS = HANDLERS | {"batch": _batch}
