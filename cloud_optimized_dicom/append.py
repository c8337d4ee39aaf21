"""Appending to an open series: measure, decide, stage.  One bad file never stops the others."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.dicom.transcode.model import Kept, Reason, Recompressed, Target
from cloud_optimized_dicom.errors import CODError, HashedUidsError, InstanceValidationError, SeriesMismatchError
from cloud_optimized_dicom.events import FileDone, HeaderProblem, InstanceRecompressed, Outcome, emit
from cloud_optimized_dicom.format.dicom_json import pack_header
from cloud_optimized_dicom.format.metadata.record import VERSION
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.measure import SourcePayload, check_hints, with_bulk_data_base
from cloud_optimized_dicom.ingest.pixels import Image, show_the_same
from cloud_optimized_dicom.ingest.plan import equal_frames, known_by_hints, plan_instance
from cloud_optimized_dicom.ingest.public_uri import public_uri
from cloud_optimized_dicom.ingest.workshop import Job
from cloud_optimized_dicom.model import InstanceRecord
from cloud_optimized_dicom.series.packing import NewMember
from cloud_optimized_dicom.storage.payload import FilePayload
from cloud_optimized_dicom.uids import member_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloud_optimized_dicom.events import Hook
    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.ingest.workshop import Prepared, Workshop
    from cloud_optimized_dicom.instance import Instance
    from cloud_optimized_dicom.model import DicomFacts
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.series.transaction import Transaction

_log = logging.getLogger(__name__)
GIB = 1 << 30
CONFLICT_REASON = "another file is stored under the same UID; that one stays"


class AppendResult(NamedTuple):
    """The instances of one append, by what became of them.

    Attributes
    ----------
    new
        Staged; visible with the commit.
    same
        Stored already, byte for byte (or pixel for pixel, where that was asked for).
    conflict
        Another file is stored under the same UID; that one stays.
    errors
        Not stored, each with the exception that says why.
    """

    new: list[Instance]
    same: list[Instance]
    conflict: list[Instance]
    errors: list[tuple[Instance, Exception]]


@dataclass(frozen=True)
class AppendOptions:
    """How to append.

    Parameters
    ----------
    treat_metadata_diffs_as_same
        Whether a file with the stored pixel data and another header counts as the same.
    max_instance_bytes
        Larger files are errors.
    max_series_bytes
        A series that would grow beyond it is refused as a whole.
    compress
        What new instances are recompressed to, without loss; None: they are stored as they are.
    """

    treat_metadata_diffs_as_same: bool = False
    max_instance_bytes: float = 10 * GIB
    max_series_bytes: float = 100 * GIB
    compress: Target | None = None


def parse_target(compress: bool | str) -> Target | None:  # noqa: FBT001 - as people write it
    """Return what ``append(compress=...)`` asks for, once it is sure that it can be done.

    Raises
    ------
    ValueError
        If it names nothing known.
    MissingDependencyError
        Without the codec that it needs.
    """
    if compress is False:
        return None
    from cloud_optimized_dicom.dicom.transcode.codecs import require_codec  # noqa: PLC0415 - loads codecs

    try:
        target = Target.JPEG2000 if compress is True else Target(compress)
    except ValueError:
        known = ", ".join(repr(target.value) for target in Target)
        raise ValueError(f"compress must be False, True, {known}, not {compress!r}") from None
    require_codec(target)
    return target


class Appender:
    """Takes instances into a transaction.

    Parameters
    ----------
    reader
        Of the series as it was when the transaction began; None where it did not exist.
    workshop
        Reads the files; its copies of remote ones must stay until the commit.
    """

    def __init__(
        self, transaction: Transaction, reader: SeriesReader | None, workshop: Workshop, hooks: Sequence[Hook] = ()
    ) -> None:
        self._transaction, self._reader, self._workshop, self._hooks = transaction, reader, workshop, hooks
        self._key = transaction.series.key
        self._hashed = transaction.base.document.hashed_uids
        self._staged: dict[str, NewMember] = {}
        self._duplicates: list[tuple[str, str]] = []
        self._originals: dict[tuple[str, str], bool] = {}

    def append(self, instances: Iterable[Instance], options: AppendOptions) -> AppendResult:
        """Stage what is new.

        Raises
        ------
        ValueError
            If the series would become too large; nothing is staged then.
        """
        result = AppendResult([], [], [], [])
        lists = {"new": result.new, "same": result.same, "conflict": result.conflict}
        jobs = self._workshop.prepare_all(_each_once(instances), lambda instance: self._job(instance, options))
        for instance, prepared in jobs:
            try:
                if isinstance(prepared, Exception):
                    raise instance.told(prepared)
                outcome = self._consider(instance, prepared or instance.prepared, options)
            except (CODError, OSError, ValueError) as error:
                result.errors.append((instance, error))
                emit(self._hooks, FileDone(instance.original_path, "error", 0, reason=reason_of(error)))
                continue
            lists[outcome].append(instance)
        self._check_series_size(options)
        if options.compress is not None:
            self._recompress(options.compress, result.new)
        for member in self._staged.values():
            self._transaction.add(member)
        self._staged.clear()
        for uid, path in self._duplicates:
            self._transaction.add_duplicate_path(uid, path)
        self._duplicates.clear()
        return result

    def _job(self, instance: Instance, options: AppendOptions) -> Job | None:
        """Return what has to be read for an instance: nothing, where its hints say that it is stored already."""
        instance.check_hashing(hashed=self._hashed)
        if instance.prepared is not None or known_by_hints(instance.hints, self._hinted_record(instance)):
            return None
        _check_size(instance.source, instance.source.size, options)
        if instance.facts is not None:
            check_hints(instance.source.uri, instance.hints, instance.facts)
        uri_of = partial(self._uri_of, instance)
        return Job(instance.source, instance.hints, uri_of, instance.facts, options.compress)

    def _uri_of(self, instance: Instance, facts: DicomFacts) -> str:
        return self._uri(self._name_uid(instance, facts))

    def _consider(self, instance: Instance, prepared: Prepared | None, options: AppendOptions) -> Outcome:
        series = self._transaction.series
        if prepared is None:
            uid = instance.get_instance_uid(self._hashed, trust_hints_if_available=True)
            instance.stored_in(series, uid)
            self._done(instance, "same", uid, instance.hints.size)
            return "same"
        facts = prepared.facts
        try:
            _check_size(prepared.source, facts.size, options)
            uid = self._name_uid(instance, facts)
            self._check_original(instance, facts)
            compare = partial(self._same_pixels, prepared) if options.treat_metadata_diffs_as_same else None
            found = self._find(uid)
            is_stored = found is not None and found.identity == (facts.crc32c, facts.size)
            outcome = plan_instance(facts, found, compare)
        except BaseException:
            prepared.discard()
            raise
        if outcome == "new":
            self._stage(instance, prepared, uid)
        else:
            prepared.discard()
        if outcome == "conflict":
            self._note_conflict(instance, uid)
        elif outcome == "new" or is_stored:  # what has the pixels alone is not there: nothing of it may be deleted
            instance.stored_in(series, uid)
        self._done(instance, outcome, uid, facts.size)
        return outcome

    def _done(self, instance: Instance, outcome: Outcome, uid: str, size: int | None) -> None:
        reason = CONFLICT_REASON if outcome == "conflict" else None
        uids = self._key.study_uid, self._key.series_uid, uid
        emit(self._hooks, FileDone(instance.original_path, outcome, size or 0, *uids, reason))

    def _hinted_record(self, instance: Instance) -> InstanceRecord | None:
        if instance.hints.instance_uid is None or instance.hints.crc32c is None:
            return None
        # Not what is staged: files are read ahead, so whether it is by now is a matter of luck.
        return self._transaction.find(instance.get_instance_uid(self._hashed, trust_hints_if_available=True))

    def _find(self, uid: str) -> InstanceRecord | None:
        if uid in self._staged:
            return self._staged[uid].record
        return self._transaction.find(uid)

    def _uri(self, uid: str) -> str:
        return member_uri(self._transaction.series.tar_uri, uid)

    def _name_uid(self, instance: Instance, facts: DicomFacts) -> str:
        """Return the UID that the instance is stored under, if it belongs to this series."""
        hash_uid = instance.hash_uid if self._hashed else str
        found = hash_uid(facts.study_uid), hash_uid(facts.series_uid)
        if found != (self._key.study_uid, self._key.series_uid):
            names = f"study {found[0]}, series {found[1]}"
            raise SeriesMismatchError(instance.original_path, names, str(self._key))
        return hash_uid(facts.instance_uid)

    def _check_original(self, instance: Instance, facts: DicomFacts) -> None:
        """Raise for a file of another series than the hashed one holds: two series, patients perhaps, of one name."""
        own = facts.study_uid, facts.series_uid
        if self._hashed and own not in self._originals:
            transaction = self._transaction
            records = (transaction.find(uid) for uid in (*transaction.new, *transaction.base.document.instances))
            stored = ((record.study_uid, record.series_uid) for record in records if record is not None)
            first = next(stored, None)
            is_empty = first is None and not any(self._originals.values())
            self._originals[own] = is_empty or own == first or own in stored
        if self._hashed and not self._originals[own]:
            raise HashedUidsError(
                instance.original_path, "its UIDs have the hashes of another series, which is stored there"
            )

    def _stage(self, instance: Instance, prepared: Prepared, uid: str) -> None:
        facts, source = prepared.facts, prepared.source
        for problem in facts.problems:
            emit(self._hooks, HeaderProblem(instance.original_path, problem))
        record = InstanceRecord(
            name_uid=uid,
            instance_uid=facts.instance_uid,
            series_uid=facts.series_uid,
            study_uid=facts.study_uid,
            has_pixeldata=facts.has_pixeldata,
            start=0,  # known when the tar is laid out
            size=facts.size,
            crc32c=facts.crc32c,
            uri=self._uri(uid),
            packed_header=prepared.packed_header,
            frame_table=facts.frame_table,
            version=VERSION,
            original_path=instance.original_path,
            dependencies=tuple(map(public_uri, instance.dependencies)),
            modified=datetime.now(UTC),
        )
        path = source.local_path
        payload = (
            FilePayload(path, facts.size, facts.crc32c) if path else SourcePayload(source, facts.size, facts.crc32c)
        )
        self._staged[uid] = NewMember(record, payload)
        instance.prepared = prepared
        instance.staged_as(record)

    def _recompress(self, target: Target, new: Sequence[Instance]) -> None:
        """Put recompressed files in the place of what is staged, where they are smaller and say exactly the same."""
        by_uid = {instance.record.name_uid: instance for instance in new if instance.record is not None}
        jobs = (((uid, instance), self._staged[uid].payload) for uid, instance in by_uid.items())
        for (uid, instance), outcome in self._workshop.transcode_all(jobs, target):
            if isinstance(outcome, Exception):
                done = InstanceRecompressed(instance.original_path, Reason.UNSUPPORTED.value, 0, reason_of(outcome))
            else:
                detail = outcome.detail if isinstance(outcome, Kept) else ""
                done = InstanceRecompressed(instance.original_path, outcome.reason.value, outcome.saved_bytes, detail)
            if isinstance(outcome, Recompressed):
                self._replace(instance, self._staged[uid].record, outcome)
            emit(self._hooks, done)

    def _replace(self, instance: Instance, given: InstanceRecord, smaller: Recompressed) -> None:
        facts = smaller.facts
        record = replace(
            given,
            size=facts.size,
            crc32c=facts.crc32c,
            packed_header=pack_header(with_bulk_data_base(facts.header, given.uri)),
            frame_table=facts.frame_table,
            source_size=given.size,
            source_crc32c=given.crc32c,
        )
        payload = FilePayload(smaller.path, facts.size, facts.crc32c)
        self._staged[given.name_uid] = NewMember(record, payload)
        instance.take_place(smaller.path)
        instance.staged_as(record)

    def _same_pixels(self, given: Prepared, facts: DicomFacts, stored: InstanceRecord) -> bool:
        table = stored.frame_table
        if stored.source_crc32c is not None:  # recompressed: other bytes for the same pixels
            return self._shows_the_same(given, stored)
        if table is None or table.crc32cs is None:  # an older writer's record: measure what it stored
            if self._reader is None or not stored.has_pixeldata:
                return False
            with self._reader.open_instance(stored) as stream:
                table = inspect_dicom(stream, stored.uri, bulk_data_uri=lambda uid, _span: uid).frame_table
        return equal_frames(facts.frame_table, table)

    def _shows_the_same(self, given: Prepared, stored: InstanceRecord) -> bool:
        if self._reader is None or self._reader.document.find(stored.name_uid) is None:
            return False
        with given.source.open() as left, self._reader.open_instance(stored) as right:
            return show_the_same(
                Image(left, given.packed_header, given.facts.frame_table),
                Image(right, stored.packed_header, stored.frame_table),
            )

    def _check_series_size(self, options: AppendOptions) -> None:
        total = self._transaction.stored_bytes + sum(member.payload.size for member in self._staged.values())
        if self._staged and total > options.max_series_bytes:
            self._staged.clear()
            raise ValueError(f"the series would hold {total} bytes, more than max_series_size allows")

    def _note_conflict(self, instance: Instance, uid: str) -> None:
        """Remember where a differing duplicate is, if it will still be there later: not for local files."""
        stays = "://" in instance.original_path and not instance.original_path.startswith(("file://", "/"))
        if stays and uid in self._transaction.base.document.instances:
            self._duplicates.append((uid, instance.original_path))


def reason_of(error: Exception) -> str:
    """Return why; the file's own URI, which a report shows anyway, is left out."""
    return error.reason if isinstance(error, InstanceValidationError | HashedUidsError) else str(error)


def _each_once(instances: Iterable[Instance]) -> list[Instance]:
    """Return the instances without those of a file that came before; hints that came twice are believed no more.

    Notes
    -----
    This only saves reading a file twice: what is measured already stays.
    """
    seen: dict[str | int | Source, Instance] = {}
    for instance in instances:
        first = seen.setdefault(instance.file_key if instance.prepared is None else id(instance), instance)
        if first is not instance:
            first.hints = Hints()
    return list(seen.values())


def _check_size(source: Source, size: int | None, options: AppendOptions) -> None:
    if size is not None and size > options.max_instance_bytes:
        raise InstanceValidationError(source.uri, f"{size} bytes are more than max_instance_size allows")
