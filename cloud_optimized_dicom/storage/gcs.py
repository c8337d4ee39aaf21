"""A store in a bucket of Google Cloud Storage (``gs://``), or of a server that speaks its JSON API.

The client library is never let retry: only who repeats a conditional write knows that a refusal may be about the first
attempt.  `gcs_settle` has the reasons, `retry` the patience.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import (
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
)
from cloud_optimized_dicom.storage import _rules as rules
from cloud_optimized_dicom.storage.base import (
    DEFAULT_ATTRIBUTES,
    Attributes,
    ConcatSource,
    ObjectInfo,
    ObjectStore,
    ReadResult,
)
from cloud_optimized_dicom.storage.gcs_client import ClientRecipe, keep_connections
from cloud_optimized_dicom.storage.gcs_errors import sdk_errors
from cloud_optimized_dicom.storage.gcs_media import Media, MediaRequest, check_range
from cloud_optimized_dicom.storage.gcs_resources import (
    LISTED_FIELDS,
    info_of_download,
    info_of_resource,
    resource_of,
    served_at,
)
from cloud_optimized_dicom.storage.gcs_settle import PendingWrite, settle
from cloud_optimized_dicom.storage.gcs_uploads import WHOLE_UPLOAD_BYTES, Place, Upload
from cloud_optimized_dicom.storage.retry import DEFAULT_RETRY, RetryBudget, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.payload import Payload

Result = TypeVar("Result")

_BATCH_OBJECTS = 100  # what one batch request may hold
_DEFAULT_TIMEOUT_SECONDS = 60.0


class GcsStore(ObjectStore):
    """A prefix of a bucket.  A version is a generation.

    Parameters
    ----------
    bucket, prefix
        As in ``gs://bucket/prefix``.
    client
        A ``google.cloud.storage.Client``; made at the first request when None.
    retry
        How long failures that may pass are borne.
    timeout_seconds
        How long a connection may take, or be silent.
    whole_upload_bytes
        Up to which size the first attempt of an upload is one request.  Larger payloads, and every payload whose first
        attempt failed, are sent so that a broken upload goes on where it broke; that costs a request more.

    Notes
    -----
    Pickles without its client and without any credential.  An unpickled store makes a client for the same project and
    endpoint: without credentials if the original one had none, else with the default credentials of its process.

    An unconditional `delete` that is repeated after a lost response deletes what was created meanwhile.
    """

    uploads_at_once = 4

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        client: Any = None,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        timeout_seconds: float = _DEFAULT_TIMEOUT_SECONDS,
        whole_upload_bytes: int = WHOLE_UPLOAD_BYTES,
    ) -> None:
        prefix = prefix.rstrip("/")
        self.url = f"gs://{bucket}/{prefix}" if prefix else f"gs://{bucket}"
        if not bucket:
            raise StorageError(self.url, "a store on Google Cloud Storage is named gs://bucket/prefix")
        self._bucket_name = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._retry = retry
        self._timeout_seconds = timeout_seconds
        self._whole_upload_bytes = whole_upload_bytes
        self._recipe = ClientRecipe()
        self._client, self._made_client = client, False
        if client is not None:
            keep_connections(client)
        self._client_lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        recipe = self._recipe if self._client is None else ClientRecipe.of(self._client)
        return self.__dict__ | {"_recipe": recipe, "_client": None, "_made_client": False, "_client_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._client_lock = threading.Lock()

    # -- requests

    @property
    def client(self) -> Any:
        """The client that was given, or else was made."""
        return self._connected()

    def close(self) -> None:
        """End the connections of the client that was made here; one that was given is its owner's to close."""
        with self._client_lock:
            if self._made_client:
                self._client.close()
                self._client, self._made_client = None, False

    @property
    def _bucket(self) -> Any:
        return self._connected().bucket(self._bucket_name)

    @property
    def _media(self) -> Media:
        return Media(self._connected(), self._timeout_seconds)

    def _connected(self) -> Any:
        with self._client_lock:
            if self._client is None:
                with sdk_errors(self.url):
                    self._client, self._made_client = self._recipe.make(), True
            return self._client

    def _patiently(self, url: str, operation: Callable[[], Result]) -> Result:
        """Do something that may be repeated at will."""

        def attempt() -> Result:
            with sdk_errors(url):
                return operation()

        return self._retry.call(attempt)

    @property
    def _once(self) -> dict[str, Any]:
        return {"retry": None, "timeout": self._timeout_seconds}

    def _generation(self, name: str, version: str | None) -> int | None:
        if version is not None and not version.isdecimal():
            raise StorageError(self.url_of(name), f"{version} is not a generation")
        return int(version) if version is not None else None

    # -- reading

    def stat(self, name: str) -> ObjectInfo:
        """Return the present state of an object."""

        def get() -> ObjectInfo:
            blob = self._bucket.blob(self._prefix + name)
            blob.reload(**self._once)
            return _info_of_blob(name, blob)

        return self._patiently(self.url_of(name), get)

    def read_object(self, name: str) -> ReadResult:
        """Read a whole object in one request; `updated` is to the second."""
        url = self.url_of(name)

        def get() -> ReadResult:
            with self._media.get(MediaRequest(self._bucket_name, self._prefix + name)) as response:
                data = response.raw.read(decode_content=False)
                # A server that leaves headers out (an emulator) is asked once more.
                info = info_of_download(name, response) or self.stat(name)
                if len(data) != info.size or info.crc32c not in {None, crc32c(data)}:
                    raise TransientStorageError(url, "arrived damaged")
                return ReadResult(data, info, served_at(response))

        return self._patiently(url, get)

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read exactly the bytes of `span`."""
        url = self.url_of(name)
        if not len(span):  # HTTP has no empty range
            info = self.stat(name)
            rules.check_pin(url, info.version, version)
            rules.check_span(url, span, info.size)
            return b""
        request = self._media_request(name, span, version)

        def get() -> bytes:
            with self._media.get(request) as response:
                check_range(url, request, response)
                data: bytes = response.raw.read(decode_content=False)
            if len(data) != len(span):
                raise TransientStorageError(url, "arrived incomplete")
            return data

        with _pinned(url, version):
            return self._patiently(url, get)

    def _media_request(self, name: str, span: ByteRange | None, version: str | None) -> MediaRequest:
        start, stop = (span.start, span.stop) if span is not None else (0, None)
        return MediaRequest(self._bucket_name, self._prefix + name, start, stop, self._generation(name, version))

    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """Yield the bytes of one version in pieces; a broken connection is taken up where it broke."""
        url = self.url_of(name)
        if span is not None and not len(span):
            self.read(name, span, version=version)
            return
        request = self._media_request(name, span, version)
        with _pinned(url, version):
            yield from self._media.iter_bytes(url, request, RetryBudget(self._retry))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose name starts with `prefix`, a page of up to 1000 at a request."""
        return self._listed(prefix=self._prefix + prefix)

    def list_between(self, start: str, stop: str) -> Iterator[ObjectInfo]:
        """Yield the objects from `start` on, up to and without `stop`, a page of up to 1000 at a request."""
        return self._listed(start_offset=self._prefix + start, end_offset=self._prefix + stop)

    def _listed(self, **bounds: str) -> Iterator[ObjectInfo]:
        for blobs, _ in self._pages(**bounds):
            for blob in blobs:
                yield _info_of_blob(blob.name[len(self._prefix) :], blob)

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the folders directly below `prefix`."""
        for _, folders in self._pages(prefix=self._prefix + prefix, delimiter="/"):
            for folder in folders:
                yield folder[len(self._prefix) :]

    def _pages(self, **bounds: str) -> Iterator[tuple[Sequence[Any], Sequence[str]]]:
        token = None
        while True:
            blobs, folders, token = self._patiently(self.url, partial(self._page, token, bounds))
            yield blobs, folders
            if token is None:
                return

    def _page(self, token: str | None, bounds: Mapping[str, str]) -> tuple[Sequence[Any], Sequence[str], str | None]:
        found = self._connected().list_blobs(
            self._bucket_name, page_token=token, fields=LISTED_FIELDS, **bounds, **self._once
        )
        page = next(found.pages)
        return list(page), page.prefixes, found.next_page_token

    # -- writing

    def create(
        self, name: str, payload: Payload, *, write_id: str, attributes: Attributes = DEFAULT_ATTRIBUTES
    ) -> ObjectInfo:
        """Write an object that must not exist yet."""
        return self._upload(PendingWrite(self, name, None, write_id), payload, attributes)

    def replace(
        self,
        name: str,
        payload: Payload,
        *,
        version: str,
        write_id: str,
        attributes: Attributes = DEFAULT_ATTRIBUTES,
    ) -> ObjectInfo:
        """Write over the named version of an object."""
        return self._upload(PendingWrite(self, name, version, write_id), payload, attributes)

    def _upload(self, write: PendingWrite, payload: Payload, attributes: Attributes) -> ObjectInfo:
        generation = self._generation(write.name, write.version) or 0
        place = Place(self._bucket_name, self._prefix + write.name, generation)
        upload = Upload(self._media, place, write, payload, attributes, self._whole_upload_bytes)
        return settle(write, upload.attempt, self._retry)

    def concat(
        self,
        name: str,
        sources: Sequence[ConcatSource],
        *,
        version: str | None,
        write_id: str,
        attributes: Attributes = DEFAULT_ATTRIBUTES,
        expected_crc32c: int | None = None,
    ) -> ObjectInfo:
        """Compose `name` of the sources."""
        url = self.url_of(name)
        rules.check_source_count(url, sources)
        write = PendingWrite(self, name, version, write_id, sources)
        generation = self._generation(name, version) or 0
        source_generations = [self._generation(source.name, source.version) for source in sources]

        def attempt(_budget: RetryBudget) -> ObjectInfo:
            blob = self._bucket.blob(self._prefix + name)
            for field, value in resource_of(write.write_id, attributes).items():
                blob._patch_property(field, value)  # noqa: SLF001 - the setters would do the same, one by one
            with sdk_errors(url):
                blob.compose(
                    [self._bucket.blob(self._prefix + source.name) for source in sources],
                    if_generation_match=generation,
                    if_source_generation_match=source_generations,
                    **self._once,
                )
                return _info_of_blob(name, blob)

        info = settle(write, attempt, self._retry)
        if info.crc32c is not None:
            rules.check_expected_crc32c(url, info.crc32c, expected_crc32c)
        return info

    def delete(self, name: str, *, version: str | None = None) -> None:
        """Delete an object, if it is at `version` where one is given."""
        url = self.url_of(name)
        generation = self._generation(name, version)
        budget = RetryBudget(self._retry)
        perhaps_done = False
        while True:
            try:
                with sdk_errors(url):
                    self._bucket.blob(self._prefix + name).delete(if_generation_match=generation, **self._once)
                    return
            except ObjectNotFoundError:
                if perhaps_done:
                    return
                raise
            except PreconditionFailedError as refusal:
                present = self.find(name)
                if present is None and not perhaps_done:
                    raise ObjectNotFoundError(url) from refusal
                if present is None:
                    return
                if present.version != version:
                    raise PreconditionFailedError(url, version, present.version) from refusal
                failure: StorageError = refusal
            except TransientStorageError as error:
                perhaps_done, failure = True, error
            if not budget.pause():
                raise failure

    def delete_all(self, objects: Sequence[tuple[str, str | None]]) -> None:
        """Delete several objects in one request per hundred; what is gone or has moved on is passed over."""
        for start in range(0, len(objects), _BATCH_OBJECTS):
            some = objects[start : start + _BATCH_OBJECTS]
            try:
                with sdk_errors(self.url), self._connected().batch():
                    for name, version in some:
                        blob = self._bucket.blob(self._prefix + name)
                        blob.delete(if_generation_match=self._generation(name, version), **self._once)
            except (StorageError, ValueError):
                # One of them failed (the batch says no more than that), or the server has no batches (what it answers
                # then is no batch, a `ValueError` of the library): one by one.
                super().delete_all(some)


def _info_of_blob(name: str, blob: Any) -> ObjectInfo:
    # The resource itself: the library's properties leave out nothing, but convert some values at a cost.
    return info_of_resource(name, blob._properties)  # noqa: SLF001


@contextmanager
def _pinned(url: str, version: str | None) -> Iterator[None]:
    """Say of a read that was refused that its version is gone."""
    try:
        yield
    except PreconditionFailedError as refusal:
        raise ObjectNotFoundError(url, f"version {version} is gone") from refusal
