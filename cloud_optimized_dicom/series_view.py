"""A series to look at: names, records, instances, frames.  Everything here reads; nothing changes what is stored."""

from __future__ import annotations

import copy
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cloud_optimized_dicom.errors import (
    InstanceNotFoundError,
    SeriesMismatchError,
)
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.series.bulk_data import BulkDataPlace, read_bulk_data
from cloud_optimized_dicom.series.extract import extract, iter_whole, pull_tar
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.order import in_reading_order
from cloud_optimized_dicom.series.verify import raise_first_damage, verify_series
from cloud_optimized_dicom.uids import SeriesKey, check_uid, member_uri

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np

    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.findings import VerifyReport
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.series.virtual_file import OffsetTable
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.thumbnail.access import Thumbnails


class SeriesView(ABC):
    """What can be asked of a series, whichever way it is open.

    Parameters
    ----------
    temp_dir
        Where temporary files go; None: a folder of the system's.
    """

    def __init__(self, store: ObjectStore, key: SeriesKey, temp_dir: str | os.PathLike[str] | None) -> None:
        self.store, self.key = store, key
        self._temp_dir = temp_dir
        self._stack = ExitStack()
        self._directory: Path | None = None
        self._frames: FrameReader | None = None
        self._drawn: Thumbnails | None = None

    @property
    @abstractmethod
    def _document(self) -> SeriesDocument:
        """The document, with what is staged applied to it."""

    @abstractmethod
    def _open_reader(self) -> SeriesReader:
        """Return the reader of what is stored; `CODObjectNotFoundError` if there is nothing."""

    @abstractmethod
    def _thumbnails(self) -> Thumbnails:
        """Return the thumbnails of the series as it is open."""

    @abstractmethod
    def _known_reader(self) -> SeriesReader | None:
        """Return the reader of what is stored, if there is one already."""

    @abstractmethod
    def _instance(self, record: InstanceRecord) -> Instance:
        """Return the instance of a record of :attr:`_document`."""

    def _scratch(self) -> Path:
        if self._directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="cod-", dir=self._temp_dir)
            self._directory = Path(self._stack.enter_context(temporary))
        return self._directory

    def _clean_up(self) -> None:
        self._frames = self._drawn = None
        self._stack.close()
        self._stack, self._directory = ExitStack(), None

    # -- names

    @property
    def datastore_series_uri(self) -> str:
        """The series' folder."""
        return self.store.url_of(self.key.folder)

    @property
    def tar_uri(self) -> str:
        """The series' tar."""
        return self.store.url_of(self.key.tar)

    @property
    def metadata_uri(self) -> str:
        """The series' metadata.json."""
        return self.store.url_of(self.key.metadata)

    @property
    def index_uri(self) -> str:
        """The index that older readers use."""
        return self.store.url_of(self.key.index)

    @property
    def error_log_uri(self) -> str:
        """The quarantine marker."""
        return self.store.url_of(self.key.error_log)

    # -- reading

    def get_metadata(self) -> dict[str, Any]:
        """Return a copy of the series' document as JSON, with what is staged applied to it."""
        return copy.deepcopy(dict(self._document.raw))

    def get_metadata_field(self, name: str) -> Any:
        """Return a copy of a custom field, or None."""
        return copy.deepcopy(self._document.find_field(name))

    def get_instances(self, strict_sorting: bool = True) -> dict[str, Instance]:  # noqa: FBT001, FBT002
        """Return the instances by the UID they are stored under, in reading order.

        Raises
        ------
        ValueError
            If `strict_sorting` and neither InstanceNumber nor SliceLocation orders them.
        """
        records = in_reading_order(self._document.iter_records(), strict=strict_sorting)
        return {record.name_uid: self._instance(record) for record in records}

    def get_instance(self, uid: str) -> Instance:
        """Return one instance; `InstanceNotFoundError` if there is none of that UID."""
        return self._instance(self._record(uid))

    def get_instance_by_index(self, index: int) -> Instance:
        """Return an instance by its place in reading order; `InstanceNotFoundError` if there is none."""
        instances = list(self.get_instances().values())
        if not -len(instances) <= index < len(instances):
            raise InstanceNotFoundError(str(index), self.datastore_series_uri)
        return instances[index]

    def open_instance(self, instance: Instance | str | int, offset_table: OffsetTable | None = None) -> BinaryIO:
        """Open one instance as a seekable binary file; only what is read of it is fetched.

        Parameters
        ----------
        instance
            Itself, its UID, or its place in reading order.
        offset_table
            None: the file as it is stored.  "extended": the same with an Extended Offset Table (PS3.3 section
            C.7.6.3.1.8) in its header and an empty Basic Offset Table, so that a reader that knows it finds every frame
            without a scan.  Where the Standard allows none (native or deflated pixel data, frames of several fragments)
            or there is one already, the file is as it is stored.

        Notes
        -----
        The header is one request, and so is every frame that is read from, unless it is larger than 2 MiB: of such come
        blocks.  A file of up to 2 MiB is fetched whole by its first read.  A whole read is checked against the recorded
        CRC32C.
        """
        if isinstance(instance, int):
            return self.get_instance_by_index(instance).open(offset_table)
        uid = instance if isinstance(instance, str) else self._name_uid(instance)
        return self.get_instance(uid).open(offset_table)

    def read_frames(
        self, uid: str, frames: Sequence[int] | None = None, *, verify_checksums: bool = True
    ) -> list[bytes]:
        """Return frames (0-based; None: all) as stored: encoded, fragments joined.

        Notes
        -----
        One frame is one request of exactly its bytes.  Of many, those that lie close together come in one request, at
        most a quarter of the bytes being such as nobody asked for, and requests run in parallel.

        Raises
        ------
        FrameNotFoundError, HashMismatchError, FrameTableError
            If there is no such frame, or its bytes are not those that were stored.
        """
        return self._frame_reader().read(self._record(uid), frames, verify_checksums=verify_checksums)

    def _frame_reader(self) -> FrameReader:
        if self._frames is None:
            self._frames = FrameReader(self._open_reader())
        return self._frames

    def read_frame_array(self, uid: str, frame: int) -> np.ndarray[Any, Any]:
        """Return one decoded frame, (rows, columns[, samples]), as pydicom's ``pixel_array`` has it.

        Raises
        ------
        FrameNotFoundError, HashMismatchError, FrameTableError
            As :meth:`read_frames`.
        FrameDecodeError
            If the frame does not decode; `UnsupportedFrameError` if nothing decodes frames of its kind.
        MissingDependencyError
            If it takes a codec that is not installed (extra ``codecs``).
        """
        from cloud_optimized_dicom.dicom.decode import FrameDecoder  # noqa: PLC0415 - loads codecs

        record = self._record(uid)
        encoded = self.read_frames(uid, [frame])[0]
        header = header_of(self.metadata_uri, record)
        uri = member_uri(self.tar_uri, record.name_uid)
        syntax = self._frame_reader().transfer_syntax(record, header)
        return FrameDecoder.of(header, syntax, uri).decode(encoded, frame)

    def read_volume(self, *, rescale: bool = False) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the series as one volume and where it lies in the patient.

        Parameters
        ----------
        rescale
            Apply each frame's rescale slope and intercept; the volume is then float32.

        Returns
        -------
        volume : ndarray
            Of shape (slices, rows, columns), slices in ascending order along the normal of their planes.
        affine : ndarray
            Of shape (4, 4): from (slice, row, column) to LPS coordinates in mm.

        Raises
        ------
        VolumeError
            For colour, mixed geometry, a gap, or frames that do not say where they lie.

        Notes
        -----
        Frames are read in a few large requests, in parallel, and decoded straight into the one array.
        """
        from cloud_optimized_dicom.series.volume import read_volume  # noqa: PLC0415 - loads codecs

        reader = self._open_reader()
        return read_volume(FrameReader(reader), list(reader.document.iter_records()), self.tar_uri, rescale=rescale)

    def get_thumbnail(
        self,
        generate_if_missing: bool = True,  # noqa: FBT001, FBT002
        instance_uid: str | None = None,
        thumbnail_size: int = 128,
    ) -> np.ndarray[Any, Any]:
        """Return every frame of the series, in reading order, as a small picture; see :class:`Thumbnails`.

        Parameters
        ----------
        generate_if_missing
            Make it where none of this size shows what the series holds now.  A writing mode commits it with the rest.
        instance_uid
            Only this instance's frames.
        thumbnail_size
            The side of each picture in pixels; the image is in its middle, its sides in proportion.

        Returns
        -------
        ndarray
            uint8, of shape (frames, size, size, 3); of (size, size, 3) where there is one frame.

        Raises
        ------
        SeriesMissingPixelDataError
            If no instance has pixel data.
        ThumbnailNotFoundError
            If there is none and none is to be made.
        MissingDependencyError
            Without the extra ``thumbnail``, or a codec.
        """
        return self._thumbnails().get(thumbnail_size, make=generate_if_missing).of(instance_uid)

    def get_instance_by_thumbnail_index(self, index: int) -> Instance:
        """Return the instance that a picture of the thumbnail shows; `InstanceNotFoundError` if there is none."""
        return self.get_instance(self._thumbnails().instance_uid(index))

    def iter_instances(self, batch_bytes: int = 64 << 20) -> Iterator[tuple[str, bytes]]:
        """Yield every stored instance's UID and bytes, in the order of the tar, each CRC32C checked.

        Parameters
        ----------
        batch_bytes
            How much is read ahead, by parallel requests, and held at a time; an instance is never split.
        """
        reader = self._open_reader()
        yield from iter_whole(reader, list(reader.document.iter_records()), batch_bytes)

    def read_bulk_data(self, uri: str) -> bytes:
        """Return a value that a header names by a BulkDataURI.

        Raises
        ------
        ValueError
            If the URI has no place in it (older writers' have none), or is of another series.
        InstanceNotFoundError
            If the instance is not there.
        """
        place = BulkDataPlace.parse(uri)
        record = self._record(place.instance_uid)
        return read_bulk_data(self._open_reader(), record, place)

    def pull_tar(self) -> Path:
        """Fetch the whole tar into a temporary file that lives as long as the ``with`` block.

        Raises
        ------
        TarValidationError
            If its size or CRC32C are not the recorded ones.
        StaleReadError
            If it was rewritten by another writer; opened again, the series gives the new one.

        Notes
        -----
        What was appended since the series was opened is left out.
        """
        path = self._scratch() / f"{self.key.series_uid}.tar"
        pull_tar(self._open_reader(), path)
        return path

    def extract_locally(self, directory: str | os.PathLike[str] | None = None) -> dict[str, Path]:
        """Write every stored instance to a local file, its CRC32C checked; return the files by UID.

        Parameters
        ----------
        directory
            Where to; None: a temporary folder that lives as long as the ``with`` block.
        """
        target = Path(directory) if directory is not None else self._scratch() / "instances"
        reader = self._open_reader()
        return extract(reader, reader.document.iter_records(), target)

    def verify(self) -> VerifyReport:
        """Check metadata against tar, every member and every checksum; nothing is raised for what is found."""
        return verify_series(self.store, self.key, known=self._known_reader())

    def integrity_check(self) -> None:
        """Raise for the first thing that is wrong with what is stored.

        Raises
        ------
        TarMissingInstanceError, HashMismatchError, TarValidationError
            By what is damaged.
        """
        raise_first_damage(self.verify(), self.tar_uri)

    def assert_instance_belongs_to_cod_object(self, instance: Instance) -> bool:
        """Return True for an instance of this series.

        Raises
        ------
        SeriesMismatchError
            For any other.
        HashedUidsError
            For one with a `uid_hash_func` where the series is not one of hashed UIDs, and the other way round.
        """
        hashed = self._document.hashed_uids
        instance.check_hashing(hashed=hashed)
        found = instance.get_study_uid(hashed), instance.get_series_uid(hashed)
        if found != (self.key.study_uid, self.key.series_uid):
            raise SeriesMismatchError(instance.dicom_uri, f"study {found[0]}, series {found[1]}", str(self.key))
        return True

    # -- records and instances

    def _record(self, uid: str) -> InstanceRecord:
        return self._document.get(check_uid(uid, "instance"))

    def _name_uid(self, instance: Instance) -> str:
        if instance.record is not None:
            return instance.record.name_uid
        return instance.get_instance_uid(self._document.hashed_uids)

    def _uids(self, instances: Iterable[Instance | str] | Instance | str) -> list[str]:
        items = [instances] if isinstance(instances, Instance | str) else instances
        return [item if isinstance(item, str) else self._name_uid(item) for item in items]
