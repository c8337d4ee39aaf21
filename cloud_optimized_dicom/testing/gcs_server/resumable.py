"""Resumable uploads: sessions that gather bytes over several requests and become an object in the last one.

The conditions belong to the session.  They are checked when it starts and again when it ends.
"""

from __future__ import annotations

import re
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from cloud_optimized_dicom.testing.gcs_server.call import Response
from cloud_optimized_dicom.testing.gcs_server.checks import claimed_checksums, require_checksums
from cloud_optimized_dicom.testing.gcs_server.content import Content, Digest
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.model import Draft, Locator
from cloud_optimized_dicom.testing.gcs_server.preconditions import parse_integer
from cloud_optimized_dicom.testing.gcs_server.resource import object_document, object_properties
from cloud_optimized_dicom.testing.gcs_server.uploads import upload_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.testing.gcs_server.call import Call
    from cloud_optimized_dicom.testing.gcs_server.model import ObjectVersion
    from cloud_optimized_dicom.testing.gcs_server.preconditions import Preconditions

GRANULE_BYTES = 256 << 10
"""Every chunk but the last is a multiple of this."""

_RESUME_INCOMPLETE = 308
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(?:(\d+)|\*)")


class ChunkRange(NamedTuple):
    """Where a request's body belongs; `total` is None while the client does not know."""

    start: int
    stop: int
    total: int | None


@dataclass
class Session:
    """An upload that goes on; guarded by its lock."""

    locator: Locator
    metadata: dict[str, Any]
    conditions: Preconditions
    total: int | None
    parts: list[Content] = field(default_factory=list)
    digest: Digest = field(default_factory=Digest)
    received: int = 0
    result: ObjectVersion | None = None
    refusal: ServiceError | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """The sessions, by upload id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> str:
        """Keep a session and return its new id."""
        upload_id = uuid.uuid4().hex
        self._sessions[upload_id] = session
        return upload_id

    def get(self, upload_id: str) -> Session:
        """Return a session, or refuse with 404."""
        session = self._sessions.get(upload_id)
        if session is None:
            raise ServiceError(404, "No such upload session.")
        return session

    def remove(self, upload_id: str) -> None:
        """Forget a session."""
        self._sessions.pop(upload_id, None)


def chunk_range(headers: Mapping[str, str], size: int) -> ChunkRange:
    """Return what the Content-Range of a PUT with `size` bytes says; without one it is the whole object.

    Raises
    ------
    ServiceError
        400, if it is malformed or does not fit the body.
    """
    text = headers.get("content-range")
    if text is None:
        return ChunkRange(0, size, size)
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise ServiceError(400, "Failed to parse Content-Range header.")
    total = int(match[3]) if match[3] else None
    if match[1] is None:
        return ChunkRange(0, 0, total)  # a question
    span = ChunkRange(int(match[1]), int(match[2]) + 1, total)
    if span.stop - span.start != size or (total is not None and span.stop > total):
        raise ServiceError(400, "Content-Range does not fit the request body.")
    return span


def start(call: Call) -> Response:
    """Begin a session."""
    metadata = call.json()
    locator = Locator(call.bucket, upload_name(call, metadata))
    object_properties(metadata)
    conditions = call.conditions()
    call.service.state.check_insert(locator, conditions)
    headers = call.request.headers
    metadata.setdefault("contentType", headers.get("x-upload-content-type", "application/octet-stream"))
    length = headers.get("x-upload-content-length")
    total = parse_integer(length, "X-Upload-Content-Length") if length else None
    upload_id = call.service.sessions.add(Session(locator, metadata, conditions, total))
    url = (
        f"{call.request.base_url}/upload/storage/v1/b/{quote(locator.bucket)}/o?uploadType=resumable"
        f"&name={quote(locator.name, safe='')}&upload_id={upload_id}"
    )
    return Response(200, (("Location", url), ("X-GUploader-UploadID", upload_id)))


def put(call: Call) -> Response:
    """Take a chunk, or say how far the session is."""
    request = call.request
    session = call.service.sessions.get(request.query["upload_id"])
    with session.lock:
        if session.refusal is not None:
            raise session.refusal
        if session.result is None:
            span = chunk_range(request.headers, request.body.size)
            _require_fit(session, span)
            _append(session, span, request.body)
            if session.total is None or session.received < session.total:
                return _incomplete(session)
            _finalize(call, session)
        if session.result is None:
            raise ServiceError(500, "The session has no result.")
        return call.respond(object_document(session.result, request.base_url))


def cancel(call: Call) -> Response:
    """Give up a session; 499 is the service's way to say yes."""
    upload_id = call.request.query["upload_id"]
    call.service.sessions.get(upload_id)
    call.service.sessions.remove(upload_id)
    raise ServiceError(499, "The upload session was cancelled.")


def is_final(headers: Mapping[str, str]) -> bool:
    """Return whether a PUT claims to bring the last byte, judged by its Content-Range alone."""
    match = _RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        return "content-range" not in headers
    return match[2] is not None and match[3] is not None and int(match[2]) + 1 == int(match[3])


def is_query(headers: Mapping[str, str]) -> bool:
    """Return whether a PUT asks how far the session is."""
    return headers.get("content-range", "").startswith("bytes */")


def _require_fit(session: Session, span: ChunkRange) -> None:
    """Refuse with 400, and leave the session as it was, what does not go with what it has."""
    total = session.total if span.total is None else span.total
    if total is not None and (session.total not in {None, total} or total < max(session.received, span.stop)):
        raise ServiceError(400, "The total size does not fit what the session knows.")
    if span.start > session.received:
        raise ServiceError(400, f"The session has {session.received} bytes; the chunk starts at {span.start}.")
    if span.stop % GRANULE_BYTES and span.stop != total:
        raise ServiceError(400, "A chunk that is not the last must end at a multiple of 256 KiB.")


def _append(session: Session, span: ChunkRange, body: Content) -> None:
    if span.total is not None:
        session.total = span.total
    fresh = body.slice(max(0, session.received - span.start), body.size)  # bytes sent again are ignored
    if fresh.size:
        session.parts.append(fresh)
        session.digest.update(fresh)
        session.received += fresh.size


def _incomplete(session: Session) -> Response:
    headers = (("Range", f"bytes=0-{session.received - 1}"),) if session.received else ()
    return Response(_RESUME_INCOMPLETE, headers)


def _finalize(call: Call, session: Session) -> None:
    digest = session.digest
    try:
        require_checksums(claimed_checksums(call.request.headers, session.metadata), digest)
        draft = Draft(
            call.service.spool.joined(session.parts),
            digest.crc32c,
            digest.md5,
            object_properties(session.metadata),
        )
        session.result = call.service.state.insert(session.locator, draft, session.conditions)
    except ServiceError as refusal:
        session.refusal = refusal
        raise
    finally:
        session.parts.clear()
