"""JSON documents of buckets and objects, and how clients change them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloud_optimized_dicom.testing.gcs_server.model import Bucket, ObjectVersion

_OBJECT_PROPERTIES = frozenset({
    "cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType", "contexts", "customTime",
    "eventBasedHold", "metadata", "storageClass", "temporaryHold",
})  # fmt: skip
_BUCKET_SERVER_PROPERTIES = frozenset({
    "etag", "generation", "id", "kind", "metageneration", "name", "projectNumber", "selfLink", "timeCreated", "updated",
})  # fmt: skip
STORAGE_CLASSES = frozenset({
    "STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY",
})  # fmt: skip


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 with milliseconds, as the API prints it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def object_properties(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client may set of an object resource; the rest is the server's and ignored.

    Raises
    ------
    ServiceError
        400, for an unknown storage class or metadata that are no strings.
    """
    properties = {key: body[key] for key in _OBJECT_PROPERTIES & body.keys() if body[key] is not None}
    if properties.get("storageClass", "STANDARD") not in STORAGE_CLASSES:
        raise ServiceError(400, "Invalid storage class.")
    metadata = properties.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ServiceError(400, "Invalid metadata.")
    if "metadata" in properties:
        properties["metadata"] = {key: str(value) for key, value in metadata.items() if value is not None}
    return properties


def patched_object(properties: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return properties after a PATCH: null removes, ``metadata`` is merged key by key (RFC 7396)."""
    return merge_patch(properties, {key: patch[key] for key in _OBJECT_PROPERTIES & patch.keys()})


def replaced_object(properties: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return properties after an update (PUT): what is not named goes, except for the storage class."""
    return {"storageClass": properties["storageClass"]} | object_properties(body)


def merge_patch(target: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return `target` after a JSON merge patch (RFC 7396); neither argument is changed."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            old = merged.get(key)
            merged[key] = merge_patch(old if isinstance(old, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def bucket_properties(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client may set of a bucket resource, with the defaults of a new bucket.

    Raises
    ------
    ServiceError
        400, for an unknown storage class.
    """
    set_by_client = {
        key: value for key, value in body.items() if key not in _BUCKET_SERVER_PROPERTIES and value is not None
    }
    location = str(set_by_client.get("location", "US")).upper()
    kind = "multi-region" if location in {"US", "EU", "ASIA"} else "region"
    defaults = {"storageClass": "STANDARD", "locationType": kind}
    properties = defaults | set_by_client | {"location": location}
    if properties["storageClass"] not in STORAGE_CLASSES:
        raise ServiceError(400, "Invalid storage class.")
    return properties


def bucket_document(bucket: Bucket, base_url: str) -> dict[str, Any]:
    """Return a bucket resource."""
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{base_url}/storage/v1/b/{bucket.name}",
        "projectNumber": "0",
        "generation": str(bucket.generation),
        "metageneration": str(bucket.metageneration),
        "timeCreated": timestamp(bucket.created),
        "updated": timestamp(bucket.updated),
        "etag": bucket.etag,
        **bucket.properties,
    }


def object_document(version: ObjectVersion, base_url: str) -> dict[str, Any]:
    """Return an object resource."""
    draft = version.draft
    path = f"/storage/v1/b/{version.bucket}/o/{quote(version.name, safe='')}"
    created = timestamp(version.created)
    document = {
        "kind": "storage#object",
        "id": f"{version.bucket}/{version.name}/{version.generation}",
        "selfLink": base_url + path,
        "mediaLink": f"{base_url}/download{path}?generation={version.generation}&alt=media",
        "name": version.name,
        "bucket": version.bucket,
        "generation": str(version.generation),
        "metageneration": str(version.metageneration),
        "size": str(draft.content.size),
        "crc32c": encode(draft.crc32c),
        "etag": version.etag,
        "timeCreated": created,
        "timeStorageClassUpdated": created,
        "timeFinalized": created,
        "updated": timestamp(version.updated),
        **draft.properties,
    }
    if draft.md5 is not None:
        document["md5Hash"] = base64.b64encode(draft.md5).decode()
    if draft.component_count is not None:
        document["componentCount"] = draft.component_count
    if version.deleted is not None:
        document["timeDeleted"] = timestamp(version.deleted)
    return document
