"""From claims to facts: reading one incoming file, checking what was hinted of it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.errors import HintMismatchError, InstanceValidationError
from cloud_optimized_dicom.ingest.fsspec_source import FsspecSource
from cloud_optimized_dicom.ingest.http_source import HttpSource
from cloud_optimized_dicom.ingest.source_kinds import FileSource, ObjectSource, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.hints import Hints
    from cloud_optimized_dicom.model import DicomFacts
    from cloud_optimized_dicom.ranges import ByteRange

_COPY_BYTES = 1 << 20
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
    HintMismatchError
        If a hint does not describe it.
    """
    with source.open() as stream:
        facts = inspect_dicom(stream, source.uri, bulk_data_uri=relative_uri)
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
    The pattern holds unescaped quotes, so no text value of a JSON document can match it.
    """
    return header.replace(_RELATIVE, b'"BulkDataURI":"' + base.encode("utf-8") + b"?offset=")


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
        return source.fetched(directory)
    if not isinstance(source, ObjectSource):
        return source
    with tempfile.NamedTemporaryFile(dir=directory, suffix=".dcm", delete=False) as copy:
        path = Path(copy.name)
        try:
            for chunk in source.store.iter_chunks(source.name, source.span, version=source.version):
                check()
                copy.write(chunk)
        except BaseException:
            path.unlink()
            raise
    return FileSource(source.uri, path, source.size, source.crc32c)


def copied(source: Source, directory: Path) -> Path:
    """Return a local file with the bytes of a source: its own file, or a copy in `directory`."""
    local = fetched(source, directory)
    if local.local_path is not None:
        return local.local_path
    try:
        with local.open() as stream, tempfile.NamedTemporaryFile(dir=directory, suffix=".dcm", delete=False) as copy:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
            return Path(copy.name)
    except OSError as error:
        raise InstanceValidationError(source.uri, error.strerror or "cannot be copied") from error
