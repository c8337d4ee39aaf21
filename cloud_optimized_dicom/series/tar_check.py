"""The bytes of a tar against the records that describe it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.checksum import combine_all, crc32c
from cloud_optimized_dicom.dicom.frames import build_frame_table
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.errors import CODError, StaleReadError, StorageError
from cloud_optimized_dicom.format.dicom_json import PIXEL_DATA_TAGS, unpack_header
from cloud_optimized_dicom.format.tar import BLOCK_BYTES, is_zero_block, padded, parse_member_header
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.findings import Finding, Kind
from cloud_optimized_dicom.series.packing import TarWindow
from cloud_optimized_dicom.series.state import describes
from cloud_optimized_dicom.uids import member_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloud_optimized_dicom.model import DicomFacts, FrameTable, InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.storage.base import ObjectInfo

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class VerifyOptions:
    """How far a verification goes.

    Parameters
    ----------
    deep
        Also read every DICOM file again as an ingest would, and compare UIDs, header and frame table with the record.
    sample
        Check only so many instances of a series, always the same ones; the rest of the tar is then not read.
    """

    deep: bool = False
    sample: int | None = None


@dataclass
class Findings:
    """What was found so far."""

    found: list[Finding] = field(default_factory=list)

    def damage(self, kind: Kind, subject: str, detail: str) -> None:
        """Note that bytes are wrong or missing."""
        self.found.append(Finding(kind, subject, detail, damage=True))

    def odd(self, kind: Kind, subject: str, detail: str) -> None:
        """Note something that is no damage."""
        self.found.append(Finding(kind, subject, detail, damage=False))


class Orphan(NamedTuple):
    """A member of a tar that no record names: its name and where its data lies."""

    name: str
    span: ByteRange


class TarCheck:
    """One pass over a tar, front to back.

    Parameters
    ----------
    records
        In the order of the tar.
    """

    def __init__(
        self, reader: SeriesReader, tar: ObjectInfo, records: list[InstanceRecord], findings: Findings
    ) -> None:
        self._reader, self._tar, self._records, self._findings = reader, tar, records, findings
        self._window = TarWindow(reader.store, reader.key.tar, tar.version, tar.size)
        self.orphans: list[Orphan] = []

    def run(self, options: VerifyOptions) -> int:
        """Check the tar; return how many bytes of instances were compared with their checksums."""
        if options.sample is not None and options.sample < len(self._records):
            return self._run_sample(options)
        return self._run_all(options)

    def _run_sample(self, options: VerifyOptions) -> int:
        recorded, store, key = self._reader.document.tar, self._reader.store, self._reader.key
        moved_on = recorded is not None and self._tar.version != recorded.generation
        if recorded is not None and moved_on and not describes(recorded, store, key, self._tar):
            self._tar_changed()
        chosen = random.Random(key.series_uid).sample(self._records, options.sample or 0)  # noqa: S311 - no secret
        return sum(self._check(record, options)[1] for record in chosen if self._is_inside(record))

    def _run_all(self, options: VerifyOptions) -> int:
        pieces: list[tuple[int, int]] = []
        end = checked = 0
        for record in self._records:
            if not self._is_inside(record):
                continue
            if record.start < end:
                self._findings.damage("member-mismatch", record.name_uid, "overlaps the member before it")
            else:
                pieces.append(self._gap(end, record.start))
            piece = self._check(record, options)
            pieces.append(piece)
            checked += piece[1]
            end = record.span.stop
        pieces.append(self._gap(end, self._tar.size, at_end=True))
        recorded = self._reader.document.tar
        if recorded is not None and combine_all(pieces) != (recorded.crc32c, recorded.size):
            self._tar_changed()
        return checked

    def _tar_changed(self) -> None:
        detail = "the tar's bytes are not those that the metadata was written for"
        self._findings.damage("tar-changed", self._reader.key.tar, detail)

    # -- one instance

    def _is_inside(self, record: InstanceRecord) -> bool:
        if record.span.stop <= self._tar.size:
            return True
        detail = f"the tar ends at {self._tar.size}, the instance at {record.span.stop}"
        self._findings.damage("tar-too-short", record.name_uid, detail)
        return False

    def _check(self, record: InstanceRecord, options: VerifyOptions) -> tuple[int, int]:
        """Check one instance; return the CRC32C and size of its bytes."""
        self._check_member(record)
        crc = self._crc32c(record.span)
        if crc != record.crc32c:
            self._findings.damage("checksum-mismatch", record.name_uid, "the stored bytes have another CRC32C")
            return crc, record.size
        if record.frame_table is not None:
            self._check_frames(record, record.frame_table)
        if options.deep:
            self._check_content(record)
        return crc, record.size

    def _check_member(self, record: InstanceRecord) -> None:
        header = None
        if record.start >= BLOCK_BYTES:
            header = parse_member_header(self._window.read(ByteRange(record.start - BLOCK_BYTES, record.start)))
        if header is None or (header.name, header.size) != (member_name(record.name_uid), record.size):
            detail = f"no member of its name and size ends its header at {record.start}"
            self._findings.damage("member-mismatch", record.name_uid, detail)

    def _check_frames(self, record: InstanceRecord, table: FrameTable) -> None:
        if not table.trusted:
            self._check_legacy(record, table)
            return
        if not table.rangeable:
            return  # its positions are in the inflated file; the whole file's checksum has just been compared
        for frame, expected in enumerate(table.crc32cs or ()):
            span = table.span(frame)
            if span.stop > record.size or self._crc32c(span.shifted(record.start)) != expected:
                detail = f"frame {frame} is not where its table says"
                self._findings.damage("frame-table-damaged", record.name_uid, detail)
                return

    def _check_legacy(self, record: InstanceRecord, table: FrameTable) -> None:
        try:
            with self._reader.open_instance(record) as stream:
                rebuilt = build_frame_table(stream, f"instance {record.name_uid}")
        except (StorageError, StaleReadError):
            raise  # says nothing about the bytes
        except CODError as error:
            self._findings.odd("frame-table-legacy", record.name_uid, f"cannot be rebuilt: {type(error).__name__}")
            return
        if rebuilt is None or (rebuilt.offsets, rebuilt.lengths) != (table.offsets, table.lengths):
            detail = "an older writer's frame table is wrong; readers rebuild it"
            self._findings.odd("frame-table-legacy", record.name_uid, detail)

    def _check_content(self, record: InstanceRecord) -> None:
        try:
            facts = inspected(self._reader, record)
            wrong = list(_differences(record, facts))
        except (StorageError, StaleReadError):
            raise  # says nothing about the bytes
        except (CODError, ValueError) as error:
            wrong = [f"cannot be read as it was when it was stored: {type(error).__name__}"]
        for what in wrong:
            self._findings.damage("content-mismatch", record.name_uid, what)

    # -- between instances

    def _gap(self, start: int, stop: int, *, at_end: bool = False) -> tuple[int, int]:
        """Look at what lies between two instances, or behind the last; return its CRC32C and size."""
        gap = ByteRange(start, max(start, stop))
        position = padded(start)
        while position + BLOCK_BYTES <= stop:
            block = self._window.read(ByteRange.of(position, BLOCK_BYTES))
            member = parse_member_header(block)
            if member is None:
                if is_zero_block(block) and not at_end:
                    detail = f"end-of-archive blocks at {position} hide what follows from other tools"
                    self._findings.damage("end-blocks-inside", self._reader.key.tar, detail)
                    break
                position += BLOCK_BYTES
                continue
            position += BLOCK_BYTES
            if not member.is_extension and position < stop:  # the last header of a gap is that of what follows
                self._orphan(Orphan(member.name, ByteRange.of(position, member.size)))
            position += padded(member.size)
        return self._crc32c(gap), len(gap)

    def _orphan(self, orphan: Orphan) -> None:
        self.orphans.append(orphan)
        detail = f"{len(orphan.span)} bytes at {orphan.span.start} that no record names"
        self._findings.odd("orphan-member", self._reader.key.tar, detail)

    # -- bytes

    def _crc32c(self, span: ByteRange) -> int:
        crc = 0
        for chunk in self._chunks(span):
            crc = crc32c(chunk, crc)
        return crc

    def _chunks(self, span: ByteRange) -> Iterator[bytes]:
        for start in range(span.start, span.stop, _CHUNK_BYTES):
            yield self._window.read(ByteRange(start, min(span.stop, start + _CHUNK_BYTES)))


def inspected(reader: SeriesReader, record: InstanceRecord) -> DicomFacts:
    """Return what an ingest would measure on a stored instance, its bulk data URIs naming the stored file."""

    def bulk_data_uri(_instance_uid: str, span: ByteRange) -> str:
        return f"{record.uri}?offset={span.start}&length={len(span)}"

    with reader.open_instance(record) as stream:
        return inspect_dicom(stream, record.uri, bulk_data_uri=bulk_data_uri)


def _differences(record: InstanceRecord, facts: DicomFacts) -> Iterator[str]:
    found = facts.instance_uid, facts.series_uid, facts.study_uid, facts.has_pixeldata
    if found != (record.instance_uid, record.series_uid, record.study_uid, record.has_pixeldata):
        yield "the record's UIDs or its pixel data flag are not the file's"
    recorded = unpack_header(record.packed_header)
    ours = _is_ours(recorded)
    table = record.frame_table
    # An older writer's table is not believed anyway; one that an older writer did not make is no difference.
    if (table.trusted if table is not None else ours) and table != facts.frame_table:
        yield "the record's frame table is not the file's"
    found = json.loads(facts.header)
    if recorded != found and (ours or not _agrees(recorded, found)):
        yield "the record's header is not the file's"


def _is_ours(header: Mapping[str, Any]) -> bool:
    """Return whether a header is certainly none of an older writer: those have pixel data as an object, or inline."""
    elements = [header.get(tag) for tag in PIXEL_DATA_TAGS]
    return any(isinstance(element, dict) and isinstance(element.get("BulkDataURI"), str) for element in elements)


def _agrees(recorded: Any, found: Any) -> bool:
    """Return whether a header of an older writer may be that of a file.

    Notes
    -----
    Such a header lacks what its writer could not keep, and has bulk data as an object or inline.
    """
    if isinstance(recorded, dict) and isinstance(found, dict):
        if isinstance(found.get("BulkDataURI"), str):
            return bool(recorded.get("vr") == found.get("vr"))
        return all(name in found and _agrees(value, found[name]) for name, value in recorded.items())
    if isinstance(recorded, list) and isinstance(found, list):
        return len(recorded) == len(found) and all(map(_agrees, recorded, found))
    return bool(recorded == found)
