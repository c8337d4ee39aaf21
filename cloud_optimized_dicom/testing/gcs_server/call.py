"""What a handler is given and what it gives back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.testing.gcs_server.content import Content
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.fields import project
from cloud_optimized_dicom.testing.gcs_server.model import Locator
from cloud_optimized_dicom.testing.gcs_server.preconditions import Preconditions, parse_integer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.testing.gcs_server.content import Spool
    from cloud_optimized_dicom.testing.gcs_server.multipart import MultipartUploads
    from cloud_optimized_dicom.testing.gcs_server.resumable import Sessions
    from cloud_optimized_dicom.testing.gcs_server.state import State


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request whose body was received.

    Parameters
    ----------
    path
        Still percent-encoded.
    query
        Decoded; the last one of repeated parameters.
    headers
        With names in lower case.
    base_url
        How the client addressed the server.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    base_url: str
    body: Content = field(default_factory=Content)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `chunked` sends no Content-Length."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: Content = field(default_factory=Content)
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that outlives a request."""

    spool: Spool
    state: State
    sessions: Sessions
    multipart: MultipartUploads


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way to a handler.

    Parameters
    ----------
    bucket, name
        Decoded; empty where the operation has none.
    target_bucket, target_name
        Of a copy.
    """

    service: Service
    request: Request
    bucket: str = ""
    name: str = ""
    target_bucket: str = ""
    target_name: str = ""

    def locator(self) -> Locator:
        """Return which object the request is about."""
        text = self.request.query.get("generation")
        return Locator(self.bucket, self.name, parse_integer(text, "generation") if text else None)

    def conditions(self) -> Preconditions:
        """Return the conditions on the object (the target, in a copy)."""
        return Preconditions.parse(self.request.query, self.request.headers)

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object, empty where there is none."""
        return parse_json(self.request.body)

    def respond(self, document: Mapping[str, Any], *headers: tuple[str, str]) -> Response:
        """Return the answer with a JSON document, of which ``fields=`` may want a part."""
        selected = project(document, self.request.query.get("fields"))
        body = Content.of(json.dumps(selected).encode())
        return Response(200, (("Content-Type", "application/json; charset=UTF-8"), *headers), body)


def parse_json(body: Content) -> dict[str, Any]:
    """Return a JSON object, empty where there are no bytes.

    Raises
    ------
    ServiceError
        400, if it is none.
    """
    if not body.size:
        return {}
    try:
        document = json.loads(body.read())
    except ValueError:
        raise ServiceError(400, "Parse Error") from None
    if not isinstance(document, dict):
        raise ServiceError(400, "Parse Error")
    return document
