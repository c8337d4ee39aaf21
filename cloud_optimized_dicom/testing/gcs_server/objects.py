"""Operations of the JSON API on objects that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.testing.gcs_server.call import Response
from cloud_optimized_dicom.testing.gcs_server.downloads import media_response
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.listing import ListQuery, list_page
from cloud_optimized_dicom.testing.gcs_server.model import Locator, Source
from cloud_optimized_dicom.testing.gcs_server.preconditions import Preconditions, parse_integer
from cloud_optimized_dicom.testing.gcs_server.resource import (
    object_document,
    object_properties,
    patched_object,
    replaced_object,
)

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server.call import Call
    from cloud_optimized_dicom.testing.gcs_server.model import ObjectVersion
    from cloud_optimized_dicom.testing.gcs_server.state import Change


def get(call: Call) -> Response:
    """Carry out ``objects.get`` of the metadata."""
    version = call.service.state.get(call.locator(), call.conditions())
    return call.respond(object_document(version, call.request.base_url), ("ETag", version.etag))


def download(call: Call) -> Response:
    """Carry out ``objects.get`` of the data."""
    version = call.service.state.get(call.locator(), call.conditions())
    response = media_response(version, call.request.headers, call.service.spool)
    if version.draft.properties.get("contentDisposition"):
        return response
    headers = (*response.headers, ("Content-Disposition", "attachment"))
    return Response(response.status, headers, response.body, response.chunked)


def patch(call: Call) -> Response:
    """Carry out ``objects.patch``."""
    body = call.json()
    return _changed(call, lambda properties: patched_object(properties, body))


def update(call: Call) -> Response:
    """Carry out ``objects.update``."""
    body = call.json()
    return _changed(call, lambda properties: replaced_object(properties, body))


def _changed(call: Call, change: Change) -> Response:
    version = call.service.state.patch(call.locator(), call.conditions(), change)
    return call.respond(object_document(version, call.request.base_url))


def delete(call: Call) -> Response:
    """Carry out ``objects.delete``."""
    call.service.state.delete(call.locator(), call.conditions())
    return Response(204)


def list_objects(call: Call) -> Response:
    """Carry out ``objects.list``."""
    query = ListQuery.parse(call.request.query)
    with call.service.state.bucket(call.bucket) as bucket:
        page = list_page(bucket, query)
    document: dict[str, Any] = {"kind": "storage#objects"}
    if page.next_token:
        document["nextPageToken"] = page.next_token
    if page.prefixes:
        document["prefixes"] = list(page.prefixes)
    if page.items:
        document["items"] = [object_document(item, call.request.base_url) for item in page.items]
    return call.respond(document)


def compose(call: Call) -> Response:
    """Carry out ``objects.compose``."""
    body = call.json()
    version = call.service.state.compose(
        Locator(call.bucket, call.name),
        [_component(call.bucket, item) for item in body.get("sourceObjects") or []],
        call.conditions(),
        object_properties(body.get("destination") or {}),
        delete_sources=body.get("deleteSourceObjects") is True,
    )
    return call.respond(object_document(version, call.request.base_url))


def _component(bucket: str, item: dict[str, Any]) -> Source:
    if not item.get("name"):
        raise ServiceError(400, "Required", location_type="parameter", location="sourceObjects.name")
    generation = item.get("generation")
    locator = Locator(
        bucket, item["name"], None if generation is None else parse_integer(str(generation), "generation")
    )
    wanted = item.get("objectPreconditions") or {}
    return Source(locator, Preconditions.parse({key: str(value) for key, value in wanted.items()}))


def rewrite(call: Call) -> Response:
    """Carry out ``objects.rewrite``; always in one call."""
    version = _copied(call, object_properties(call.json()))
    size = str(version.draft.content.size)
    document = {
        "kind": "storage#rewriteResponse",
        "totalBytesRewritten": size,
        "objectSize": size,
        "done": True,
        "resource": object_document(version, call.request.base_url),
    }
    return call.respond(document)


def copy(call: Call) -> Response:
    """Carry out ``objects.copy``."""
    version = _copied(call, object_properties(call.json()))
    return call.respond(object_document(version, call.request.base_url))


def move(call: Call) -> Response:
    """Carry out ``objects.move``: a rename within a bucket, in one step."""
    version = _copied(call, {}, move=True)
    return call.respond(object_document(version, call.request.base_url))


def _copied(call: Call, properties: dict[str, Any], *, move: bool = False) -> ObjectVersion:
    query = call.request.query
    text = query.get("sourceGeneration")
    source = Locator(call.bucket, call.name, parse_integer(text, "sourceGeneration") if text else None)
    return call.service.state.copy(
        Source(source, Preconditions.parse(query, prefix="ifSource")),
        Locator(call.target_bucket or call.bucket, call.target_name),
        call.conditions(),
        properties,
        move=move,
    )
