"""A store in this process's memory: for tests, notebooks and dry runs."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.checksum import combine_all, crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from cloud_optimized_dicom.storage._rules import (
    CHUNK_BYTES,
    check_expected_crc32c,
    check_pin,
    check_source,
    check_source_count,
    check_span,
    iter_payload,
    judge,
)
from cloud_optimized_dicom.storage.base import (
    DEFAULT_ATTRIBUTES,
    Attributes,
    ConcatSource,
    ObjectInfo,
    ObjectStore,
    ReadResult,
)
from cloud_optimized_dicom.storage.clock import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.clock import Clock
    from cloud_optimized_dicom.storage.payload import Payload

_SCHEME = "memory://"


@dataclass(frozen=True, slots=True)
class _Stored:
    data: bytes
    info: ObjectInfo  # under the full name; the store that reads it makes it relative


@dataclass
class _Bucket:
    objects: dict[str, _Stored] = field(default_factory=dict)
    # Re-entrant, because a concatenation looks its sources up while it holds the bucket.
    lock: threading.RLock = field(default_factory=threading.RLock)


_VERSIONS = itertools.count(1)
_BUCKETS: dict[str, _Bucket] = {}
_BUCKETS_LOCK = threading.Lock()


def _bucket(name: str) -> _Bucket:
    with _BUCKETS_LOCK:
        return _BUCKETS.setdefault(name, _Bucket())


class MemoryStore(ObjectStore):
    """A named store that lives as long as the process; the same name opened twice is the same store.

    Parameters
    ----------
    url
        ``memory://name`` or ``memory://name/prefix``.
    clock
        What ``updated`` and ``served_at`` are told by.

    Raises
    ------
    StorageError
        If the URL names no store.

    Notes
    -----
    Pickles by its name: in another process that name is another, empty store.
    """

    def __init__(self, url: str = "memory://default", *, clock: Clock = utc_now) -> None:
        name, _, prefix = url.removeprefix(_SCHEME).rstrip("/").partition("/")
        if not url.startswith(_SCHEME) or not name:
            raise StorageError(url, "a store in memory is named memory://name")
        self.url = url.rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._clock = clock
        self._name = name
        self._bucket = _bucket(name)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_bucket"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bucket = _bucket(self._name)

    # -- reading

    def _look_up(self, name: str) -> _Stored | None:
        with self._bucket.lock:
            return self._bucket.objects.get(self._prefix + name)

    def _get(self, name: str, version: str | None = None) -> _Stored:
        stored = self._look_up(name)
        if stored is None:
            raise ObjectNotFoundError(self.url_of(name))
        check_pin(self.url_of(name), stored.info.version, version)
        return stored

    def _relative(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, name=info.name[len(self._prefix) :])

    def stat(self, name: str) -> ObjectInfo:
        """Return the present state of an object."""
        return self._relative(self._get(name).info)

    def read_object(self, name: str) -> ReadResult:
        """Read a whole object."""
        stored = self._get(name)
        return ReadResult(stored.data, self._relative(stored.info), self._clock())

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read exactly the bytes of `span`."""
        stored = self._get(name, version)
        check_span(self.url_of(name), span, stored.info.size)
        return stored.data[span.start : span.stop]

    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """Yield the bytes of one version in pieces."""
        stored = self._get(name, version)
        if span is not None:
            check_span(self.url_of(name), span, stored.info.size)
        start, stop = (span.start, span.stop) if span is not None else (0, stored.info.size)
        for at in range(start, stop, CHUNK_BYTES):
            yield stored.data[at : min(at + CHUNK_BYTES, stop)]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects that were there when the list began."""
        wanted = self._prefix + prefix
        with self._bucket.lock:
            found = [stored.info for name, stored in self._bucket.objects.items() if name.startswith(wanted)]
        found.sort(key=lambda info: info.name.encode("utf-8", "surrogateescape"))
        return map(self._relative, found)

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the folders directly below `prefix`."""
        below = [info.name[len(prefix) :].partition("/") for info in self.list(prefix)]
        return iter(dict.fromkeys(f"{prefix}{head}/" for head, slash, _ in below if slash))

    # -- writing

    def create(
        self, name: str, payload: Payload, *, write_id: str, attributes: Attributes = DEFAULT_ATTRIBUTES
    ) -> ObjectInfo:
        """Write an object that must not exist yet."""
        data = b"".join(iter_payload(self.url_of(name), payload))
        return self._put(name, data, None, write_id, attributes)

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
        data = b"".join(iter_payload(self.url_of(name), payload))
        return self._put(name, data, version, write_id, attributes)

    def _put(self, name: str, data: bytes, version: str | None, write_id: str, attributes: Attributes) -> ObjectInfo:
        full = self._prefix + name
        with self._bucket.lock:
            present = self._bucket.objects.get(full)
            if ours := judge(self.url_of(name), present.info if present else None, version, write_id):
                return self._relative(ours)
            info = ObjectInfo(
                name=full,
                size=len(data),
                version=str(next(_VERSIONS)),
                crc32c=crc32c(data),
                updated=self._clock(),
                write_id=write_id,
                content_encoding=attributes.content_encoding,
                storage_class=attributes.storage_class,
            )
            self._bucket.objects[full] = _Stored(data, info)
        return self._relative(info)

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
        """Make `name` the concatenation of the sources."""
        url = self.url_of(name)
        check_source_count(url, sources)
        with self._bucket.lock:
            present = self._look_up(name)
            if ours := judge(url, present.info if present else None, version, write_id):
                return self._relative(ours)
            parts = [self._source(source) for source in sources]
            crc, _ = combine_all([(part.info.crc32c or 0, part.info.size) for part in parts])
            check_expected_crc32c(url, crc, expected_crc32c)
            return self._put(name, b"".join(part.data for part in parts), version, write_id, attributes)

    def _source(self, source: ConcatSource) -> _Stored:
        stored = self._get(source.name)
        check_source(self.url_of(source.name), stored.info.version, source.version)
        return stored

    def delete(self, name: str, *, version: str | None = None) -> None:
        """Delete an object."""
        with self._bucket.lock:
            stored = self._get(name)
            if version is not None and stored.info.version != version:
                raise PreconditionFailedError(self.url_of(name), version, stored.info.version)
            del self._bucket.objects[self._prefix + name]
