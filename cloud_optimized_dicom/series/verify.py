"""Metadata against tar: what is wrong with a series, and what is merely odd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.dicom.frames import build_frame_table
from cloud_optimized_dicom.errors import (
    CODError,
    CODObjectNotFoundError,
    FormatError,
    HashMismatchError,
    TarMissingInstanceError,
    TarValidationError,
)
from cloud_optimized_dicom.format.tar import BLOCK_BYTES, is_zero_block, padded, parse_member_header
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.findings import Finding, Kind, VerifyReport
from cloud_optimized_dicom.series.packing import TarWindow
from cloud_optimized_dicom.series.reader import SeriesReader, describes
from cloud_optimized_dicom.uids import member_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import FrameTable, InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_CHUNK_BYTES = 4 << 20


@dataclass
class _Findings:
    found: list[Finding] = field(default_factory=list)

    def damage(self, kind: Kind, subject: str, detail: str) -> None:
        self.found.append(Finding(kind, subject, detail, damage=True))

    def odd(self, kind: Kind, subject: str, detail: str) -> None:
        self.found.append(Finding(kind, subject, detail, damage=False))


def verify_series(store: ObjectStore, key: SeriesKey) -> VerifyReport:
    """Check a series: every object of it, every record, every byte of the tar.

    Notes
    -----
    Reads the tar once, front to back.  Nothing is changed.  End-of-archive blocks behind the last member are what older
    writers leave, and no finding; blocks between members hide instances from other tools, and are one.
    """
    findings = _Findings()
    _check_folder(store, key, findings)
    try:
        reader = SeriesReader.open(store, key)
    except CODObjectNotFoundError:
        findings.damage("metadata-missing", key.metadata, "there is no metadata.json")
        return VerifyReport(store.url_of(key.folder), 0, 0, tuple(findings.found))
    except FormatError as error:
        findings.damage("metadata-damaged", key.metadata, str(error))
        return VerifyReport(store.url_of(key.folder), 0, 0, tuple(findings.found))
    checked = 0
    records = _records(reader.document, findings)
    tar = store.find(key.tar)
    if tar is None and records:
        findings.damage("tar-missing", key.tar, f"there is no tar for {len(records)} instances")
    elif tar is not None:
        checked = _TarCheck(reader, tar, records, findings).run()
    if not reader.document.instances:
        findings.odd("no-instances", key.metadata, "the series holds no instance")
    return VerifyReport(store.url_of(key.folder), len(reader.document.instances), checked, tuple(findings.found))


def _check_folder(store: ObjectStore, key: SeriesKey, findings: _Findings) -> None:
    for info in store.list(f"{key.folder}/"):
        if info.name == key.lock:
            findings.odd("lock-present", info.name, "a writer is at work, or died: see cod locks")
        elif info.name == key.error_log:
            findings.odd("error-log", info.name, "the series is quarantined")
        elif info.name.startswith(key.pending):
            findings.odd("pending-leftover", info.name, f"{info.size} bytes on their way in, or left by a dead writer")


def _records(document: SeriesDocument, findings: _Findings) -> list[InstanceRecord]:
    records = []
    for uid in document.instances:
        try:
            records.append(document.get(uid))
        except FormatError as error:
            findings.damage("metadata-damaged", uid, str(error))
    return sorted(records, key=lambda record: record.start)


class _TarCheck:
    def __init__(
        self, reader: SeriesReader, tar: ObjectInfo, records: list[InstanceRecord], findings: _Findings
    ) -> None:
        self._reader, self._tar, self._records, self._findings = reader, tar, records, findings
        self._window = TarWindow(reader.store, reader.key.tar, tar.version, tar.size)

    def run(self) -> int:
        """Check everything; return how many bytes of instances were compared with their checksums."""
        recorded = self._reader.document.tar
        name = self._reader.key.tar
        store, key = self._reader.store, self._reader.key
        moved_on = recorded is not None and self._tar.version != recorded.generation
        if recorded is not None and moved_on and not describes(recorded, store, key, self._tar):
            self._findings.damage("tar-changed", name, "the tar is not the one that the metadata was written for")
        end = checked = 0
        for record in self._records:
            if record.span.stop > self._tar.size:
                detail = f"the tar ends at {self._tar.size}, the instance at {record.span.stop}"
                self._findings.damage("tar-too-short", record.name_uid, detail)
                continue
            self._check_gap(end, record.start - BLOCK_BYTES)
            self._check_header(record)
            checked += self._check_bytes(record)
            end = max(end, padded(record.span.stop))
        self._check_gap(end, self._tar.size, at_end=True)
        return checked

    def _check_header(self, record: InstanceRecord) -> None:
        header = None
        if record.start >= BLOCK_BYTES:
            header = parse_member_header(self._window.read(ByteRange(record.start - BLOCK_BYTES, record.start)))
        if header is None or (header.name, header.size) != (member_name(record.name_uid), record.size):
            detail = f"no member of its name and size ends its header at {record.start}"
            self._findings.damage("member-mismatch", record.name_uid, detail)

    def _check_bytes(self, record: InstanceRecord) -> int:
        crc = 0
        for chunk in self._chunks(record.span):
            crc = crc32c(chunk, crc)
        if crc != record.crc32c:
            self._findings.damage("checksum-mismatch", record.name_uid, "the stored bytes have another CRC32C")
        elif record.frame_table is not None:
            self._check_frames(record, record.frame_table)
        return record.size

    def _check_frames(self, record: InstanceRecord, table: FrameTable) -> None:
        if not table.rangeable:
            return  # its positions are in the inflated file; the whole file's checksum has just been compared
        if not table.trusted:
            self._check_legacy(record, table)
            return
        for frame, expected in enumerate(table.crc32cs or ()):
            span = table.span(frame).shifted(record.start)
            crc = 0
            if span in record.span:
                for chunk in self._chunks(span):
                    crc = crc32c(chunk, crc)
            if span not in record.span or crc != expected:
                detail = f"frame {frame} is not where its table says"
                self._findings.damage("frame-table-damaged", record.name_uid, detail)
                return

    def _check_legacy(self, record: InstanceRecord, table: FrameTable) -> None:
        try:
            with self._reader.open_instance(record) as stream:
                rebuilt = build_frame_table(stream, f"instance {record.name_uid}")
        except CODError as error:
            self._findings.odd("frame-table-legacy", record.name_uid, f"cannot be rebuilt: {type(error).__name__}")
            return
        if rebuilt is None or (rebuilt.offsets, rebuilt.lengths) != (table.offsets, table.lengths):
            detail = "an older writer's frame table is wrong; readers rebuild it"
            self._findings.odd("frame-table-legacy", record.name_uid, detail)

    def _check_gap(self, start: int, stop: int, *, at_end: bool = False) -> None:
        """Look at what lies between two members, or behind the last: nothing, another member, or zeros."""
        position = start
        while position + BLOCK_BYTES <= stop:
            block = self._window.read(ByteRange.of(position, BLOCK_BYTES))
            member = parse_member_header(block)
            if member is None:
                if is_zero_block(block) and not at_end:
                    detail = f"end-of-archive blocks at {position} hide what follows from other tools"
                    self._findings.damage("end-blocks-inside", self._reader.key.tar, detail)
                    return
                position += BLOCK_BYTES
                continue
            if not member.is_extension:
                detail = f"{member.size} bytes at {position + BLOCK_BYTES} that no record names"
                self._findings.odd("orphan-member", self._reader.key.tar, detail)
            position += BLOCK_BYTES + padded(member.size)

    def _chunks(self, span: ByteRange) -> Iterator[bytes]:
        for start in range(span.start, span.stop, _CHUNK_BYTES):
            yield self._window.read(ByteRange(start, min(span.stop, start + _CHUNK_BYTES)))


def raise_first_damage(report: VerifyReport, tar_uri: str) -> None:
    """Raise the error that fits the first damage of a report, if there is any.

    Raises
    ------
    HashMismatchError, TarMissingInstanceError, TarValidationError
        By what is damaged.
    """
    for finding in report.findings:
        if not finding.damage:
            continue
        if finding.kind == "checksum-mismatch":
            raise HashMismatchError(tar_uri, finding.subject, "recorded", "another")
        if finding.kind in {"member-mismatch", "tar-too-short", "tar-missing"}:
            raise TarMissingInstanceError(tar_uri, finding.subject, finding.detail)
        raise TarValidationError(tar_uri, finding.detail)
