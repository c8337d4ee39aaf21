"""Where the bytes of one incoming file are, and how to open them: a file, an object, a member of an archive."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import weakref
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.ingest.parts import open_part, reason_of
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.files import open_range_file

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    from cloud_optimized_dicom.ingest.parts import Readable
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore

_BLOCK_BYTES = 1 << 20  # files are mostly read from front to back: fewer, larger requests
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field (APPNOTE 4.3.7)


class Source(Protocol):
    """One file that may be ingested.  Sources pickle; nothing is open until :meth:`open`."""

    @property
    def uri(self) -> str:
        """What errors and records call it; always encodable text."""
        ...

    @property
    def size(self) -> int | None:
        """Length in bytes, where it is known without reading."""
        ...

    @property
    def crc32c(self) -> str | None:
        """CRC32C in base64, where the place that holds the file told it for free."""
        ...

    @property
    def local_path(self) -> Path | None:
        """The file itself, where it is a plain local file."""
        ...

    def open(self) -> BinaryIO:
        """Return a new seekable reader at position 0.

        Raises
        ------
        InstanceValidationError
            If it is missing or unreadable; reading on raises it too where an archive turns out to be damaged.
        StorageError
            If an object store refuses, now or while reading.
        """
        ...


def text_of(path: str | os.PathLike[str]) -> str:
    """Return a path as text that every encoder takes: bytes of a name that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class FileSource:
    """A plain local file."""

    uri: str
    path: Path
    size: int | None = None
    crc32c: str | None = None

    @property
    def local_path(self) -> Path | None:
        """The file."""
        return self.path

    def open(self) -> BinaryIO:
        """Return a new reader."""
        try:
            mode = self.path.stat().st_mode
            if not stat.S_ISREG(mode):  # to open a pipe would wait for somebody to write to it
                raise InstanceValidationError(
                    self.uri, "is a directory" if stat.S_ISDIR(mode) else "not a regular file"
                )
            return self.path.open("rb")
        except (OSError, ValueError) as error:
            raise InstanceValidationError(self.uri, reason_of(error)) from error


@dataclass(frozen=True)
class TemporarySource(FileSource):
    """A file of ours that is deleted once nothing refers to this source any more, no member of an archive either.

    Notes
    -----
    A copy that was pickled deletes nothing; it must not outlive the original.
    """

    @classmethod
    def of(cls, copy: FileSource) -> TemporarySource:
        """Return the source of a file that nobody else deletes."""
        source = cls(copy.uri, copy.path, copy.size, copy.crc32c)
        weakref.finalize(source, copy.path.unlink, missing_ok=True)
        return source


@dataclass(frozen=True)
class ObjectSource:
    """An object of a store, or a part of one.

    Parameters
    ----------
    version
        What a listing showed; an object that changed meanwhile is an error, never a mixture.  None: whatever is there.
    span
        The part; None for the whole object.
    """

    uri: str
    store: ObjectStore
    name: str
    size: int | None = None
    crc32c: str | None = None
    version: str | None = None
    span: ByteRange | None = None

    @classmethod
    def of(cls, store: ObjectStore, info: ObjectInfo) -> Source:
        """Return the source of a listed object; gzip that the store keeps as a content encoding is undone."""
        whole = cls(store.url_of(info.name), store, info.name, info.size, version=info.version)
        if info.content_encoding == "gzip":
            return GunzipSource(whole)
        crc = None if info.crc32c is None else encode(info.crc32c)
        return cls(whole.uri, store, info.name, info.size, crc, info.version)

    @property
    def local_path(self) -> Path | None:
        """None: objects are read where they are, local stores included."""
        return None

    def open(self) -> BinaryIO:
        """Return a new reader; small objects are fetched whole by its first read."""
        if self.size is None:
            return ObjectSource.of(self.store, self.store.stat(self.name)).open()
        start = 0 if self.span is None else self.span.start
        store, name, version = self.store, self.name, self.version
        return open_range_file(
            lambda span: store.read(name, span.shifted(start), version=version), self.size, block_bytes=_BLOCK_BYTES
        )


@dataclass(frozen=True)
class GunzipSource:
    """What is inside a gzip file.  Going back in it means unpacking from the front again."""

    inner: Source
    size: int | None = None
    crc32c: str | None = None

    @property
    def uri(self) -> str:
        """The URI of the gzip file."""
        return self.inner.uri

    @property
    def local_path(self) -> Path | None:
        """None."""
        return None

    def open(self) -> BufferedReader:
        """Return a new reader of the unpacked bytes."""
        packed = self.inner.open()
        return open_part(gzip.GzipFile(fileobj=packed), None, self.uri, packed)


@dataclass(frozen=True)
class TarMemberSource:
    """A member of a tar: `size` bytes from `offset` on."""

    uri: str
    archive: Source
    offset: int
    size: int
    crc32c: str | None = None

    @property
    def local_path(self) -> Path | None:
        """None."""
        return None

    def open(self) -> BinaryIO:
        """Return a new reader; a member that the archive cuts short raises while it is read."""
        archive = self.archive.open()
        return open_part(archive, ByteRange.of(self.offset, self.size), self.uri, archive)


@dataclass(frozen=True)
class ZipMemberSource:
    """A member of a zip archive, with what the central directory says of it; reading it all checks its CRC-32."""

    uri: str
    archive: Source
    header_offset: int
    method: int
    packed_bytes: int
    size: int
    crc32: int
    crc32c: str | None = None

    @property
    def local_path(self) -> Path | None:
        """None."""
        return None

    def open(self) -> BinaryIO:
        """Return a new reader.  The directory is not read again: opening each of N members stays O(N)."""
        archive = self.archive.open()
        try:
            archive.seek(self.header_offset)
            signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(archive.read(_LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise InstanceValidationError(self.uri, "the archive holds no member where its directory says")  # noqa: TRY301
            archive.seek(self.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
            return open_part(self._unpacker(archive), ByteRange(0, self.size), self.uri, archive)
        except (struct.error, InstanceValidationError) as error:
            archive.close()
            if isinstance(error, InstanceValidationError):
                raise
            raise InstanceValidationError(self.uri, "the archive ends before this member") from error

    def _unpacker(self, archive: BinaryIO) -> Readable:
        info = zipfile.ZipInfo("member")
        info.compress_type, info.compress_size = self.method, self.packed_bytes
        info.file_size, info.CRC = self.size, self.crc32
        return zipfile.ZipExtFile(archive, "r", info)


def temporary_bytes(source: Source) -> int:
    """Return how much of a temporary file is kept for this source: that of the archive that it is a member of."""
    if isinstance(source, TarMemberSource) and isinstance(source.archive, TemporarySource):
        return source.size
    if isinstance(source, ZipMemberSource) and isinstance(source.archive, TemporarySource):
        return source.packed_bytes
    return 0
