"""Operations of the JSON API on buckets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloud_optimized_dicom.testing.gcs_server.call import Response
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.resource import (
    bucket_document,
    bucket_properties,
    merge_patch,
)

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server.call import Call

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def insert(call: Call) -> Response:
    """Carry out ``buckets.insert``."""
    body = call.json()
    name = str(body.get("name", ""))
    if _NAME.fullmatch(name) is None:
        raise ServiceError(400, f"Invalid bucket name: '{name}'")
    bucket = call.service.state.create_bucket(name, bucket_properties(body))
    return call.respond(bucket_document(bucket, call.request.base_url))


def get(call: Call) -> Response:
    """Carry out ``buckets.get``."""
    with call.service.state.bucket(call.bucket, call.conditions()) as bucket:
        return call.respond(bucket_document(bucket, call.request.base_url))


def list_buckets(call: Call) -> Response:
    """Carry out ``buckets.list``, in one page."""
    prefix = call.request.query.get("prefix", "")
    found = [bucket for bucket in call.service.state.buckets() if bucket.name.startswith(prefix)]
    items = [bucket_document(bucket, call.request.base_url) for bucket in found]
    return call.respond({"kind": "storage#buckets"} | ({"items": items} if items else {}))


def patch(call: Call) -> Response:
    """Carry out ``buckets.patch``."""
    body = call.json()
    bucket = call.service.state.patch_bucket(
        call.bucket, call.conditions(), lambda properties: bucket_properties(merge_patch(properties, body))
    )
    return call.respond(bucket_document(bucket, call.request.base_url))


def update(call: Call) -> Response:
    """Carry out ``buckets.update``: what is not named is reset, the location stays."""
    body = call.json()
    bucket = call.service.state.patch_bucket(
        call.bucket,
        call.conditions(),
        lambda properties: bucket_properties(body | {"location": properties["location"]}),
    )
    return call.respond(bucket_document(bucket, call.request.base_url))


def delete(call: Call) -> Response:
    """Carry out ``buckets.delete``."""
    call.service.state.delete_bucket(call.bucket, call.conditions())
    return Response(204)
