"""A store in a local directory: plain files, so that people can look at a datastore and copy it.

Readers take no lock and write nothing, so a folder of files that somebody else wrote, on a read-only disk even, is a
store too.  A file that came from elsewhere or was edited has a version made of its inode, modification time and size,
and no CRC32C.  `local_objects` says how the files are laid out and written.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.checksum import combine, crc32c
from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError, StorageError
from cloud_optimized_dicom.storage import _rules as rules
from cloud_optimized_dicom.storage import local_files as files
from cloud_optimized_dicom.storage.base import (
    DEFAULT_ATTRIBUTES,
    Attributes,
    ConcatSource,
    ObjectInfo,
    ObjectStore,
    ReadResult,
    common_prefix,
)
from cloud_optimized_dicom.storage.clock import utc_now
from cloud_optimized_dicom.storage.local_growth import grow
from cloud_optimized_dicom.storage.local_objects import Incoming, LocalObjects, Opened, WriteRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.clock import Clock
    from cloud_optimized_dicom.storage.payload import Payload


class LocalStore(ObjectStore):
    """A directory as a store: atomic, durable, conditional under any number of processes of one machine.

    Parameters
    ----------
    root
        The directory; made by the first write.
    clock
        What ``updated`` and ``served_at`` are told by.

    Notes
    -----
    Every process must open the same directory as the root.  A name cannot be both an object and a folder of objects.
    Lists do not follow links to directories.  The file system must have `flock` and atomic renames.
    """

    def __init__(self, root: str | os.PathLike[str], *, clock: Clock = utc_now) -> None:
        # Not resolved: a linked root keeps the name that it was given.
        path = Path(os.path.abspath(root))  # noqa: PTH100
        self.url = str(path)
        self._clock = clock
        self._objects = LocalObjects(path, clock)

    # -- reading

    def stat(self, name: str) -> ObjectInfo:
        """Return the present state of an object."""
        with self._objects.open(name) as opened:
            return opened.info

    def read_object(self, name: str) -> ReadResult:
        """Read a whole object."""
        with self._objects.open(name) as opened:
            return ReadResult(self._read_span(opened, 0, opened.info.size), opened.info, self._clock())

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read exactly the bytes of `span`."""
        return self.read_ranges(name, [span], version=version)[0]

    def read_ranges(self, name: str, spans: Sequence[ByteRange], *, version: str | None = None) -> list[bytes]:
        """Read several spans, all of the same version."""
        with self._objects.open(name) as opened:
            rules.check_pin(self.url_of(name), opened.info.version, version)
            for span in spans:
                rules.check_span(self.url_of(name), span, opened.info.size)
            return [self._read_span(opened, span.start, span.stop) for span in spans]

    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """Yield the bytes of one version in pieces."""
        with self._objects.open(name) as opened:
            rules.check_pin(self.url_of(name), opened.info.version, version)
            start, stop = (span.start, span.stop) if span is not None else (0, opened.info.size)
            if span is not None:
                rules.check_span(self.url_of(name), span, opened.info.size)
            for at in range(start, stop, rules.CHUNK_BYTES):
                yield self._read_span(opened, at, min(at + rules.CHUNK_BYTES, stop))

    def _read_span(self, opened: Opened, start: int, stop: int) -> bytes:
        url = self.url_of(opened.info.name)
        with files.reading_errors(url):
            data = files.read_all(opened.descriptor, start, stop - start)
        if len(data) != stop - start:
            raise StorageError(url, "became shorter while it was read")
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose name starts with `prefix`."""
        for name in self._names(prefix):
            info = self.find(name)
            if info is not None:
                yield info

    def list_between(self, start: str, stop: str) -> Iterator[ObjectInfo]:
        """Yield the objects from the name `start` on, up to and without the name `stop`."""

        def wanted(name: str) -> bool:
            return name < stop and (name >= start or (name.endswith("/") and start.startswith(name)))

        for name in self._names(common_prefix(start, stop), wanted):
            info = self.find(name)
            if info is not None:
                yield info

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the folders directly below `prefix`; a directory without objects is none."""
        for name, is_folder in self._objects.entries(prefix):
            if is_folder and next(self._names(name), None) is not None:
                yield name

    def _names(self, prefix: str, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[str]:
        """Yield the names with a prefix; `wanted` is asked of objects and, with a slash at their end, of folders."""
        folder = prefix[: prefix.rfind("/") + 1]
        for name, is_folder in self._objects.entries(folder):
            if name.startswith(prefix) and wanted(name):
                yield from self._names(name, wanted) if is_folder else (name,)

    # -- writing

    def create(
        self, name: str, payload: Payload, *, write_id: str, attributes: Attributes = DEFAULT_ATTRIBUTES
    ) -> ObjectInfo:
        """Write an object that must not exist yet."""
        return self._write(WriteRequest(name, None, write_id, attributes), payload)

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
        return self._write(WriteRequest(name, version, write_id, attributes), payload)

    def _write(self, write: WriteRequest, payload: Payload) -> ObjectInfo:
        url = self.url_of(write.name)
        # Asked here only to spare the bytes of a write that cannot succeed; what counts is asked under the lock.
        if ours := self._objects.judge(write, self._objects.find(write.name)):
            return ours
        with self._objects.incoming(write.name) as incoming:
            for chunk in rules.iter_payload(url, payload):
                with files.writing_errors(url):
                    files.write_all(incoming.descriptor, chunk)
            return self._objects.publish(write, incoming, payload.crc32c)

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
        """Make `name` the concatenation of the sources, copied inside the kernel.

        Notes
        -----
        A new object of one source is a link to it, and what follows the object itself is added to its file, where that
        can be done: so a new tar is written once, and an append costs the bytes that are new.
        """
        rules.check_source_count(self.url_of(name), sources)
        write = WriteRequest(name, version, write_id, attributes, tuple(sources))
        if ours := self._objects.judge(write, self._objects.find(name)):
            return ours
        try:
            if expected_crc32c is None and (grown := grow(self._objects, write)):
                return grown
            with self._joined(write) as (incoming, crc):
                rules.check_expected_crc32c(self.url_of(name), crc, expected_crc32c)
                return self._objects.publish(write, incoming, crc)
        except (ObjectNotFoundError, PreconditionFailedError):
            # A source may be gone because this very write landed from another thread, and was tidied up after.
            if ours := self._objects.judge(write, self._objects.find(name)):
                return ours
            raise

    @contextmanager
    def _joined(self, write: WriteRequest) -> Iterator[tuple[Incoming, int]]:
        """Give the sources' bytes as one temporary file, and their CRC32C."""
        # A link onto the object itself would leave its versions nothing to be told apart by.
        if len(write.sources) == 1 and write.version is None:
            (source,) = write.sources
            with self._objects.linked(write.name, source.name) as (incoming, opened):
                rules.check_source(self.url_of(source.name), opened.info.version, source.version)
                crc = opened.info.crc32c
                yield incoming, self._crc32c_of(opened) if crc is None else crc
            return
        with self._objects.incoming(write.name) as incoming:
            crc = 0
            for source in write.sources:
                crc = self._append(source, incoming.descriptor, crc)
            yield incoming, crc

    def _append(self, source: ConcatSource, descriptor: int, crc: int) -> int:
        """Append a source to a file, and return the CRC32C so far with the source's added."""
        url = self.url_of(source.name)
        with self._objects.open(source.name) as opened:
            rules.check_source(url, opened.info.version, source.version)
            with files.writing_errors(url):
                files.copy_all(opened.descriptor, descriptor, opened.info.size)
            if opened.info.crc32c is not None:
                return combine(crc, opened.info.crc32c, opened.info.size)
            return self._crc32c_of(opened, crc)

    def _crc32c_of(self, opened: Opened, crc: int = 0) -> int:
        for at in range(0, opened.info.size, rules.COPY_BYTES):
            crc = crc32c(self._read_span(opened, at, min(at + rules.COPY_BYTES, opened.info.size)), crc)
        return crc

    def delete(self, name: str, *, version: str | None = None) -> None:
        """Delete an object; folders that it leaves empty go too."""
        self._objects.delete(name, version)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "clock": self._clock}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LocalStore.__init__(self, state["url"], clock=state["clock"])
