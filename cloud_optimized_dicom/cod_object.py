"""CODObject: one series, to read or to write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, get_args

from cloud_optimized_dicom.append import GIB, Appender, AppendOptions, AppendResult, parse_target
from cloud_optimized_dicom.errors import (
    ErrorLogExistsError,
    InstanceNotFoundError,
    LockVerificationError,
    WriteOperationInReadModeError,
)
from cloud_optimized_dicom.ingest.dependencies import delete_dependencies, verified_document
from cloud_optimized_dicom.ingest.workshop import Workshop
from cloud_optimized_dicom.lock.lease import LockOptions
from cloud_optimized_dicom.redaction.model import RedactionOptions
from cloud_optimized_dicom.series.commit import Series, quarantine
from cloud_optimized_dicom.series.transaction import TransactionOptions
from cloud_optimized_dicom.series_session import Mode, SeriesSession
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.uids import NestedUri, SeriesKey

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from cloud_optimized_dicom.bounding_box import PixelRedaction
    from cloud_optimized_dicom.events import Hook
    from cloud_optimized_dicom.instance import Instance
    from cloud_optimized_dicom.redaction.model import FillValue, RedactionRecord
    from cloud_optimized_dicom.storage.base import ObjectStore


class CODObject(SeriesSession):
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
        add to what is there.  ``"e"``: lock; the series must exist, and its instances are local files (each one's
        `dicom_uri`) that may be rewritten in the block.  What is other then is committed; which instances there are may
        not change.
    sync_on_exit
        False: no lock, and nothing is uploaded.
    hashed_uids
        Whether a new series is one of hashed UIDs: instances are stored under what their `uid_hash_func` makes of their
        UIDs, the document has ``deid_`` keys.  A stored series says by itself which it is; True makes sure of it.
    create_if_missing
        Whether mode "w" or "a" may make the series.
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
    HashedUidsError
        On entering, if `hashed_uids` is asked for of a stored series that is not one of hashed UIDs.

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
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be 'r', 'w', 'a' or 'e', not {mode!r}")
        key = SeriesKey(study_uid, series_uid)
        options = TransactionOptions(
            replace=mode == "w",
            hashed_uids=hashed_uids,
            create_if_missing=create_if_missing and mode != "e",
            override_errors=override_errors,
            locked=sync_on_exit,
            lock=LockOptions(lease_seconds, wait_seconds, empty_lock_override_age),
            tar_storage_class=tar_storage_class,
            legacy_index=legacy_index,
        )
        super().__init__(open_store(datastore_path, client), key, mode, options, temp_dir=temp_dir, hooks=hooks)

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

    def __str__(self) -> str:
        return f"CODObject({self.datastore_series_uri})"

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
        transaction = self._regrouping("append")
        self._doomed = [(uid, path) for uid, path in self._doomed if uid in transaction.new]  # the others were removed
        sizes = max_instance_size * GIB, max_series_size * GIB
        options = AppendOptions(treat_metadata_diffs_as_same, *sizes, parse_target(compress))
        hooks = self._hooks if progress is None else (*self._hooks, progress)
        with Workshop(self._scratch(), workers) as workshop:
            result = Appender(transaction, self._stored_reader(), workshop, hooks).append(instances, options)
        if delete_local_origin:
            found = ((instance.record, instance.source.local_path) for instance in result.new)
            self._doomed += [(record.name_uid, path) for record, path in found if record and path]
        return result

    def remove(self, instances: Iterable[Instance | str] | Instance | str) -> None:
        """Remove instances, given themselves or by UID; all of them or, if one is not there, none."""
        self._regrouping("remove").remove(self._uids(instances))

    def truncate(self, instances: Iterable[Instance | str] | Instance | str) -> None:
        """Keep exactly these instances and remove all others."""
        transaction = self._regrouping("truncate")
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

    def redact_pixel_data(
        self,
        redactions: Iterable[PixelRedaction],
        *,
        reviewer: str,
        fill_value: FillValue | None = None,
        compress: bool | str | None = None,
        is_clean: bool = False,
    ) -> RedactionRecord:
        """Overwrite boxes of pixels, in mode "e"; what they showed is gone from the series once the block is left.

        Parameters
        ----------
        redactions
            Boxes, the instances that each applies to, and the frames (from 0; all by default).
        reviewer
            Who asks for it; for the audit record.
        fill_value
            One value, or one per sample, in the photometric interpretation that is stored; one value for a colour is a
            grey.  None: black as displayed.
        compress
            What redacted instances are encoded to, without loss: None: what they are encoded in, where that loses
            nothing and can be written (native, HTJ2K, JPEG 2000, JPEG-LS, RLE), else HTJ2K; ``"htj2k"``,
            ``"jpeg2000"`` (also True), ``"jpegls"`` or ``"rle"``: that; False: no compression.  What a codec does not
            take (1, 32 and 64 bits, floating point) is stored without.
        is_clean
            Whether the reviewer states that nothing is left in the pixels of these instances that identifies somebody:
            Burned In Annotation (0028,0301) then becomes NO.

        Returns
        -------
        RedactionRecord
            What was done; the custom field ``redactions`` gets the same as one more entry.

        Raises
        ------
        RedactionError
            If a redaction cannot be applied: `RedactionTargetMissingError`, `RedactionFrameOutOfRangeError`,
            `RedactionBoxOutOfBoundsError`, `RedactionFillValueError`; itself where there are no pixels, or they do not
            decode.  Nothing has been redacted then, in no instance.
        EditModeError, WriteOperationInReadModeError
            In another mode.
        ValueError
            Without a reviewer, or for an unknown `compress`.
        MissingDependencyError
            Without a codec that is needed.
        """
        from cloud_optimized_dicom.redaction.series import redact_edited  # noqa: PLC0415 - loads codecs

        edit = self._editing("redact_pixel_data")
        target = parse_target(compress or False)
        options = RedactionOptions(
            reviewer, datetime.now(UTC), fill_value, target, native=compress is False, is_clean=is_clean
        )
        return redact_edited(edit, list(redactions), options, self.datastore_series_uri)

    def upload_error_log(self, message: str) -> None:
        """Quarantine the series: writers refuse it from now on.

        Raises
        ------
        ErrorLogExistsError
            If there is an error.log already; that one stays.
        """
        if self._mode == "r":
            raise WriteOperationInReadModeError("upload_error_log", self.datastore_series_uri)
        if self.store.find(self.key.error_log) is not None:
            raise ErrorLogExistsError(self.error_log_uri)
        quarantine(Series(self.store, self.key), message)

    def delete_dependencies(self, dryrun: bool = False, validate_blob_hash: bool = False) -> list[str]:  # noqa: FBT001, FBT002
        """Delete what the stored instances were made of, once every stored byte is verified; return the URIs.

        Errors and options are those of :meth:`Instance.delete_dependencies`.  Needs a writing mode, whose lock keeps
        others from removing what is relied upon; without one (`sync_on_exit` False) only a dry run is possible, and
        anything else a `LockVerificationError`.  What this block has staged does not count as stored, and what it has
        staged to be removed keeps its sources.
        """
        transaction = self._writing("delete_dependencies")
        if transaction.lock is None and not dryrun:
            raise LockVerificationError(self.store.url_of(self.key.lock), "it was never taken: sync_on_exit is False")
        stored = verified_document(self.store, self.key)
        present = ((record, transaction.find(record.name_uid)) for record in stored.iter_records())
        owed = [(old, old.dependencies) for old, new in present if new is not None and new.crc32c == old.crc32c]
        return delete_dependencies(self.store, owed, dryrun=dryrun, validate_blob_hash=validate_blob_hash)
