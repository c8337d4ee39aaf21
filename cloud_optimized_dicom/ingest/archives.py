"""The members of zip and tar archives as sources, read in place."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.errors import CODError, InstanceValidationError
from cloud_optimized_dicom.ingest.digest import digest_of
from cloud_optimized_dicom.ingest.parts import reason_of
from cloud_optimized_dicom.ingest.source_kinds import (
    FileSource,
    GunzipSource,
    ObjectSource,
    TarMemberSource,
    TemporarySource,
    ZipMemberSource,
)
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.whole_files import new_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.ingest.source_kinds import Source

_ARCHIVE = re.compile(r"\.(?:zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
_GZIPPED = re.compile(r"\.(?:tgz|tar\.gz)$", re.IGNORECASE)
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, ValueError)
_COPY_BYTES = 1 << 20
_TAIL_BYTES = 64 << 10
_TWICE = "an earlier member of the archive has this name"
_ENCRYPTED = 0x1  # general purpose bit 0 (APPNOTE 4.4.4)
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """Something that was asked for and cannot be read; the others go on."""

    uri: str
    reason: str


def is_archive(name: str) -> bool:
    """Return whether a file of this name is opened as an archive: .zip, .tar, .tar.gz, .tgz."""
    return _ARCHIVE.search(name) is not None


def is_hidden(name: str) -> bool:
    """Return whether a part of a relative name starts with a dot, or belongs to what macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.removeprefix("./").split("/"))


def refusal_of(name: str) -> str | None:
    """Return why a file of this name holds no instance, or None."""
    if name.rpartition("/")[2].upper() == "DICOMDIR":  # the name is fixed by PS3.10 section 8.6
        return "is a DICOMDIR: the index of a medium, not an instance"
    return None


def iter_members(archive: Source, temp_dir: Path | None = None) -> Iterator[Source | SourceFailure]:
    """Yield the members of an archive in its own order; hidden ones and folders are left out.

    Parameters
    ----------
    temp_dir
        A folder that outlives the sources.  A gzipped tar is unpacked into it, once, as a plain tar, which is deleted
        with the last of its members; without it, opening a member of such a tar unpacks everything before that member.

    Notes
    -----
    A damaged archive yields what can be reached, then a failure.  Of members of one name the first is yielded, others
    are failures: nothing could tell later which of them was meant.
    """
    met: set[bytes] = set()  # digests: of a million members the names alone would take hundreds of megabytes
    try:
        for member in _iter_kind(archive, temp_dir):
            digest = digest_of(member.uri)
            if isinstance(member, SourceFailure) or digest not in met:
                yield member
            else:
                yield SourceFailure(member.uri, _TWICE)
            met.add(digest)
    except InstanceValidationError as error:
        yield SourceFailure(archive.uri, error.reason)
    except CODError as error:
        yield SourceFailure(archive.uri, str(error))
    except _BROKEN as error:
        yield SourceFailure(archive.uri, f"cannot be read as an archive: {reason_of(error)}")


def _iter_kind(archive: Source, temp_dir: Path | None) -> Iterator[Source | SourceFailure]:
    if archive.uri.lower().endswith(".zip"):
        yield from _iter_zip(archive)
    elif not _GZIPPED.search(archive.uri):
        yield from _iter_tar(archive, archive.uri)
    elif temp_dir is None:
        yield from _iter_tar(GunzipSource(archive), archive.uri)
    else:
        plain, failure = _unpack(archive, temp_dir)
        yield from _iter_tar(plain, archive.uri)
        if failure:
            yield failure


def _unpack(archive: Source, temp_dir: Path) -> tuple[FileSource, SourceFailure | None]:
    failure = None
    with new_file(temp_dir, ".tar") as target:
        try:
            with GunzipSource(archive).open() as unpacked:
                while chunk := unpacked.read1(_COPY_BYTES):
                    target.write(chunk)
        except InstanceValidationError as error:  # what came before the damage is still good
            failure = SourceFailure(archive.uri, error.reason)
    return TemporarySource.of(FileSource(archive.uri, Path(target.name))), failure


def _iter_tar(archive: Source, uri: str) -> Iterator[Source | SourceFailure]:
    with archive.open() as stream, tarfile.open(fileobj=stream, mode="r:", errors="backslashreplace") as tar:
        for info in tar:
            # tarfile remembers every member that it has seen; a large tar must not be held in memory.
            tar.members = []  # type: ignore[attr-defined]  # public in practice, absent from the stubs
            member = f"{uri}://{info.name}"
            if info.isdir() or is_hidden(info.name):
                continue
            reason = refusal_of(info.name) or _tar_refusal(info)
            yield SourceFailure(member, reason) if reason else _tar_member(archive, member, info)
        tail = _first_unread(stream, tar.offset)
    if tail:
        yield SourceFailure(uri, f"what follows byte {tail} is not a tar member and was not read")


def _tar_refusal(info: tarfile.TarInfo) -> str | None:
    if not info.isreg():
        return "not a regular file"
    if info.issparse():
        return "sparse members are not supported"
    return "an archive inside an archive is not opened" if is_archive(info.name) else None


def _tar_member(archive: Source, uri: str, info: tarfile.TarInfo) -> Source:
    if isinstance(archive, ObjectSource) and archive.size is not None and archive.span is None:
        # A reader of just this part asks the store for no byte of the neighbours.
        span = ByteRange(min(info.offset_data, archive.size), min(info.offset_data + info.size, archive.size))
        if len(span) == info.size:
            return replace(archive, uri=uri, size=info.size, crc32c=None, span=span)
    return TarMemberSource(uri, archive, info.offset_data, info.size)


def _first_unread(stream: BinaryIO, offset: int) -> int | None:
    """Return where a tar goes on after tarfile has stopped (it stops silently at a damaged header), or None."""
    stream.seek(offset)
    return offset if stream.read(_TAIL_BYTES).strip(b"\0") else None


def _iter_zip(archive: Source) -> Iterator[Source | SourceFailure]:
    with archive.open() as stream, zipfile.ZipFile(stream) as opened:
        members = opened.infolist()
    for info in members:
        uri = f"{archive.uri}://{info.filename}"
        if info.is_dir() or is_hidden(info.filename):
            continue
        reason = refusal_of(info.filename) or _zip_refusal(info)
        if reason:
            yield SourceFailure(uri, reason)
        else:
            yield ZipMemberSource(
                uri, archive, info.header_offset, info.compress_type, info.compress_size, info.file_size, info.CRC
            )


def _zip_refusal(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "encrypted"
    if info.compress_type not in _METHODS:
        return f"compression method {info.compress_type} is not supported"
    return "an archive inside an archive is not opened" if is_archive(info.filename) else None
