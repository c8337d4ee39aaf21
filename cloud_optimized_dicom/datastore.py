"""Datastore: many series, and the front door for files that are to become some."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.append import AppendOptions, parse_target
from cloud_optimized_dicom.bulk import BulkIngest, BulkOptions, iter_instances
from cloud_optimized_dicom.cod_object import CODObject
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.series.maintenance import discard_intent, iter_locks, recover_series, unlock_series
from cloud_optimized_dicom.series.migrate import migrate_series
from cloud_optimized_dicom.series.repair import repair_series
from cloud_optimized_dicom.series.tar_check import VerifyOptions
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.uid_hashing import find_uid_hash
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from cloud_optimized_dicom.events import Hook
    from cloud_optimized_dicom.ingest.report import IngestReport
    from cloud_optimized_dicom.instance import Instance
    from cloud_optimized_dicom.series.findings import VerifyReport
    from cloud_optimized_dicom.series.maintenance import LockState, RecoveryResult
    from cloud_optimized_dicom.series.migrate import MetadataVersion
    from cloud_optimized_dicom.series.repair import RepairResult
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uid_hashing import UidHash


class Datastore:
    """A prefix of a bucket, or a directory, that holds series.

    Parameters
    ----------
    path
        ``gs://bucket/prefix``, a local directory (a path or ``file://``), or ``memory://name``; or an
        :class:`~cloud_optimized_dicom.storage.base.ObjectStore`.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None).
    """

    def __init__(self, path: str | os.PathLike[str] | ObjectStore, client: Any = None) -> None:
        self._client = client
        self.store = open_store(path, client)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # clients do not pickle; the store makes its own again

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def studies(self) -> Iterator[str]:
        """Yield the UIDs of the studies."""
        for folder in self.store.list_folders("studies/"):
            yield folder.removeprefix("studies/").rstrip("/")

    def series(self, study_uid: str | None = None, *, incomplete: bool = False) -> Iterator[SeriesKey]:
        """Yield the series of one study, or of all.

        Parameters
        ----------
        incomplete
            Also those of which only a tar is left.  Lists every object, which takes longer.
        """
        if incomplete:
            yield from self._series_of_objects("studies/" if study_uid is None else f"studies/{study_uid}/series/")
            return
        studies = self.studies() if study_uid is None else iter([study_uid])
        for study in studies:
            for folder in self.store.list_folders(f"studies/{study}/series/"):
                key = SeriesKey.parse(folder)
                if key is not None:
                    yield key

    def _series_of_objects(self, prefix: str) -> Iterator[SeriesKey]:
        last = None
        for info in self.store.list(prefix):  # the tar of a series comes right before what is in its folder
            key = SeriesKey.parse("/".join(info.name.split("/")[:4]))
            if key is not None and key != last:
                yield key
                last = key

    def open(self, study_uid: str, series_uid: str, mode: Any = "r", **options: Any) -> CODObject:
        """Return one series, to be used in a ``with`` block; options as of `CODObject`."""
        return CODObject(self.store, None, study_uid, series_uid, mode, **options)

    def verify(
        self, keys: Iterable[SeriesKey] | None = None, *, deep: bool = False, sample: int | None = None
    ) -> Iterator[VerifyReport]:
        """Verify series, all of them where none are named, one report each.

        Parameters
        ----------
        deep
            Also read every DICOM file again as an ingest would, and compare what was found with the record.
        sample
            Check only so many instances of each series, always the same ones; the rest of the tar is then not read.
        """
        for key in self.series(incomplete=True) if keys is None else keys:
            yield verify_series(self.store, key, VerifyOptions(deep, sample))

    def repair(self, keys: Iterable[SeriesKey] | None = None, *, wait_seconds: float = 0) -> Iterator[RepairResult]:
        """Mend what can be mended without guessing, series by series, each mending a commit.

        Notes
        -----
        Orphans (instances that are in the tar but in no record) are recorded, older writers' frame tables rebuilt,
        missing checksums added, dead writers' leftovers swept.  Damaged bytes stay, and a verification names them.
        """
        for key in self.series() if keys is None else keys:
            yield repair_series(self.store, key, wait_seconds=wait_seconds)

    def migrate(
        self,
        keys: Iterable[SeriesKey] | None = None,
        *,
        to: MetadataVersion | None = None,
        dry_run: bool = False,
        wait_seconds: float = 0,
    ) -> Iterator[RepairResult]:
        """Bring series of older writers to the present format, each by one commit; all where none are named.

        Parameters
        ----------
        to
            ``"v1"``: with records of version 1, later ones too, for readers that know no other; ``"v2"``: with records
            of version 2 again.  None: version 2, but for series that somebody brought to version 1.
        dry_run
            Take no lock and write nothing: the results' `actions` are what would be done.

        Notes
        -----
        Records of version 1 become version 2, older writers' frame tables are rebuilt, missing checksums added, and
        end-of-archive blocks dropped.  No byte of an instance changes.  A series that is damaged is left as it is; one
        that needs nothing costs two requests.
        """
        for key in self.series() if keys is None else keys:
            yield migrate_series(self.store, key, to=to, dry_run=dry_run, wait_seconds=wait_seconds)

    def locks(self, keys: Iterable[SeriesKey] | None = None) -> Iterator[LockState]:
        """Yield every lock, whoever holds it, of all series where none are named.

        Raises
        ------
        MetadataError
            If a lock is damaged.
        """
        return iter_locks(self.store, self.series() if keys is None else keys)

    def recover(self, keys: Iterable[SeriesKey] | None = None, *, wait_seconds: float = 0) -> Iterator[RecoveryResult]:
        """Finish what dead writers decided and sweep what they left, in all series where none are named.

        Notes
        -----
        Safe at any time: a series that a living writer holds is left alone, and said to be busy.  No writer needs this;
        the next one does the same for its own series.
        """
        for key in self.series() if keys is None else keys:
            yield recover_series(self.store, key, wait_seconds=wait_seconds)

    def unlock(self, key: SeriesKey) -> RecoveryResult:
        """Let go of a lock that no living writer holds, an older writer's too; a decided commit is finished first.

        Raises
        ------
        LockAcquisitionError
            If its lease has not run out: that writer may be alive.
        """
        return unlock_series(self.store, key)

    def discard_intent(self, key: SeriesKey, *, wait_seconds: float = 0) -> RecoveryResult:
        """Give up a decided commit whose staged segments have vanished; one that can be finished is finished.

        Raises
        ------
        LockAcquisitionError
            If another writer holds the lock.
        """
        return discard_intent(self.store, key, wait_seconds=wait_seconds)

    def ingest(  # noqa: PLR0913 - all but the first by name
        self,
        sources: Iterable[str | os.PathLike[str] | Instance],
        *,
        hooks: Sequence[Hook] = (),
        temp_dir: str | os.PathLike[str] | None = None,
        treat_metadata_diffs_as_same: bool = False,
        wait_seconds: float = 0,
        compress: bool | str = False,
        tar_storage_class: str | None = None,
        workers: int | None = None,
        uid_hash_func: UidHash | str | None = None,
    ) -> IngestReport:
        """Store files, each in its series; what is stored already stays as it is.

        Parameters
        ----------
        sources
            Files, folders, globs, ``gs://`` prefixes, zip and tar archives; or instances, with hints perhaps.
        hooks
            Called with every event, one at a time, from several threads: `IngestPlanned`, and one `FileDone` per file.
        temp_dir
            Where copies of remote files go.
        wait_seconds
            How long to wait for a series that another writer holds.
        compress
            What new instances are recompressed to, without loss; see :meth:`CODObject.append`.
        tar_storage_class
            Of new tars; see `CODObject`.
        workers
            How many processes measure and recompress files; None: as many as there are processors, once that is worth
            it.
        uid_hash_func
            From a UID to the one that it is stored under, for series of hashed UIDs: the function, or
            ``module:function``.  It becomes that of every file, and of the instances that have none of their own.
            Hints are of the files, so of UIDs that are not hashed; whatever is reported is of hashed ones.  It is
            called in this process, by several threads at a time, once or more for each UID.

        Returns
        -------
        IngestReport
            What became of each file.  One bad file, or one series that cannot be written, never stops the others.

        Raises
        ------
        MissingDependencyError
            Without the codec that `compress` needs.
        ValueError
            If `uid_hash_func` names no function.

        Notes
        -----
        Each file is read once, remote files many at a time, and several series are written at a time.  Files whose
        hints name a stored instance are not read, and a series to which nothing is added is not locked.
        Interrupted, it gives up what is not committed; run again, it does what is left.
        """
        append = AppendOptions(treat_metadata_diffs_as_same, compress=parse_target(compress))
        options = BulkOptions(append, wait_seconds, tar_storage_class)
        hash_func = find_uid_hash(uid_hash_func)
        with tempfile.TemporaryDirectory(prefix="cod-", dir=temp_dir) as scratch:
            directory = Path(scratch)
            with Workshop(directory, workers) as workshop:
                instances = iter_instances(sources, self._client, directory, hash_func)
                return BulkIngest(self.store, workshop, options, hooks).run(instances)
