"""Object bytes to and from Google Cloud Storage over the client's own authorised HTTP session.

The client library's downloads hide ``Date`` and ``Last-Modified``, which a lock's age is judged by, copy in pieces of
8 KiB, and start over after a broken connection; its uploads in one request hold all bytes in memory, its resumable ones
need a request for every few MiB.  So the media requests are made here: one GET; one POST that streams resource and
payload; and, for what needs to be resumed, one PUT that streams the whole payload and goes on where it broke.
"""

from __future__ import annotations

import http.client
import json
import uuid
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from google.api_core import exceptions as api_exceptions

from cloud_optimized_dicom.errors import PreconditionFailedError, StorageError, TransientStorageError
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.storage._rules import CHUNK_BYTES, check_span
from cloud_optimized_dicom.storage.gcs_errors import nothing_was_done, sdk_errors
from cloud_optimized_dicom.storage.gcs_resources import stored_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from cloud_optimized_dicom.storage.gcs_uploads import Place
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.storage.retry import RetryBudget

_PIECE_BYTES = 256 << 10
_RESUME = 308
_SESSION_LOST = {http.client.NOT_FOUND, http.client.GONE}


class SessionLostError(TransientStorageError):
    """An upload session that the server has forgotten: begin a new one."""


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """Which bytes of which object to get.

    Parameters
    ----------
    bucket, name
        The whole name, prefix included.
    start, stop
        None for `stop`: to the end.
    generation
        None: the present one.
    """

    bucket: str
    name: str
    start: int = 0
    stop: int | None = None
    generation: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers that ask for these bytes as they are stored."""
        # Without "gzip" here, an object with that content encoding would be unzipped on its way.
        headers = {"Accept-Encoding": "gzip"}
        if self.stop is not None:
            headers["Range"] = f"bytes={self.start}-{self.stop - 1}"
        elif self.start:
            headers["Range"] = f"bytes={self.start}-"
        return headers


class Media:
    """The media requests of one client."""

    def __init__(self, client: Any, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    def _request(self, method: str, url: str, headers: dict[str, str], **arguments: Any) -> requests.Response:
        extra: dict[str, str] = getattr(self._client, "_extra_headers", None) or {}
        response: requests.Response = self._client._http.request(  # noqa: SLF001 - see the module's docstring
            method, url, headers=headers | extra, timeout=self._timeout_seconds, stream=True, **arguments
        )
        return response

    @contextmanager
    def get(self, request: MediaRequest) -> Iterator[requests.Response]:
        """Open the response to a download; its raw stream is the stored bytes.

        Raises
        ------
        GoogleAPICallError, RequestException
            For any status but 200 and 206.
        """
        base = self._client._connection.get_api_base_url_for_mtls()  # noqa: SLF001 - as above
        url = f"{base}/download/storage/v1/b/{quote(request.bucket, safe='')}/o/{quote(request.name, safe='')}"
        parameters = {"alt": "media"}
        if request.generation is not None:
            parameters["ifGenerationMatch"] = str(request.generation)
        with self._request("GET", url, request.headers, params=parameters) as response:
            if response.status_code not in {http.client.OK, http.client.PARTIAL_CONTENT}:
                raise api_exceptions.from_http_response(response)  # type: ignore[no-untyped-call]
            yield response

    def iter_bytes(self, url: str, request: MediaRequest, budget: RetryBudget) -> Iterator[bytes]:
        """Yield the bytes of a download in pieces; it is resumed, at the same generation, where it breaks."""
        while True:
            try:
                with sdk_errors(url), self.get(request) as response:
                    request = _settled(url, request, response)
                    for piece in response.raw.stream(CHUNK_BYTES, decode_content=False):
                        request = replace(request, start=request.start + len(piece))
                        budget.restart()
                        yield piece
                if request.stop is None or request.start >= request.stop:
                    return
                failure = TransientStorageError(url, "the download ended early")
            except TransientStorageError as error:
                failure = error
            if not budget.pause():
                raise failure

    def _upload_url(self, bucket: str) -> str:
        base = self._client._connection.get_api_base_url_for_mtls()  # noqa: SLF001 - as above
        return f"{base}/upload/storage/v1/b/{quote(bucket, safe='')}/o"

    def insert(self, url: str, place: Place, resource: dict[str, Any], payload: Payload) -> dict[str, Any]:
        """Send an object's resource and its bytes in one ``multipart/related`` request; return its new resource.

        Parameters
        ----------
        url
            The object's, for errors.

        Raises
        ------
        GoogleAPICallError, RequestException
            For any status but 200.
        StorageError, OSError
            If the payload cannot be read.
        """
        boundary = uuid.uuid4().hex
        head = (
            f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{json.dumps(resource)}\r\n"
            f"--{boundary}\r\ncontent-type: {resource['contentType']}\r\n\r\n"
        )
        body = _Body(url, payload, 0, head.encode("utf-8"), f"\r\n--{boundary}--".encode("ascii"))
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        parameters = {"uploadType": "multipart", "ifGenerationMatch": str(place.generation)}
        with body.failing_itself():
            response = self._request("POST", self._upload_url(place.bucket), headers, data=body, params=parameters)
        with response:
            if response.status_code != http.client.OK:
                raise api_exceptions.from_http_response(response)  # type: ignore[no-untyped-call]
            inserted: dict[str, Any] = response.json()
            return inserted

    def begin_session(self, place: Place, resource: dict[str, Any], size: int) -> str:
        """Return the URL of a new resumable session for `size` bytes.

        Raises
        ------
        GoogleAPICallError, RequestException
            For any status but 200.
        """
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": resource["contentType"],
            "X-Upload-Content-Length": str(size),
        }
        parameters = {"uploadType": "resumable", "ifGenerationMatch": str(place.generation)}
        data = json.dumps(resource).encode("utf-8")
        with self._request("POST", self._upload_url(place.bucket), headers, data=data, params=parameters) as response:
            if response.status_code not in {http.client.OK, http.client.CREATED}:
                raise api_exceptions.from_http_response(response)  # type: ignore[no-untyped-call]
            return str(response.headers["Location"])

    def upload(self, url: str, session_url: str, payload: Payload, budget: RetryBudget) -> dict[str, Any]:
        """Send a payload to a resumable session, and return the resource of the object that it became.

        Parameters
        ----------
        url
            The object's, for errors.
        budget
            What there is for retries; starts over whenever the server has more of the bytes than before.

        Raises
        ------
        SessionLostError, StorageError
            As the server says, after retries; once a response was lost only that, for it may have been the last.
        """
        offset: int | None = 0
        most = 0
        doubt: TransientStorageError | None = None
        while True:
            try:
                with sdk_errors(url):
                    done, offset = self._put(url, session_url, payload, offset)
                if done is not None:
                    return done
                failure = TransientStorageError(url, "the upload session takes no more bytes")
            except (SessionLostError, PreconditionFailedError):
                raise
            except TransientStorageError as error:
                offset, failure = None, error
                doubt = doubt if nothing_was_done(error) else error
            except StorageError as error:
                if doubt is None:
                    raise
                raise doubt from error
            if offset is not None and offset > most:
                most = offset
                budget.restart()
            elif not budget.pause():
                raise doubt or failure

    def _put(
        self, url: str, session_url: str, payload: Payload, offset: int | None
    ) -> tuple[dict[str, Any] | None, int]:
        """Send what follows `offset`, or only ask how far the server got (None).

        Returns
        -------
        resource
            Of the complete object, or None while there are bytes to send.
        int
            How many bytes the server has.
        """
        size = payload.size
        if offset is None:
            body: _Body | bytes = b""
            content_range = f"bytes */{size}"
        else:
            body = _Body(url, payload, offset)
            content_range = f"bytes {offset}-{size - 1}/{size}"
        headers = {"Content-Range": content_range}
        with body.failing_itself() if isinstance(body, _Body) else nullcontext():
            response = self._request("PUT", session_url, headers, data=body, allow_redirects=False)
        with response:
            if response.status_code in {http.client.OK, http.client.CREATED}:
                return response.json(), size
            if response.status_code == _RESUME:
                return None, _persisted(response)
            if response.status_code in _SESSION_LOST:
                raise SessionLostError(url, "the upload session is gone")
            raise api_exceptions.from_http_response(response)  # type: ignore[no-untyped-call]


def check_range(url: str, request: MediaRequest, response: requests.Response) -> int | None:
    """Refuse an answer that is not the range that was asked for; return the size of the whole object, where it is told.

    Raises
    ------
    StorageError
        If the object ends before the range does, or the server ignored the range.
    """
    size = stored_size(response)
    if "Range" in request.headers and response.status_code != http.client.PARTIAL_CONTENT:
        raise StorageError(url, "the server does not serve ranges of this object")
    if size is not None and request.stop is not None:
        check_span(url, ByteRange(request.start, request.stop), size)
    return size


def _settled(url: str, request: MediaRequest, response: requests.Response) -> MediaRequest:
    """Return the request with what its first answer tells: the generation being read, and where it ends."""
    size = check_range(url, request, response)
    generation = response.headers.get("x-goog-generation")
    return replace(
        request,
        stop=size if request.stop is None else request.stop,
        generation=int(generation) if request.generation is None and generation else request.generation,
    )


def _persisted(response: requests.Response) -> int:
    """Return how many bytes a session has, from ``Range: bytes=0-N``; no such header means none."""
    _, dash, last = response.headers.get("Range", "").partition("-")
    return int(last) + 1 if dash else 0


class _Body:
    """The rest of a payload, iterated in large pieces; may be iterated again (a refreshed credential does that)."""

    def __init__(self, url: str, payload: Payload, offset: int, head: bytes = b"", tail: bytes = b"") -> None:
        self._url = url
        self._payload = payload
        self._offset = offset
        self._head, self._tail = head, tail
        self._failure: OSError | StorageError | None = None

    def __len__(self) -> int:
        return len(self._head) + self._payload.size - self._offset + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces()
        except (OSError, StorageError) as error:
            self._failure = error
            raise

    @contextmanager
    def failing_itself(self) -> Iterator[None]:
        """Raise what reading the payload failed with: the HTTP stack would call it a broken connection."""
        try:
            yield
        finally:
            if self._failure is not None:
                raise self._failure

    def _pieces(self) -> Iterator[bytes]:
        left = self._payload.size - self._offset
        if self._head:
            yield self._head
        with self._payload.open() as stream:
            stream.seek(self._offset)
            while left:
                piece = stream.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise StorageError(self._url, "the bytes to be written are fewer than were announced")
                left -= len(piece)
                yield piece
        if self._tail:
            yield self._tail
