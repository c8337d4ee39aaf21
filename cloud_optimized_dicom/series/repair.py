"""Mending what can be mended without guessing, as a commit like any other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import CODError, LockAcquisitionError
from cloud_optimized_dicom.format.dicom_json import pack_header
from cloud_optimized_dicom.format.metadata.record import VERSION, dump_record
from cloud_optimized_dicom.format.offsets.codec import dump_offset_tables
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.lock.record import ObjectState
from cloud_optimized_dicom.model import InstanceRecord
from cloud_optimized_dicom.series.maintenance import recover_series
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.tar_check import Findings, TarCheck, VerifyOptions, inspected
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.series.verify import records_in_tar_order
from cloud_optimized_dicom.uids import NestedUri, is_uid

if TYPE_CHECKING:
    from cloud_optimized_dicom.model import DicomFacts
    from cloud_optimized_dicom.series.tar_check import Orphan
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What a repair did, one line each; `reason` says why it did nothing where it could not."""

    series_uri: str
    actions: tuple[str, ...] = ()
    reason: str | None = None


def repair_series(store: ObjectStore, key: SeriesKey, *, wait_seconds: float = 0) -> RepairResult:
    """Mend a series: finish and sweep, record orphans, rebuild older writers' frame tables, add missing checksums.

    Notes
    -----
    What was wrong with *bytes* stays and is said by a verification: nothing is guessed.  An orphan is recorded if it is
    a DICOM instance of this series whose UID is not taken.
    """
    uri = store.url_of(key.folder)
    recovered = recover_series(store, key)
    actions = [] if recovered.outcome == "nothing" else [f"recovery: {recovered.outcome}"]
    options = TransactionOptions(create_if_missing=False, lock=LockOptions(wait_seconds=wait_seconds))
    try:
        transaction = Transaction.begin(store, key, options)
        try:
            actions += _Repair(transaction).stage()
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()
    except LockAcquisitionError as error:
        return RepairResult(uri, tuple(actions), str(error))
    except CODError as error:
        return RepairResult(uri, tuple(actions), f"{type(error).__name__}: {error}")
    return RepairResult(uri, tuple(actions))


class _Repair:
    def __init__(self, transaction: Transaction) -> None:
        base = transaction.base
        self._transaction = transaction
        self._document = base.document
        version = base.metadata.version if base.metadata else ""
        self._reader = SeriesReader(transaction.series.store, transaction.series.key, base.document, version)

    def stage(self) -> list[str]:
        """Stage every repair; return what was done."""
        tar = self._transaction.base.tar
        if tar is None:
            return []
        findings = Findings()
        records = records_in_tar_order(self._document, findings)
        check = TarCheck(self._reader, tar, records, findings)
        check.run(VerifyOptions())
        damaged = {finding.subject for finding in findings.found if finding.damage}
        actions = [self._mend_table(record) for record in records if record.name_uid not in damaged]
        actions += [self._record_orphan(orphan) for orphan in check.orphans]
        actions.append(self._record_tar(tar))
        return [action for action in actions if action]

    def _mend_table(self, record: InstanceRecord) -> str:
        table = record.frame_table
        if not record.has_pixeldata or (table is not None and table.trusted and table.crc32cs is not None):
            return ""
        facts = inspected(self._reader, record)
        if facts.frame_table is None or facts.frame_table == table:
            return ""
        raw = dict(self._document.instances[record.name_uid])
        raw["offset_tables"] = dump_offset_tables(facts.frame_table)
        self._transaction.touch(record.name_uid, raw)
        return f"instance {record.name_uid}: frame table rebuilt, {len(facts.frame_table)} frames"

    def _record_orphan(self, orphan: Orphan) -> str:
        uid = NestedUri("", orphan.name).instance_uid
        if not is_uid(uid) or uid in self._document.instances or self._transaction.find(uid) is not None:
            return ""
        place = self._placeholder(uid, orphan)
        try:
            facts = inspected(self._reader, place)
        except CODError:
            return ""
        key = self._transaction.series.key
        if self._document.hashed_uids or (facts.study_uid, facts.series_uid) != (key.study_uid, key.series_uid):
            return ""
        if facts.instance_uid != uid:
            return ""
        self._transaction.touch(uid, _record_of(place, facts))
        return f"instance {uid}: recorded, it was in the tar only"

    def _placeholder(self, uid: str, orphan: Orphan) -> InstanceRecord:
        """Return a record that says where an orphan lies; its CRC32C is that of what lies there now."""
        key, series = self._transaction.series.key, self._transaction.series
        data = series.store.iter_chunks(key.tar, orphan.span, version=self._reader.generation)
        crc = 0
        for chunk in data:
            crc = checksum.crc32c(chunk, crc)
        uri = f"{series.tar_uri}://{orphan.name}"
        return InstanceRecord(
            name_uid=uid,
            instance_uid=uid,
            series_uid=key.series_uid,
            study_uid=key.study_uid,
            has_pixeldata=False,
            start=orphan.span.start,
            size=len(orphan.span),
            crc32c=crc,
            uri=uri,
            packed_header="",
            frame_table=None,
            version=VERSION,
        )

    def _record_tar(self, tar: ObjectInfo) -> str:
        recorded = self._document.tar
        if recorded is not None and recorded.generation == tar.version:
            return ""
        crc = self._transaction.series.tar_crc32c(tar)
        self._transaction.adopt(ObjectState(tar.version, tar.size, crc))
        return "the tar's generation, size and CRC32C were recorded"


def _record_of(place: InstanceRecord, facts: DicomFacts) -> dict[str, Any]:
    record = InstanceRecord(
        name_uid=place.name_uid,
        instance_uid=facts.instance_uid,
        series_uid=facts.series_uid,
        study_uid=facts.study_uid,
        has_pixeldata=facts.has_pixeldata,
        start=place.start,
        size=place.size,
        crc32c=place.crc32c,
        uri=place.uri,
        packed_header=pack_header(facts.header),
        frame_table=facts.frame_table,
        version=VERSION,
        original_path=place.uri,
        modified=datetime.now(UTC),
    )
    return dump_record(record)
