"""Mending what can be mended without guessing, as a commit like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import CODError, LockAcquisitionError, StaleReadError, StorageError
from cloud_optimized_dicom.format.dicom_json import pack_header
from cloud_optimized_dicom.format.metadata.document import Change
from cloud_optimized_dicom.format.metadata.record import VERSION, dump_record
from cloud_optimized_dicom.format.offsets.codec import dump_offset_tables
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.lock.record import ObjectState
from cloud_optimized_dicom.model import InstanceRecord, TarState
from cloud_optimized_dicom.series.maintenance import recover_series
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.tar_check import Findings, TarCheck, VerifyOptions, inspected
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.series.verify import records_in_tar_order
from cloud_optimized_dicom.uids import NestedUri, is_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloud_optimized_dicom.model import DicomFacts
    from cloud_optimized_dicom.series.tar_check import Orphan
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey


_RECOVERED = {
    "finished": "the commit that a dead writer had decided was finished",
    "swept": "what a dead writer left was swept",
}


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What a repair or migration did, or would do, a line each; `reason`: why it could not, `busy`: a writer was."""

    series_uri: str
    actions: tuple[str, ...] = ()
    reason: str | None = None
    busy: bool = False


def repair_series(store: ObjectStore, key: SeriesKey, *, wait_seconds: float = 0) -> RepairResult:
    """Mend a series: finish and sweep, record orphans, rebuild older writers' frame tables, add missing checksums.

    Notes
    -----
    What was wrong with *bytes* stays and is said by a verification: nothing is guessed.  An orphan is recorded if it is
    a DICOM instance of this series whose UID is not taken.
    """
    uri = store.url_of(key.folder)
    recovered = recover_series(store, key, wait_seconds=wait_seconds)
    if recovered.outcome in {"busy", "failed"}:
        return RepairResult(uri, (), recovered.reason, busy=recovered.outcome == "busy")
    actions = [] if recovered.outcome == "nothing" else [_RECOVERED[recovered.outcome]]
    options = TransactionOptions(create_if_missing=False, lock=LockOptions(wait_seconds=wait_seconds))
    result = commit_staged(store, key, options, lambda transaction: _Repair(transaction).stage())
    return replace(result, actions=(*actions, *result.actions))


def commit_staged(
    store: ObjectStore, key: SeriesKey, options: TransactionOptions, stage: Callable[[Transaction], list[str]]
) -> RepairResult:
    """Commit what is staged on a series; nothing is committed where the options leave it unlocked.

    Parameters
    ----------
    stage
        Stages changes and returns a line for each.
    """
    uri = store.url_of(key.folder)
    try:
        transaction = Transaction.begin(store, key, options)
        try:
            actions = stage(transaction)
        except BaseException:
            transaction.rollback()
            raise
        if options.locked:
            transaction.commit()
    except LockAcquisitionError as error:
        return RepairResult(uri, (), str(error), busy=True)
    except CODError as error:
        return RepairResult(uri, (), f"{type(error).__name__}: {error}")
    return RepairResult(uri, tuple(actions))


class Mending:
    """What may be staged on a series so that its records say what its bytes are."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._document = transaction.base.document

    def _checked(self, tar: ObjectInfo, findings: Findings) -> tuple[list[InstanceRecord], TarCheck]:
        """Read the whole tar; return the records in its order, and the check that was made."""
        records = records_in_tar_order(self._document, findings)
        check = TarCheck(self._reader(), tar, records, findings)
        check.run(VerifyOptions())
        return records, check

    def _reader(self, orphan: InstanceRecord | None = None) -> SeriesReader:
        """Return a reader of what the holder of the lock found, as if an orphan had its record already."""
        base, series = self._transaction.base, self._transaction.series
        adopted = base.adopted
        tar = TarState(adopted.version, adopted.size, adopted.crc32c or 0) if adopted is not None else None
        document = base.document.with_tar(tar) if tar is not None else base.document
        if orphan is not None:
            document = document.applied(Change({orphan.name_uid: dump_record(orphan)}), None, "repair")
        return SeriesReader(series.store, series.key, document, base.metadata.version if base.metadata else "")

    def _mend_table(self, record: InstanceRecord) -> str:
        table = record.frame_table
        if not record.has_pixeldata or (table is not None and table.trusted and table.crc32cs is not None):
            return ""
        facts = find_facts(self._reader(), record)
        if facts is None or facts.frame_table is None or facts.frame_table == table:
            return ""
        raw = dict(self._document.instances[record.name_uid])
        raw["offset_tables"] = dump_offset_tables(facts.frame_table)
        self._transaction.touch(record.name_uid, raw)
        return f"instance {record.name_uid}: frame table rebuilt, {len(facts.frame_table)} frames"

    def _record_tar(self, tar: ObjectInfo) -> str:
        recorded = self._document.tar
        if recorded is not None and recorded.generation == tar.version:
            return ""
        crc = self._transaction.series.tar_crc32c(tar)
        self._transaction.adopt(ObjectState(tar.version, tar.size, crc))
        return "the tar's generation, size and CRC32C were recorded"


class _Repair(Mending):
    def stage(self) -> list[str]:
        """Stage every repair; return what was done."""
        tar = self._transaction.base.tar
        if tar is None:
            return []
        findings = Findings()
        records, check = self._checked(tar, findings)
        damaged = {finding.subject for finding in findings.found if finding.damage}
        actions = [self._mend_table(record) for record in records if record.name_uid not in damaged]
        whole = [orphan for orphan in check.orphans if orphan.span.stop <= tar.size]
        actions += [self._record_orphan(place) for place in self._places(whole, tar)]
        if not damaged:  # a checksum of damaged bytes would vouch for them
            actions.append(self._record_tar(tar))
        return [action for action in actions if action]

    def _places(self, orphans: Iterable[Orphan], tar: ObjectInfo) -> list[InstanceRecord]:
        """Return where orphans lie that may be recorded: each UID once, and none where members of one name differ."""
        found: dict[str, list[InstanceRecord]] = {}
        for orphan in orphans:
            uid = NestedUri("", orphan.name).instance_uid
            if is_uid(uid) and uid not in self._document.instances and not self._document.hashed_uids:
                found.setdefault(uid, []).append(self._place(uid, orphan, tar))
        return [places[0] for places in found.values() if len({place.identity for place in places}) == 1]

    def _place(self, uid: str, orphan: Orphan, tar: ObjectInfo) -> InstanceRecord:
        """Return a record that says where an orphan lies; its CRC32C is that of what lies there now."""
        key, series = self._transaction.series.key, self._transaction.series
        crc = 0
        for chunk in series.store.iter_chunks(key.tar, orphan.span, version=tar.version):
            crc = checksum.crc32c(chunk, crc)
        return InstanceRecord(
            name_uid=uid,
            instance_uid=uid,
            series_uid=key.series_uid,
            study_uid=key.study_uid,
            has_pixeldata=False,
            start=orphan.span.start,
            size=len(orphan.span),
            crc32c=crc,
            uri=f"{series.tar_uri}://{orphan.name}",
            packed_header="",
            frame_table=None,
            version=VERSION,
        )

    def _record_orphan(self, place: InstanceRecord) -> str:
        facts = find_facts(self._reader(place), place)
        if facts is None:
            return ""
        found, claimed = ((it.instance_uid, it.series_uid, it.study_uid) for it in (facts, place))
        if found != claimed:
            return ""
        self._transaction.touch(place.name_uid, _record_of(place, facts))
        return f"instance {place.name_uid}: recorded, it was in the tar only"


def find_facts(reader: SeriesReader, record: InstanceRecord) -> DicomFacts | None:
    """Return what an ingest would measure on what lies in the tar; None if that is no DICOM instance."""
    try:
        return inspected(reader, record)
    except (StorageError, StaleReadError):
        raise  # says nothing about the bytes
    except CODError:
        return None


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
