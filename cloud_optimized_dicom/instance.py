"""Instance: one DICOM file, about to be stored or stored."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import DependencyError, HintMismatchError
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.dependencies import delete_dependencies, verified_record
from cloud_optimized_dicom.ingest.measure import copied, measure, with_bulk_data_base
from cloud_optimized_dicom.ingest.public_uri import public_uri
from cloud_optimized_dicom.ingest.source_kinds import FileSource, temporary_bytes
from cloud_optimized_dicom.ingest.sources import source_of
from cloud_optimized_dicom.instance_uids import InstanceUids
from cloud_optimized_dicom.series.commit import Series
from cloud_optimized_dicom.uids import NestedUri, member_uri
from cloud_optimized_dicom.whole_files import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.ingest.workshop import Prepared
    from cloud_optimized_dicom.model import DicomFacts, InstanceRecord
    from cloud_optimized_dicom.series.packing import NewMember
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.series.virtual_file import OffsetTable
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.uid_hashing import UidHash
    from cloud_optimized_dicom.uids import SeriesKey


class Instance(InstanceUids):
    """One DICOM file.

    Parameters
    ----------
    dicom_uri
        Where its bytes are now: a local path, ``gs://``, ``memory://``, a member of an archive
        (``{archive}.zip://{member}``), or ``{tar}://instances/{uid}.dcm`` of a series.
    dependencies
        URIs that could be deleted once the instance is stored.
    hints
        What is claimed of the file; see :class:`~cloud_optimized_dicom.hints.Hints`.
    transport_params
        ``{"client": storage.Client(...)}`` for a ``gs://`` URI that needs another client than the default one.
    uid_hash_func
        From a UID to the one that it is stored under, in a series of hashed UIDs: always the same one for the same UID,
        and no other UID's.  To pickle the instance, let it be a function at the top level of a module.

    Notes
    -----
    Nothing is read before it is asked for; what an ingest has read ahead is in `prepared`.  Two instances are equal
    when their UIDs and hash functions are.  A copy that :meth:`fetch` made in a folder of its own is deleted by
    :meth:`close`, or at the end of a ``with`` block.
    """

    def __init__(
        self,
        dicom_uri: str | os.PathLike[str],
        dependencies: Sequence[str] = (),
        hints: Hints = Hints(),  # noqa: B008 - a frozen value
        transport_params: Mapping[str, Any] | None = None,
        uid_hash_func: UidHash | None = None,
    ) -> None:
        self.dicom_uri = str(dicom_uri)
        self._original_path = public_uri(self.dicom_uri)
        self.dependencies = list(dependencies)
        self.hints = hints
        self.transport_params = dict(transport_params or {})
        self.uid_hash_func = uid_hash_func
        self._source: Source | None = None
        self._listed: Source | None = None
        self._facts: DicomFacts | None = None
        self._record: InstanceRecord | None = None
        self._reader: SeriesReader | None = None
        self._hashed_names: tuple[str, str, str] | None = None
        self._place: tuple[Series, str] | None = None
        self._payload: Payload | None = None
        self._scratch: Callable[[], Path] | None = None
        self._opener: Callable[[str, Any], Source] | None = None
        self.prepared: Prepared | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def from_source(
        cls,
        source: Source,
        hints: Hints = Hints(),  # noqa: B008 - a frozen value
        uid_hash_func: UidHash | None = None,
    ) -> Instance:
        """Return the instance of a source that was found, a member of an archive for example."""
        instance = cls(source.uri, hints=hints, uid_hash_func=uid_hash_func)
        instance._source = instance._listed = source
        return instance

    @classmethod
    def stored(
        cls, record: InstanceRecord, reader: SeriesReader, scratch: Callable[[], Path] | None = None
    ) -> Instance:
        """Return an instance of a series, read through its reader; copies go into `scratch`, or their own folder."""
        instance = cls(member_uri(reader.tar_uri, record.name_uid), record.dependencies)
        instance._original_path = record.original_path
        instance._record, instance._reader, instance._scratch = record, reader, scratch
        instance._place = Series(reader.store, reader.key), record.name_uid
        instance._note_names(reader.key, hashed=reader.document.hashed_uids)
        return instance

    @classmethod
    def staged(cls, member: NewMember, key: SeriesKey, *, hashed: bool) -> Instance:
        """Return an instance that a transaction holds; its bytes are still where they came from.

        Parameters
        ----------
        key, hashed
            The series of the transaction, and whether it is one of hashed UIDs.
        """
        instance = cls(member.record.original_path, member.record.dependencies)
        instance._record, instance._payload = member.record, member.payload
        instance._note_names(key, hashed=hashed)
        return instance

    def _note_names(self, key: SeriesKey, *, hashed: bool) -> None:
        if hashed and self._record is not None:
            self._hashed_names = key.study_uid, key.series_uid, self._record.name_uid

    # -- bytes

    @property
    def source(self) -> Source:
        """Where the bytes are and how to open them."""
        if self._source is None:
            client = self.transport_params.get("client")
            if client is None and self._reader is not None and self._is_stored:
                client = self._reader.store.client
            opened = source_of if client is not None or self._opener is None else self._opener
            self._source = opened(self.dicom_uri, client)
        return self._source

    def open_by(self, opener: Callable[[str, Any], Source]) -> None:
        """Let a source that is not known yet be found by `opener`, which shares connections between instances."""
        self._opener = opener

    @property
    def file_key(self) -> str | Source:
        """What two instances share only if they are one file: a listed one's `dicom_uri` is without its secrets."""
        return self.dicom_uri if self._listed is None else self._listed

    @property
    def known_size(self) -> int | None:
        """The file's size in bytes, where it was hinted or listed; nothing is read."""
        return self.hints.size if self._source is None or self.hints.size is not None else self._source.size

    @property
    def temporary_bytes(self) -> int:
        """How much of a temporary file, an archive that was unpacked, is kept for this instance."""
        return 0 if self._source is None else temporary_bytes(self._source)

    @property
    def is_nested_in_tar(self) -> bool:
        """Whether the file is a member of a tar."""
        return NestedUri.parse(self.dicom_uri) is not None

    @property
    def facts(self) -> DicomFacts | None:
        """What was measured so far; None before anything was."""
        return self._facts

    @property
    def record(self) -> InstanceRecord | None:
        """What its series has on record, for an instance that is stored or staged."""
        return self._record

    def open(self, offset_table: OffsetTable | None = None) -> BinaryIO:
        """Open the file; a stored one costs only the ranges that are read.

        Parameters
        ----------
        offset_table
            "extended": a stored file shows an Extended Offset Table, so that lazy readers find its frames at once; see
            :meth:`CODObject.open_instance`.  Files that are not stored yet are opened as they are.

        Raises
        ------
        InstanceValidationError, StorageError
            If it cannot be read.
        """
        if self._record is not None and self._reader is not None and self._is_stored:
            return self._reader.open_instance(self._record, offset_table)
        return self._payload.open() if self._payload is not None else self.source.open()

    @property
    def _is_stored(self) -> bool:
        return self._reader is not None and self.is_nested_in_tar

    def fetch(self, directory: Path | None = None) -> Path:
        """Return a local file with the bytes; a remote one is copied, and `dicom_uri` then says where.

        Parameters
        ----------
        directory
            Where to put a copy; None: a temporary folder, which lives as long as the series is open, or until
            :meth:`close` for an instance that is of no open series.
        """
        directory = directory or self._own_folder()
        if self._record is not None and self._reader is not None and self._is_stored:
            path = directory / f"{self._record.name_uid}.dcm"
            with replacing(path) as copy:
                copy.writelines(self._reader.iter_instance(self._record))
        else:
            path = copied(self.source, directory)
        self.moved_to(path)
        return path

    def _own_folder(self) -> Path:
        if self._scratch is not None:
            return self._scratch()
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="cod-")
        return Path(self._temporary.name)

    def close(self) -> None:
        """Delete the copies that the instance made."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def moved_to(self, path: Path) -> None:
        """Note that the bytes are in a local file now."""
        self.dicom_uri = str(path)
        self._source, self._listed = FileSource(self._original_path, path), None

    # -- facts

    def measured(self) -> DicomFacts:
        """Return what was measured on the file, reading it if that has not happened yet.

        Raises
        ------
        InstanceValidationError
            If it is not a DICOM instance that can be stored.
        HintMismatchError
            If a hint does not describe it.
        """
        if self._facts is None:
            if self._is_stored:
                self.fetch()
            try:
                self._facts = measure(self.source, self.hints)
            except HintMismatchError as error:
                raise self.told(error) from None
        return self._facts

    def staged_as(self, record: InstanceRecord) -> None:
        """Note that a series has taken the instance; the header is kept in its packed form only."""
        self._record, self._facts = record, None

    def stored_in(self, series: Series, name_uid: str) -> None:
        """Note which series holds the instance, or will with its commit, and under which UID."""
        self._place = series, name_uid

    def delete_dependencies(self, dryrun: bool = False, validate_blob_hash: bool = True) -> list[str]:  # noqa: FBT001, FBT002
        """Delete what the instance was made of, once it is stored and its stored bytes are those on record.

        Parameters
        ----------
        dryrun
            Compare everything and delete nothing.
        validate_blob_hash
            Whether a dependency must hold the very file that was given (CRC32C and size).  Where there are several,
            they were made into the file; then only the one that it was read from, if it is among them, can be compared.

        Returns
        -------
        list of str
            The URIs that were deleted, or would be; those that were gone already are not among them.

        Raises
        ------
        DependencyError
            If the instance is not stored, or a dependency must stay: it holds other bytes, is a part of the datastore,
            or is neither a local file nor an object.  Nothing has been deleted then.
        HashMismatchError, TarMissingInstanceError
            If the stored bytes are damaged.

        Notes
        -----
        An object is deleted only at the generation that was compared.
        """
        if not self.dependencies:
            return []
        if self._place is None:
            raise DependencyError(self.original_path, "is not stored, so its dependencies are needed")
        series, name_uid = self._place
        stored = verified_record(series, name_uid, self._record)
        client = self.transport_params.get("client", series.store.client)
        opened = partial(source_of, client=client, stores={})
        owed = [(replace(stored, original_path=self.original_path), self.dependencies)]
        return delete_dependencies(series.store, owed, opened, dryrun=dryrun, validate_blob_hash=validate_blob_hash)

    def take_place(self, path: Path) -> None:
        """Note that another file, `path`, is stored in the place of the one that was read ahead."""
        if self.prepared is not None:
            self.prepared.discard()
            self.prepared = replace(self.prepared, copy=path)

    def validate(self) -> None:
        """Open and measure the file and check every hint.

        Raises
        ------
        InstanceValidationError, HintMismatchError
            As :meth:`measured`.
        """
        self.measured()

    @property
    def metadata(self) -> dict[str, Any]:
        """The header: DICOM JSON (PS3.18 Annex F) of dataset and file meta information.

        Raises
        ------
        MetadataError
            If the one that is stored cannot be unpacked.
        """
        if self._record is not None:
            return header_of(self.dicom_uri, self._record)
        header: dict[str, Any] = json.loads(with_bulk_data_base(self.measured().header, self.dicom_uri))
        return header

    @property
    def has_pixeldata(self) -> bool:
        """Whether the dataset has (Float, Double Float) Pixel Data."""
        return self._record.has_pixeldata if self._record is not None else self.measured().has_pixeldata

    def size(self, trust_hints_if_available: bool = False) -> int:  # noqa: FBT001, FBT002
        """Return the file's size in bytes."""
        if trust_hints_if_available and self.hints.size is not None:
            return self.hints.size
        return self._record.size if self._record is not None else self.measured().size

    def crc32c(self, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the file's CRC32C in base64."""
        if trust_hints_if_available and self.hints.crc32c is not None:
            return self.hints.crc32c
        return checksum.encode(self._record.crc32c if self._record is not None else self.measured().crc32c)

    # -- as a value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instance):
            return NotImplemented
        # Not `is`: a bound method is another object each time that it is looked up.
        return self.uid_hash_func == other.uid_hash_func and all(
            getattr(self, name)() == getattr(other, name)() for name in ("instance_uid", "series_uid", "study_uid")
        )

    __hash__ = None  # type: ignore[assignment]  # UIDs may have to be read: nothing for a dict to do by itself

    def __repr__(self) -> str:
        return f"Instance({self.dicom_uri})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_temporary": None, "_scratch": None, "_opener": None}
