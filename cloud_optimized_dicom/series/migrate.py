"""Series of older writers brought to the present format, each by one commit; no byte of an instance changes.

Or to the older one, for readers that know no other: records of version 1 then, all else as in the present one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from cloud_optimized_dicom.errors import CODError, ErrorLogExistsError
from cloud_optimized_dicom.format.dicom_json import pack_header
from cloud_optimized_dicom.format.metadata.record import VERSION
from cloud_optimized_dicom.format.metadata.versions import INLINE_VERSION, as_version, must_convert
from cloud_optimized_dicom.format.offsets.codec import dump_offset_tables
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.series.findings import VerifyReport
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.series.repair import Mending, RepairResult, commit_staged, find_facts
from cloud_optimized_dicom.series.seal import END_BYTES
from cloud_optimized_dicom.series.tar_check import Findings
from cloud_optimized_dicom.series.transaction import TransactionOptions
from cloud_optimized_dicom.series.verify import raise_first_damage

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.transaction import Transaction
    from cloud_optimized_dicom.storage.base import ObjectInfo, ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey


MetadataVersion = Literal["v1", "v2"]
_RECORD_VERSIONS = {"v1": INLINE_VERSION, "v2": VERSION}


def migrate_series(
    store: ObjectStore,
    key: SeriesKey,
    *,
    to: MetadataVersion | None = None,
    dry_run: bool = False,
    wait_seconds: float = 0,
) -> RepairResult:
    """Bring a series of an older writer to the present format, by one commit.

    Parameters
    ----------
    to
        "v1": with records of version 1, and later ones too, for readers that know no other.  "v2": with records of
        version 2, where somebody asked for version 1 before.  None: version 2, unless somebody did.
    dry_run
        Take no lock and write nothing; the result's `actions` are what would be done.

    Notes
    -----
    Records of version 1 become version 2, with the header as an ingest would write it; frame tables of older writers
    are rebuilt, missing checksums of frames and of the tar added, end-of-archive blocks dropped.  Instances stay as
    they are, byte for byte and in their places, and what nobody knows in the document stays, too.  So do the blocks of
    a series that was sealed.

    A series that needs nothing of this costs one read and one state; one that does is read whole first, and is left as
    it is if anything in it is damaged or a writer holds it.  Nothing but the document is read where only the version
    of the records changes; version 2 again gives the records that there were before version 1.
    """
    uri = store.url_of(key.folder)
    try:
        document, _ = read_document(store, key)
        if document.record_version == _wanted_version(document, to) and not _is_older(document, store.find(key.tar)):
            return RepairResult(uri)
        if dry_run and store.find(key.error_log) is not None:
            raise ErrorLogExistsError(store.url_of(key.error_log))
    except CODError as error:
        return RepairResult(uri, (), f"{type(error).__name__}: {error}")
    options = TransactionOptions(
        create_if_missing=False, locked=not dry_run, lock=LockOptions(wait_seconds=wait_seconds)
    )
    return commit_staged(store, key, options, lambda transaction: _Migration(transaction, to).stage())


def _wanted_version(document: SeriesDocument, to: MetadataVersion | None) -> str:
    if to is None:
        return document.record_version
    if to not in _RECORD_VERSIONS:
        raise ValueError(f"metadata are brought to v1 or v2, not to {to!r}")
    return _RECORD_VERSIONS[to]


def _is_older(document: SeriesDocument, tar: ObjectInfo | None) -> bool:
    """Return whether anything about a series may be of an older writer: none of its bytes are read."""
    if tar is None:
        return bool(document.instances)  # damage, which staging names
    recorded = document.tar
    if recorded is None or recorded.generation != tar.version:
        return True
    if tar.size != document.members_end and not _is_sealed(document, tar):
        return True
    return any(not _is_ours(document, record) for record in document.iter_records())


def _is_sealed(document: SeriesDocument, tar: ObjectInfo) -> bool:
    """Return whether the end-of-archive blocks of a tar are those that a caller had us write."""
    return document.tar is not None and tar.size - document.members_end == END_BYTES


def _is_ours(document: SeriesDocument, record: InstanceRecord) -> bool:
    table = record.frame_table
    lacks_table = record.has_pixeldata and (table is None or not table.trusted or table.crc32cs is None)
    return _is_present(document, record) and not lacks_table


def _is_present(document: SeriesDocument, record: InstanceRecord) -> bool:
    """Return whether a record is not of an older writer: a document of ours says if its records are of version 1."""
    major = record.version.partition(".")[0]
    return major in {VERSION.partition(".")[0], document.record_version.partition(".")[0]}


class _Migration(Mending):
    def __init__(self, transaction: Transaction, to: MetadataVersion | None) -> None:
        super().__init__(transaction)
        self._version = _wanted_version(self._document, to)

    def stage(self) -> list[str]:
        """Stage the whole migration; return what it does.

        Raises
        ------
        TarValidationError
            If anything is damaged: a new checksum would vouch for it.
        MetadataError
            If a record cannot be of the version that is asked for.
        """
        tar = self._transaction.base.tar
        actions = self._stage_facts(tar) if tar is not None and _is_older(self._document, tar) else []
        return actions + self._stage_version()

    def _stage_version(self) -> list[str]:
        if self._document.record_version == self._version:
            return []
        staged = self._transaction.document
        count = sum(must_convert(staged.uri, uid, raw, self._version) for uid, raw in staged.instances.items())
        self._transaction.set_record_version(self._version)
        action = f"{_count(count, 'record')} converted to version {self._version}"
        return [action if self._version == VERSION else f"{action}, as later ones will be"]

    def _stage_facts(self, tar: ObjectInfo) -> list[str]:
        findings = Findings()
        records, _ = self._checked(tar, findings)
        uri, tar_uri = self._reader().store.url_of(self._reader().key.folder), self._reader().tar_uri
        raise_first_damage(VerifyReport(uri, len(records), 0, tuple(findings.found)), tar_uri)
        older = [record for record in records if not _is_present(self._document, record)]
        for record in older:
            self._convert(record)
        present = [record for record in records if _is_present(self._document, record)]
        rebuilt = [record for record in present if self._mend_table(record)]
        what = f"{_count(len(older), 'record')} converted to version {VERSION}"
        if self._version != VERSION:  # which they are only on their way
            what = f"{_count(len(older), 'header')} made anew"
        actions = [what] if older else []
        actions += [f"{_count(len(rebuilt), 'frame table')} rebuilt"] if rebuilt else []
        if not _is_sealed(self._document, tar) and self._transaction.drop_end_blocks():
            return [*actions, "end-of-archive blocks dropped, the tar's generation, size and CRC32C recorded"]
        recorded = self._record_tar(tar)
        return [*actions, recorded] if recorded else actions

    def _convert(self, record: InstanceRecord) -> None:
        """Stage a record of version 1 as one of version 2; what else is in it stays, in its order."""
        raw = self._document.instances[record.name_uid]
        facts = find_facts(self._reader(), record)
        if facts is None:  # nothing that we can read: what was on record is all there is
            self._transaction.touch(record.name_uid, dict(as_version(raw, VERSION)))
            return
        new: dict[str, Any] = {
            "instance_uid": facts.instance_uid,
            "series_uid": facts.series_uid,
            "study_uid": facts.study_uid,
            "has_pixeldata": facts.has_pixeldata,
        }
        changed = {
            "metadata": pack_header(facts.header),
            "offset_tables": dump_offset_tables(facts.frame_table),
            "version": VERSION,
        }
        self._transaction.touch(record.name_uid, new | dict(raw) | changed)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
