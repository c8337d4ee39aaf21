"""CODObject: one series, to read or to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from cloud_optimized_dicom.append import GIB, Appender, AppendOptions, AppendResult, parse_target
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    InstanceNotFoundError,
    LockVerificationError,
    WriteOperationInReadModeError,
)
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.series.commit import Series, quarantine
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.staged_reads import StagedReader
from cloud_optimized_dicom.series.transaction import Transaction, TransactionOptions
from cloud_optimized_dicom.series_view import SeriesView
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.uids import NestedUri, SeriesKey

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from cloud_optimized_dicom.events import Hook
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.staged_reads import InstanceReader
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.thumbnail.access import Thumbnails

Mode = Literal["r", "w", "a"]


class CODObject(SeriesView):
    """One series of a datastore.

    Parameters
    ----------
    datastore_path
        ``gs://bucket/prefix``, a local directory (a path or ``file://``), or ``memory://name``; or an
        :class:`~cloud_optimized_dicom.storage.base.ObjectStore`.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None); None elsewhere.
    study_uid, series_uid
        Of the series, as they are stored (hashed ones where the datastore is de-identified).
    mode
        ``"r"``: read; no lock, no write.  ``"w"``: lock, start empty, replace what is there on commit.  ``"a"``: lock,
        add to what is there.
    sync_on_exit
        False: no lock, and nothing is uploaded.
    hashed_uids
        Whether a new series gets ``deid_`` keys, and instances are stored under hashed UIDs.
    create_if_missing
        Whether a writing mode may make the series.
    temp_dir
        Where copies of remote files go; None: a folder of the system's.
    override_errors
        Whether to write to a series that is quarantined by an error.log.
    empty_lock_override_age
        Hours after which an older writer's lock without instances is taken over; None: never.
    lease_seconds
        How long others respect our lock when we do not renew it any more.
    wait_seconds
        How long to wait for another writer.
    legacy_index
        Whether older readers find the index.sqlite that they need before they open a series: True: it is written;
        False: one that is there is dropped; None: one that is there is kept up to date.
    tar_storage_class
        ``"NEARLINE"``, ``"ARCHIVE"`` ... for a tar that is made or written anew; one that is appended to keeps its own.
        None: that of the tar before it, or the bucket's default.  Stores without storage classes ignore it.
    hooks
        Called with every event; see :mod:`cloud_optimized_dicom.events`.

    Raises
    ------
    ValueError
        For any other mode.
    InvalidUidError
        For UIDs that are not 1 to 64 digits and dots, before anything touches a path.

    Notes
    -----
    Use it in a ``with`` block.  Entering takes the lock; leaving commits everything that was staged, in one step that
    readers see whole or not at all, and releases the lock.  An exception in the block drops what was staged.  A commit
    that fails behind its decision leaves the lock, which is the record from which the next writer finishes it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the fixed names of the format's first library
        self,
        datastore_path: str | os.PathLike[str] | ObjectStore,
        client: Any = None,
        study_uid: str = "",
        series_uid: str = "",
        mode: Mode = "r",
        sync_on_exit: bool = True,  # noqa: FBT001, FBT002
        hashed_uids: bool = False,  # noqa: FBT001, FBT002
        create_if_missing: bool = True,  # noqa: FBT001, FBT002
        temp_dir: str | os.PathLike[str] | None = None,
        override_errors: bool = False,  # noqa: FBT001, FBT002
        empty_lock_override_age: float | None = None,
        *,
        lease_seconds: float = 120,
        wait_seconds: float = 0,
        legacy_index: bool | None = None,
        tar_storage_class: str | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        if mode not in ("r", "w", "a"):
            raise ValueError(f"mode must be 'r', 'w' or 'a', not {mode!r}")
        self.mode: Mode = mode
        key = SeriesKey(study_uid, series_uid)
        super().__init__(open_store(datastore_path, client), key, temp_dir)
        self._hooks = tuple(hooks)
        self._sync_on_exit = sync_on_exit
        self._options = TransactionOptions(
            replace=mode == "w",
            hashed_uids=hashed_uids,
            create_if_missing=create_if_missing,
            override_errors=override_errors,
            locked=sync_on_exit,
            lock=LockOptions(lease_seconds, wait_seconds, empty_lock_override_age),
            tar_storage_class=tar_storage_class,
            legacy_index=legacy_index,
        )
        self._transaction: Transaction | None = None
        self._reader: SeriesReader | None = None
        self._doomed: list[Path] = []

    @classmethod
    def from_uri(
        cls,
        uri: str,
        client: Any = None,
        mode: Mode = "r",
        hashed_uids: bool = False,  # noqa: FBT001, FBT002
        create_if_missing: bool = True,  # noqa: FBT001, FBT002
    ) -> Self:
        """Return the series that a URI names: its tar's, its folder's, its metadata's or one of its instances'.

        Raises
        ------
        ValueError
            If the URI names no series.
        """
        nested = NestedUri.parse(uri)
        place = (nested.tar if nested else uri).rstrip("/")
        key = SeriesKey.parse(place)
        if key is None:
            raise ValueError(f"{uri} names no series: ...studies/STUDY/series/SERIES is expected")
        datastore = place[: place.rindex(key.folder)].rstrip("/")
        return cls(
            datastore or ("/" if place.startswith("/") else "."),
            client,
            key.study_uid,
            key.series_uid,
            mode,
            hashed_uids=hashed_uids,
            create_if_missing=create_if_missing,
        )

    # -- life

    def __enter__(self) -> Self:
        if self.mode == "r":
            self._open_reader()
        else:
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transaction, self._transaction = self._transaction, None
        try:
            if transaction is None:
                return
            if kind is not None or not self._sync_on_exit:
                transaction.rollback()
                return
            transaction.commit(self._hooks)
            for path in self._doomed:
                path.unlink(missing_ok=True)
        finally:
            self._reader = None
            self._clean_up()

    def _begin(self) -> Transaction:
        if self._transaction is None:
            self._transaction = Transaction.begin(self.store, self.key, self._options)
        return self._transaction

    def _writing(self, operation: str) -> Transaction:
        if self.mode == "r":
            raise WriteOperationInReadModeError(operation, self.datastore_series_uri)
        if self._transaction is None and self._sync_on_exit:
            raise LockVerificationError(self.store.url_of(self.key.lock), f"{operation} needs a `with` block")
        return self._begin()

    def _open_reader(self) -> SeriesReader:
        """Return the reader of what is stored: in a writing mode, what was there when the transaction began."""
        if self._reader is None:
            reader = self._stored_reader()
            if reader is None:
                raise CODObjectNotFoundError(self.datastore_series_uri)
            self._reader = reader
        return self._reader

    def _known_reader(self) -> SeriesReader | None:
        return self._reader

    def _stored_reader(self) -> SeriesReader | None:
        if self._reader is not None or self._transaction is None:
            return self._reader or SeriesReader.open(self.store, self.key)
        base = self._transaction.base
        if base.metadata is None:
            return None
        self._reader = SeriesReader(self.store, self.key, base.document, base.metadata.version)
        return self._reader

    def _thumbnails(self) -> Thumbnails:
        from cloud_optimized_dicom.thumbnail.access import Thumbnails  # noqa: PLC0415 - loads codecs

        transaction = self._transaction
        reader: InstanceReader
        if transaction is None:
            reader = self._open_reader()
        else:
            reader = StagedReader(self._stored_reader(), transaction.new, self.tar_uri)
        keep = transaction.set_thumbnail if transaction is not None else None
        self._drawn = Thumbnails(Series(self.store, self.key), self._document, FrameReader(reader), keep, self._drawn)
        return self._drawn

    @property
    def _document(self) -> SeriesDocument:
        return self._transaction.document if self._transaction is not None else self._open_reader().document

    def __str__(self) -> str:
        return f"CODObject({self.datastore_series_uri})"

    @property
    def lock(self) -> bool:
        """Whether the lock is held by this object."""
        return self.lock_generation is not None

    @property
    def lock_generation(self) -> str | None:
        """The version of the lock blob that is held."""
        held = self._transaction.lock if self._transaction is not None else None
        return held.version if held is not None else None

    # -- writing

    def append(  # noqa: PLR0913 - as above
        self,
        instances: Iterable[Instance],
        treat_metadata_diffs_as_same: bool = False,  # noqa: FBT001, FBT002
        max_instance_size: float = 10,
        max_series_size: float = 100,
        delete_local_origin: bool = False,  # noqa: FBT001, FBT002
        compress: bool | str = False,  # noqa: FBT001, FBT002
        *,
        progress: Hook | None = None,
        workers: int | None = None,
    ) -> AppendResult:
        """Add instances; those that are stored already are recognised by UID and CRC32C.

        Parameters
        ----------
        instances
            Of this series.  Hints that match a stored instance make it "same" without a byte of it being read.
        treat_metadata_diffs_as_same
            Whether a file with the stored pixel data but another header counts as the same.
        max_instance_size, max_series_size
            In GiB.  A larger instance is an error of its own; a series that would grow too large is a `ValueError`, and
            nothing is staged.
        delete_local_origin
            Delete the local files that were new, once the commit has succeeded.
        compress
            What new instances are recompressed to: ``"htj2k"``, ``"jpeg2000"`` (also True), ``"jpegls"`` or ``"rle"``.
            Lossless only: every frame is decoded back and compared, a file that does not become smaller, or was
            compressed with loss, is stored as it is, and all else in the file stays as it was.
        progress
            Called with the events of this call, besides the hooks.
        workers
            How many processes measure and recompress files; None: as many as there are processors, once that is worth
            it.

        Returns
        -------
        AppendResult
            ``(new, same, conflict, errors)``.  One bad file never stops the others.

        Raises
        ------
        MissingDependencyError
            Without the codec that `compress` needs.
        """
        transaction = self._writing("append")
        sizes = max_instance_size * GIB, max_series_size * GIB
        options = AppendOptions(treat_metadata_diffs_as_same, *sizes, parse_target(compress))
        hooks = self._hooks if progress is None else (*self._hooks, progress)
        with Workshop(self._scratch(), workers) as workshop:
            result = Appender(transaction, self._stored_reader(), workshop, hooks).append(instances, options)
        if delete_local_origin:
            paths = (instance.source.local_path for instance in result.new)
            self._doomed += [path for path in paths if path is not None]
        return result

    def remove(self, instances: Iterable[Instance | str] | Instance | str) -> None:
        """Remove instances, given themselves or by UID; all of them or, if one is not there, none."""
        self._writing("remove").remove(self._uids(instances))

    def truncate(self, instances: Iterable[Instance | str] | Instance | str) -> None:
        """Keep exactly these instances and remove all others."""
        transaction = self._writing("truncate")
        keep = set(self._uids(instances))
        present = set(transaction.document.instances)
        missing = keep - present
        if missing:
            raise InstanceNotFoundError(min(missing), self.datastore_series_uri)
        transaction.remove(uid for uid in transaction.document.instances if uid not in keep)

    def seal(self) -> None:
        """End the tar in end-of-archive blocks, for programs that append to no tar without.

        Notes
        -----
        Part of this block's commit, whatever else it does; where a tar has such blocks already, nothing changes.
        Every reader copes with a tar that has none; Python's ``tarfile.open(path, "a")`` does not.  The next append of
        ours writes the tar anew, once, without them.
        """
        self._writing("seal").seal()

    def add_metadata_field(self, name: str, value: Any, overwrite_existing: bool = True) -> None:  # noqa: FBT001, FBT002
        """Set a custom field at the top of the document to a JSON value.

        Raises
        ------
        ValueError
            If the name belongs to the format, or is taken and `overwrite_existing` is False.
        """
        transaction = self._writing("add_metadata_field")
        if name in transaction.base.document.own_keys:
            raise ValueError(f"{name} belongs to the format")
        if not overwrite_existing and transaction.document.find_field(name) is not None:
            raise ValueError(f"field {name} exists")
        transaction.set_field(name, value)

    def remove_metadata_field(self, name: str) -> None:
        """Remove a custom field; one that is not there stays so."""
        transaction = self._writing("remove_metadata_field")
        if name in transaction.base.document.own_keys:
            raise ValueError(f"{name} belongs to the format")
        transaction.remove_field(name)

    def upload_error_log(self, message: str) -> None:
        """Quarantine the series: writers refuse it from now on; a log that is there already stays."""
        if self.mode == "r":
            raise WriteOperationInReadModeError("upload_error_log", self.datastore_series_uri)
        quarantine(Series(self.store, self.key), message)

    def _instance(self, record: InstanceRecord) -> Instance:
        transaction = self._transaction
        if transaction is not None and record.name_uid in transaction.new:
            return Instance.staged(transaction.new[record.name_uid])
        return Instance.stored(record, self._open_reader(), self._scratch)
