"""A series that is being edited: its local files, and what is staged of them in the end."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.checksum import crc32c_of_stream
from cloud_optimized_dicom.edit.thumbnail import Edited, settle_thumbnail
from cloud_optimized_dicom.errors import EditSetChangedError, InstanceValidationError
from cloud_optimized_dicom.events import HeaderProblem, emit
from cloud_optimized_dicom.format.metadata.record import VERSION, dump_record
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.source_kinds import FileSource, text_of
from cloud_optimized_dicom.ingest.workshop import Job, Workshop
from cloud_optimized_dicom.series.extract import extract
from cloud_optimized_dicom.storage.payload import FilePayload
from cloud_optimized_dicom.uids import check_uid, member_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cloud_optimized_dicom.events import Hook
    from cloud_optimized_dicom.ingest.workshop import Prepared
    from cloud_optimized_dicom.model import DicomFacts, InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.series.transaction import Transaction

_OF_THE_SOURCE = frozenset({"source_crc32c", "source_size"})


class SeriesEdit:
    """A series whose instances lie in local files, each of which may be rewritten until the edit is staged.

    Parameters
    ----------
    transaction
        Of the series; besides the edit, only fields are staged in it.
    reader
        Of the series as the transaction found it.
    directory
        For the files.  All instances are fetched into it now, by parallel requests.

    Raises
    ------
    HashMismatchError
        If stored bytes are not those that were ingested.
    """

    def __init__(self, transaction: Transaction, reader: SeriesReader, directory: Path) -> None:
        self._transaction, self._reader, self._directory = transaction, reader, directory
        extract(reader, self.records(), directory)

    # -- for what edits a series from within the package: find the files, rewrite them, leave a field about it

    def records(self) -> Iterator[InstanceRecord]:
        """Yield the records of all instances, as they are stored."""
        return self._transaction.base.document.iter_records()

    def path(self, uid: str) -> Path:
        """Return the local file of the instance that is stored under a UID."""
        return self._directory / f"{check_uid(uid, 'instance')}.dcm"

    def find_field(self, name: str) -> Any:
        """Return a copy of a field of the document as it would be committed now, or None."""
        return copy.deepcopy(self._transaction.document.find_field(name))

    def set_field(self, name: str, value: Any) -> None:
        """Stage a field of the document; `ValueError` if it is no JSON value."""
        self._transaction.set_field(name, value)

    # -- what becomes of it

    def stage(self, hooks: Iterable[Hook] = ()) -> None:
        """Stage every instance whose file is not what is stored any more.

        Raises
        ------
        EditSetChangedError
            If the files do not hold exactly the instances of the series, each with its study and series UID.
        InstanceValidationError
            If a file is gone, or is no DICOM instance that can be stored; the error names it.

        Notes
        -----
        A file is unchanged if its size and CRC32C are.  Files whose contents have changed places are as well.
        """
        changed = [record for record in self.records() if not self._holds(self.path(record.name_uid), record)]
        if not changed:
            return
        found = self._measured(changed)
        edited = []
        for uid, owner in self._owners(changed, found).items():
            one = Edited(owner, found[uid])
            if (one.payload.size, one.payload.crc32c) == (owner.size, owner.crc32c):  # another's file until now
                self._transaction.have(owner.name_uid, one.payload)
            else:
                edited.append(one)
        raws = self._transaction.document.instances
        for one in edited:
            self._stage_one(one, raws[one.record.name_uid])
            for problem in one.prepared.facts.problems:
                emit(hooks, HeaderProblem(one.prepared.source.uri, problem))
        settle_thumbnail(self._transaction, self._reader, edited)

    def _holds(self, path: Path, record: InstanceRecord) -> bool:
        """Return whether a file holds the stored bytes of an instance; if so, the store need not be asked for them."""
        source = FileSource(text_of(path), path)
        try:
            if path.stat().st_size != record.size:
                return False
        except FileNotFoundError:
            raise InstanceValidationError(source.uri, "is gone; an edit keeps every instance") from None
        with source.open() as stream:
            crc, size = crc32c_of_stream(stream)
        if (size, crc) != (record.size, record.crc32c):
            return False
        self._transaction.have(record.name_uid, FilePayload(path, size, crc))
        return True

    def _measured(self, changed: Sequence[InstanceRecord]) -> dict[str, Prepared]:
        """Return what is in the files of some instances, by the UID that is the file's name."""
        names = {record.instance_uid: record.name_uid for record in changed}

        def job(record: InstanceRecord) -> Job:
            path = self.path(record.name_uid)
            return Job(FileSource(text_of(path), path), Hints(), partial(uri_of, record))

        def uri_of(record: InstanceRecord, facts: DicomFacts) -> str:
            return self._uri(names.get(facts.instance_uid, record.name_uid))

        found: dict[str, Prepared] = {}
        with Workshop(self._directory) as workshop:
            for record, prepared in workshop.prepare_all(changed, job):
                if isinstance(prepared, Exception):
                    raise prepared
                if prepared is not None:
                    found[record.name_uid] = prepared
        return found

    def _uri(self, name_uid: str) -> str:
        return member_uri(self._reader.tar_uri, name_uid)

    def _owners(self, changed: Sequence[InstanceRecord], found: Mapping[str, Prepared]) -> Mapping[str, InstanceRecord]:
        """Return the record of the instance that each file holds now, by the UID that is the file's name."""
        facts = {record.name_uid: found[record.name_uid].facts for record in changed}
        before = {record.instance_uid: record for record in changed}
        after = {one.instance_uid for one in facts.values()}
        moved = [record.instance_uid for record in changed if _group(facts[record.name_uid]) != _group(record)]
        if after != before.keys() or moved:
            added = after - {record.instance_uid for record in self.records()}
            uri = self._reader.store.url_of(self._reader.key.folder)
            raise EditSetChangedError(uri, sorted(added), sorted(before.keys() - after), sorted(moved))
        return {uid: before[one.instance_uid] for uid, one in facts.items()}

    def _stage_one(self, edited: Edited, raw: Mapping[str, Any]) -> None:
        facts = edited.prepared.facts
        record = replace(
            edited.record,
            has_pixeldata=facts.has_pixeldata,
            size=facts.size,
            crc32c=facts.crc32c,
            uri=self._uri(edited.record.name_uid),
            packed_header=edited.prepared.packed_header,
            frame_table=facts.frame_table,
            version=VERSION,
            modified=datetime.now(UTC),
            # What was given is not what is stored any more: offered again, it is another file under the same UID.
            source_size=None,
            source_crc32c=None,
        )
        kept = {name: value for name, value in raw.items() if name not in _OF_THE_SOURCE}
        self._transaction.edit(record.name_uid, edited.payload, kept | dump_record(record))


def _group(item: InstanceRecord | DicomFacts) -> tuple[str, str]:
    return item.study_uid, item.series_uid
