"""From claims to facts: reading one incoming file, checking what was hinted of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.errors import HintMismatchError, InstanceValidationError, SourceUnavailableError
from cloud_optimized_dicom.ingest.fsspec_source import FsspecSource
from cloud_optimized_dicom.ingest.http_source import HttpSource
from cloud_optimized_dicom.ingest.source_kinds import FileSource, GunzipSource, ObjectSource, Source
from cloud_optimized_dicom.whole_files import new_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.hints import Hints
    from cloud_optimized_dicom.model import DicomFacts
    from cloud_optimized_dicom.ranges import ByteRange

_COPY_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"  # RFC 1952; no file of DICOM begins with it
_RELATIVE = b'"BulkDataURI":"?offset='


@dataclass(frozen=True)
class SourcePayload:
    """A source as bytes to be written, of the size and CRC32C that were measured."""

    source: Source
    size: int
    crc32c: int

    def open(self) -> BinaryIO:
        """Return a new reader."""
        return self.source.open()


def measure(source: Source, hints: Hints) -> DicomFacts:
    """Read a file and check the hints against it.

    Raises
    ------
    InstanceValidationError
        If it is not a DICOM instance that can be stored; the error names the file and the reason.
    SourceUnavailableError
        If its CRC32C is not the one that it was listed with.
    HintMismatchError
        If a hint does not describe it.
    """
    with source.open() as stream:
        facts = inspect_dicom(stream, source.uri, bulk_data_uri=relative_uri)
    found = checksum.encode(facts.crc32c)
    if source.crc32c not in (None, found):
        raise SourceUnavailableError(source.uri, f"arrived damaged: CRC32C is {found}, listed as {source.crc32c}")
    check_hints(source.uri, hints, facts)
    return facts


def check_hints(uri: str, hints: Hints, facts: DicomFacts) -> None:
    """Raise `HintMismatchError` for the first hint that does not describe the file."""
    found: tuple[tuple[str, str | int], ...] = (
        ("size", facts.size),
        ("crc32c", checksum.encode(facts.crc32c)),
        ("instance_uid", facts.instance_uid),
        ("series_uid", facts.series_uid),
        ("study_uid", facts.study_uid),
    )
    for name, value in found:
        hinted = getattr(hints, name)
        if hinted is not None and hinted != value:
            raise HintMismatchError(uri, name, hinted, value)


def relative_uri(_instance_uid: str, span: ByteRange) -> str:
    """Return a bulk data URI that leaves open which file holds the bytes; see :func:`with_bulk_data_base`."""
    return f"?offset={span.start}&length={len(span)}"


def with_bulk_data_base(header: bytes, base: str) -> bytes:
    """Return a measured header whose bulk data URIs, relative until now, name the file that holds the bytes.

    Notes
    -----
    The pattern holds unescaped quotes, so no text value of a JSON document can match it.  The base may hold anything
    that a path may.
    """
    text = json.dumps(base, ensure_ascii=False)[:-1]  # without its closing quote
    return header.replace(_RELATIVE, f'"BulkDataURI":{text}?offset='.encode("utf-8", "backslashreplace"))


def fetched(source: Source, directory: Path, check: Callable[[], None] = lambda: None) -> Source:
    """Return a source that is cheap to read twice: remote files are copied into `directory`, in one request.

    Parameters
    ----------
    check
        Called now and then; what it raises ends the copying.

    Raises
    ------
    InstanceValidationError, StorageError
        If the file cannot be read.
    """
    if isinstance(source, HttpSource | FsspecSource):
        return source.fetched(directory, check)
    if not isinstance(source, ObjectSource):
        return source
    with new_file(directory, ".dcm") as copy:
        for chunk in source.store.iter_chunks(source.name, source.span, version=source.version):
            check()
            copy.write(chunk)
    local = FileSource(source.uri, Path(copy.name), source.size, source.crc32c)
    try:
        packed = _is_packed(source, local)
    except BaseException:
        local.path.unlink(missing_ok=True)
        raise
    return _unpacked(local, directory) if packed else local


def _is_packed(source: ObjectSource, copy: FileSource) -> bool:
    """Return whether a copy is that of an object whose content encoding is yet to be undone."""
    # Of what was not listed nobody has said yet how it is kept; to ask first would be a request for every object.
    if source.version is not None or not _is_gzip(copy.path):
        return False
    return source.store.stat(source.name).content_encoding == "gzip"


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_GZIP)) == _GZIP


def _unpacked(packed: FileSource, directory: Path) -> FileSource:
    """Return a copy of what is inside a gzip file, which goes."""
    try:
        with GunzipSource(packed).open() as stream, new_file(directory, ".dcm") as copy:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
    finally:
        packed.path.unlink()
    return FileSource(packed.uri, Path(copy.name))


def copied(source: Source, directory: Path) -> Path:
    """Return a local file with the bytes of a source: its own file, or a copy in `directory`."""
    local = fetched(source, directory)
    if local.local_path is not None:
        return local.local_path
    try:
        with local.open() as stream, new_file(directory, ".dcm") as copy:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
    except OSError as error:
        raise InstanceValidationError(source.uri, error.strerror or "cannot be copied") from error
    return Path(copy.name)
