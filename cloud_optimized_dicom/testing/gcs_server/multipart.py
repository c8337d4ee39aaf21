"""The XML API's multipart uploads: numbered parts, put together by the last request.  They take no conditions."""

from __future__ import annotations

import base64
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.testing.gcs_server.call import Response
from cloud_optimized_dicom.testing.gcs_server.checks import claimed_checksums, require_checksums
from cloud_optimized_dicom.testing.gcs_server.content import Content, Digest
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.model import Draft, Locator
from cloud_optimized_dicom.testing.gcs_server.preconditions import Preconditions, parse_integer

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server.call import Call

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_MAX_PARTS = 10_000
_MIN_PART_BYTES = 5 << 20
_XML = ("Content-Type", "application/xml; charset=UTF-8")


@dataclass(frozen=True, slots=True)
class Part:
    """One part; its `etag` is what the client must name at the end."""

    content: Content
    etag: str


@dataclass
class Upload:
    """An upload that goes on."""

    locator: Locator
    properties: dict[str, Any]
    parts: dict[int, Part] = field(default_factory=dict)


class MultipartUploads:
    """The uploads, by id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}

    def add(self, upload: Upload) -> str:
        """Keep an upload and return its new id."""
        upload_id = uuid.uuid4().hex
        with self._lock:
            self._uploads[upload_id] = upload
        return upload_id

    def get(self, upload_id: str) -> Upload:
        """Return an upload, or refuse with 404."""
        with self._lock:
            upload = self._uploads.get(upload_id)
        if upload is None:
            raise ServiceError(404, "The requested upload was not found.")
        return upload

    def remove(self, upload_id: str) -> Upload:
        """Forget an upload and return it, or refuse with 404."""
        with self._lock:
            upload = self._uploads.pop(upload_id, None)
        if upload is None:
            raise ServiceError(404, "The requested upload was not found.")
        return upload


def initiate(call: Call, properties: dict[str, Any]) -> Response:
    """Begin an upload."""
    locator = Locator(call.bucket, call.name)
    call.service.state.check_insert(locator, Preconditions())
    upload_id = call.service.multipart.add(Upload(locator, properties))
    return _xml("InitiateMultipartUploadResult", call, UploadId=upload_id)


def upload_part(call: Call) -> Response:
    """Take one part."""
    query = call.request.query
    number = parse_integer(query["partNumber"], "partNumber")
    if not 1 <= number <= _MAX_PARTS:
        raise ServiceError(400, "Part number must be 1 to 10000.")
    upload = call.service.multipart.get(query["uploadId"])
    digest = Digest.of(call.request.body)
    require_checksums(claimed_checksums(call.request.headers), digest)
    part = upload.parts[number] = Part(call.request.body, f'"{digest.md5.hex()}"')
    hashes = f"crc32c={encode(digest.crc32c)},md5={base64.b64encode(digest.md5).decode()}"
    return Response(200, (("ETag", part.etag), ("x-goog-hash", hashes)))


def complete(call: Call) -> Response:
    """Put the named parts together, in the order of their numbers."""
    upload_id = call.request.query["uploadId"]
    upload = call.service.multipart.get(upload_id)
    parts = _named_parts(call.request.body, upload)
    for part in parts[:-1]:
        if part.content.size < _MIN_PART_BYTES:
            raise ServiceError(400, "Every part but the last must have 5 MiB at least.")
    content = call.service.spool.joined(part.content for part in parts)
    draft = Draft(content, Digest.of(content).crc32c, None, upload.properties)
    version = call.service.state.insert(upload.locator, draft, Preconditions())
    call.service.multipart.remove(upload_id)
    return _xml("CompleteMultipartUploadResult", call, ETag=f'"{version.etag}"')


def abort(call: Call) -> Response:
    """Give up an upload."""
    call.service.multipart.remove(call.request.query["uploadId"])
    return Response(204)


def _named_parts(body: Content, upload: Upload) -> list[Part]:
    try:
        root = ET.fromstring(body.read())  # noqa: S314 - the clients are our own tests
    except ET.ParseError:
        raise ServiceError(400, "The XML you provided was not well-formed.") from None
    named = {}
    for node in root.iter():
        if node.tag.rpartition("}")[2] == "Part":
            texts = {child.tag.rpartition("}")[2]: child.text or "" for child in node}
            number = parse_integer(texts.get("PartNumber", ""), "PartNumber")
            part = upload.parts.get(number)
            if part is None or part.etag.strip('"') != texts.get("ETag", "").strip('"'):
                raise ServiceError(400, "One or more of the specified parts could not be found.")
            named[number] = part
    if not named:
        raise ServiceError(400, "An upload needs one part at least.")
    return [named[number] for number in sorted(named)]


def _xml(kind: str, call: Call, **values: str) -> Response:
    texts = {"Bucket": call.bucket, "Key": call.name} | values
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in texts.items())
    document = f"<?xml version='1.0' encoding='UTF-8'?><{kind} xmlns='{_NAMESPACE}'>{inner}</{kind}>"
    return Response(200, (_XML,), Content.of(document.encode()))
