"""A series while it is open: the transaction that holds its lock, the reader, the files that are being edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from cloud_optimized_dicom.edit.series_edit import SeriesEdit
from cloud_optimized_dicom.errors import (
    CODObjectNotFoundError,
    EditModeError,
    LockVerificationError,
    WriteOperationInReadModeError,
)
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.series.commit import Series
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.opening import check_hashed_uids
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.staged_reads import StagedReader
from cloud_optimized_dicom.series.transaction import Transaction
from cloud_optimized_dicom.series_view import SeriesView

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from cloud_optimized_dicom.events import Hook
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.staged_reads import InstanceReader
    from cloud_optimized_dicom.series.transaction import TransactionOptions
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.thumbnail.access import Thumbnails
    from cloud_optimized_dicom.uids import SeriesKey

Mode = Literal["r", "w", "a", "e"]
"""Read; write anew; add to what is there; edit what is there."""


class SeriesSession(SeriesView):
    """A series that can be entered and left; what is done in between is staged, and committed by leaving.

    Parameters
    ----------
    options
        How to open it for writing.
    hooks
        Called with every event.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: SeriesKey,
        mode: Mode,
        options: TransactionOptions,
        *,
        temp_dir: str | os.PathLike[str] | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        super().__init__(store, key, temp_dir)
        self._mode: Mode = mode
        self._options, self._hooks = options, tuple(hooks)
        self._transaction: Transaction | None = None
        self._edit: SeriesEdit | None = None
        self._reader: SeriesReader | None = None
        self._doomed: list[tuple[str, Path]] = []

    @property
    def mode(self) -> Mode:
        """How the series is open: ``"r"``, ``"w"``, ``"a"`` or ``"e"``."""
        return self._mode

    @property
    def lock(self) -> bool:
        """Whether the lock is held by this object."""
        return self.lock_generation is not None

    @property
    def lock_generation(self) -> str | None:
        """The version of the lock blob that is held."""
        held = self._transaction.lock if self._transaction is not None else None
        return held.version if held is not None else None

    # -- life

    def __enter__(self) -> Self:
        if self._mode == "r":
            self._open_reader()
        else:
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transaction, self._transaction = self._transaction, None
        edit, self._edit = self._edit, None
        doomed, self._doomed = self._doomed, []
        try:
            if transaction is None:
                return
            if kind is not None or not self._options.locked:
                transaction.rollback()
                return
            if edit is not None:
                self._stage(edit, transaction)
            paths = [path for uid, path in doomed if uid in transaction.new]
            transaction.commit(self._hooks)
            for path in paths:
                path.unlink(missing_ok=True)
        finally:
            self._reader = None
            self._clean_up()

    def _stage(self, edit: SeriesEdit, transaction: Transaction) -> None:
        try:
            edit.stage(self._hooks)
        except BaseException as error:
            transaction.rollback(error)
            raise

    def _begin(self) -> Transaction:
        if self._transaction is None:
            transaction = self._transaction = Transaction.begin(self.store, self.key, self._options)
            if self._mode == "e":
                try:
                    self._edit = SeriesEdit(transaction, self._open_reader(), self._scratch() / "edited")
                except BaseException as error:
                    self._transaction = self._reader = None
                    self._clean_up()
                    transaction.rollback(error)
                    raise
        return self._transaction

    def _writing(self, operation: str) -> Transaction:
        """Return the transaction, if the mode lets one write."""
        if self._mode == "r":
            raise WriteOperationInReadModeError(operation, self.datastore_series_uri)
        if self._transaction is None and self._options.locked:
            raise LockVerificationError(self.store.url_of(self.key.lock), f"{operation} needs a `with` block")
        return self._begin()

    def _regrouping(self, operation: str) -> Transaction:
        """Return the transaction, if the mode lets one change which instances there are."""
        if self._mode == "e":
            raise EditModeError(operation, self.datastore_series_uri, self._mode)
        return self._writing(operation)

    def _editing(self, operation: str) -> SeriesEdit:
        """Return the files that are being edited, if that is the mode."""
        self._writing(operation)
        if self._edit is None:
            raise EditModeError(operation, self.datastore_series_uri, self._mode)
        return self._edit

    # -- what is read

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
            reader = self._reader or SeriesReader.open(self.store, self.key)
            check_hashed_uids(reader.document, wanted=self._options.hashed_uids)
            return reader
        base = self._transaction.base
        if base.metadata is None:
            return None
        # Who holds the lock knows which tar the document describes, even where that does not say so.
        generation = base.tar.version if base.tar is not None and self._transaction.lock is not None else None
        self._reader = SeriesReader(self.store, self.key, base.document, base.metadata.version, generation)
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

    def _instance(self, record: InstanceRecord) -> Instance:
        transaction, edit = self._transaction, self._edit
        if transaction is not None and record.name_uid in transaction.new:
            return Instance.staged(
                transaction.new[record.name_uid], self.key, hashed=transaction.base.document.hashed_uids
            )
        instance = Instance.stored(record, self._open_reader(), self._scratch)
        if edit is not None:
            instance.moved_to(edit.path(record.name_uid))
        return instance
