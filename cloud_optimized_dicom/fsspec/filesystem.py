"""The filesystem itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from fsspec.spec import AbstractFileSystem

from cloud_optimized_dicom.errors import CODError, CODObjectNotFoundError, StaleReadError
from cloud_optimized_dicom.fsspec.cache import OpenSeries, portable_client, url_of
from cloud_optimized_dicom.fsspec.paths import CodPath, Level
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.read_checks import ReadChecks
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from typing import BinaryIO

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.series.virtual_file import OffsetTable
    from cloud_optimized_dicom.storage.base import ObjectStore

Result = TypeVar("Result")


def _refuse(_: CodFileSystem, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise io.UnsupportedOperation("cod:// is read-only; CODObject and Datastore.ingest write")


class CodFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """Datastores, read-only: ``cod://bucket/prefix/studies/S/series/E/instances/I.dcm``.

    Parameters
    ----------
    target
        The datastore that paths are relative to, then ``cod://studies/S/...``: a URL, a local path or an
        :class:`~cloud_optimized_dicom.storage.base.ObjectStore`.  None: what stands before ``studies`` in each path.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None).
    offset_table
        "extended": files show an Extended Offset Table; see :meth:`CODObject.open_instance`.
    target_protocol
        Of the datastores that paths begin with: ``gs``, ``file`` or ``memory``.
    fo, target_options
        What fsspec gives for a chained URL, ``cod://studies/S/...::file:///datastore``; the options are not used.
        (fsspec insists on gcsfs for a chain that ends in ``gs://``; a path that begins with the bucket needs none.)

    Notes
    -----
    A series is opened once, one request, and kept: listing its instances with their sizes costs nothing more, and what
    is appended later is seen when it is asked for by name, with ``refresh=True``, or after :meth:`invalidate_cache`; so
    is an instance that was replaced.  A file that is open stays the instance that was opened: where that is gone,
    reading on raises `StaleReadError`.
    Threads may share a filesystem; forked and unpickled ones open connections of their own.
    """

    protocol = "cod"
    root_marker = ""

    def __init__(
        self,
        target: str | os.PathLike[str] | ObjectStore | None = None,
        *,
        client: Any = None,
        offset_table: OffsetTable | None = None,
        target_protocol: str = "gs",
        fo: str | None = None,
        target_options: Any = None,  # noqa: ARG002 - given for chained URLs
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if fo is not None:
            target = url_of(target_protocol, fo)
        self._client = client
        self._offset_table: OffsetTable | None = offset_table
        self._series = OpenSeries(target, target_protocol, client)

    def __reduce__(self) -> tuple[Any, ...]:
        options = dict(self.storage_options)
        if self._client is not None:
            options["client"] = portable_client(self._client)
        return _remade, (type(self), self.storage_args, options)

    # -- what is there

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **_: Any) -> list[Any]:  # noqa: FBT001, FBT002
        """Return what is in a folder, with the sizes of files (None where they show another offset table)."""
        place = CodPath.parse(self._strip_protocol(path))
        entries = list(self._entries(place, fresh=refresh))
        if not entries:
            raise FileNotFoundError(path)
        return entries if detail else [entry["name"] for entry in entries]

    def _entries(self, place: CodPath, *, fresh: bool) -> Iterator[dict[str, Any]]:
        if place.level == Level.INSTANCE:
            yield self.info(place.text)
        elif place.level == Level.INSTANCES:
            for record in self._reader(place, fresh=fresh).document.iter_records():
                yield self._entry(place.below(f"{record.name_uid}.dcm"), record)
        elif place.level == Level.SERIES:
            self._reader(place, fresh=fresh)
            yield _folder(place.below("instances"))
        else:
            yield from self._folders(place)

    def _folders(self, place: CodPath) -> Iterator[dict[str, Any]]:
        listed = f"studies/{place.study}/series/" if place.study else "studies/"
        names = (folder.removeprefix(listed).rstrip("/") for folder in self._store(place).list_folders(listed))
        found = (name for name in names if is_uid(name))
        if place.level in {Level.STUDIES, Level.STUDY_SERIES}:
            for name in found:
                yield _folder(place.below(name))
        elif next(found, None) is not None:
            yield _folder(place.below("series" if place.study else "studies"))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, type and size; of an instance also its CRC32C, and when it was stored."""
        place = CodPath.parse(self._strip_protocol(path))
        if place.level == Level.INSTANCE:
            entry = self._entry(place.text, self._find(place)[1])
            if entry["size"] is None:
                with self._opened(place) as file:
                    entry["size"] = file.seek(0, io.SEEK_END)
            return entry
        if next(self._entries(place, fresh=False), None) is None:
            raise FileNotFoundError(path)
        return _folder(place.text)

    def _entry(self, name: str, record: InstanceRecord) -> dict[str, Any]:
        size = None if self._offset_table else record.size
        facts = {"crc32c": record.crc32c, "modified": record.modified}
        return {"name": name, "size": size, "type": "file", **facts}

    def modified(self, path: str) -> datetime | None:
        """Return when an instance was stored; None where its record does not tell."""
        return self._find(CodPath.parse(self._strip_protocol(path)))[1].modified

    def invalidate_cache(self, path: str | None = None) -> None:
        """Open every series anew when it is next asked for."""
        self._series.forget()
        super().invalidate_cache(path)

    # -- bytes

    def _open(
        self, path: str, mode: str = "rb", block_size: Any = None, *, offset_table: OffsetTable | None = None, **_: Any
    ) -> BinaryIO:
        """Open an instance; its header is one request, and so is every frame that is read from."""
        del block_size  # frames are the blocks
        if mode != "rb":
            _refuse(self)
        return self._opened(CodPath.parse(self._strip_protocol(path)), offset_table)

    def _opened(self, place: CodPath, offset_table: OffsetTable | None = None) -> BinaryIO:
        table = offset_table or self._offset_table
        return self._current(place, lambda reader, record: reader.open_instance(record, table))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return an instance's bytes, all or some, in one request; all of them, and whole frames, are checked."""
        place = CodPath.parse(self._strip_protocol(path))
        if self._offset_table:
            with self._opened(place) as file:
                if start is None and end is None:
                    return file.read()
                span = _span(start, end, file.seek(0, io.SEEK_END))
                file.seek(span.start)
                return file.read(len(span))
        return self._current(place, lambda reader, record: _read(reader, record, start, end))

    def cat_ranges(
        self, paths: Sequence[str], starts: Any, ends: Any, max_gap: Any = None, on_error: str = "return", **_: Any
    ) -> list[Any]:
        """Return ranges of instances: of each series in one go, neighbours in one request, requests in parallel.

        Parameters
        ----------
        max_gap
            Not used: what a gap is worth is known here.
        on_error
            "return": a range that cannot be read is its error; "raise": the first error is raised.
        """
        del max_gap
        starts, ends = (
            list(given) if isinstance(given, list | tuple) else [given] * len(paths) for given in (starts, ends)
        )
        results: list[Any] = [b""] * len(paths)
        batches: dict[int, tuple[SeriesReader, list[tuple[int, InstanceRecord, ByteRange]]]] = {}
        for number, (path, start, end) in enumerate(zip(paths, starts, ends, strict=True)):
            try:
                if self._offset_table:
                    results[number] = self.cat_file(path, start, end)
                    continue
                reader, record = self._find(CodPath.parse(self._strip_protocol(path)))
            except (OSError, CODError) as error:
                results[number] = _kept(error, on_error)
                continue
            span = _span(start, end, record.size)
            if len(span):
                batches.setdefault(id(reader), (reader, []))[1].append((number, record, span))
        for reader, batch in batches.values():
            try:
                reader.read_each([(record, span) for _, record, span in batch], _taker(results, batch, reader.tar_uri))
            except CODError:  # of one of them, perhaps: each for itself
                for number in (part[0] for part in batch):
                    try:
                        results[number] = self.cat_file(paths[number], starts[number], ends[number])
                    except (OSError, CODError) as error:
                        results[number] = _kept(error, on_error)
        return results

    # -- what is behind a path

    def _store(self, place: CodPath) -> ObjectStore:
        return self._series.store(place.root)

    def _reader(self, place: CodPath, *, fresh: bool = False) -> SeriesReader:
        try:
            return self._series.reader(place.root, place.key, fresh=fresh)
        except CODObjectNotFoundError:
            raise FileNotFoundError(place.text) from None

    def _current(self, place: CodPath, act: Callable[[SeriesReader, InstanceRecord], Result]) -> Result:
        """Do something with an instance; where it was replaced since its series was opened, with the present one."""
        try:
            return act(*self._find(place))
        except StaleReadError:
            return act(*self._find(place))

    def _find(self, place: CodPath) -> tuple[SeriesReader, InstanceRecord]:
        if place.level != Level.INSTANCE:
            raise IsADirectoryError(place.text)
        reader = self._reader(place)
        record = reader.document.find(place.instance)
        if record is None:  # perhaps appended since
            reader = self._reader(place, fresh=True)
            record = reader.document.find(place.instance)
        if record is None:
            raise FileNotFoundError(place.text)
        return reader, record

    mkdir = makedirs = rmdir = rm = rm_file = _rm = mv = cp_file = pipe_file = put_file = touch = _refuse


def _remade(cls: type[CodFileSystem], arguments: Sequence[Any], options: dict[str, Any]) -> CodFileSystem:
    return cls(*arguments, **options)


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _span(start: int | None, end: int | None, size: int) -> ByteRange:
    """Return a range as slices have it: negative positions count from the end, and the end limits both."""
    first, last, _ = slice(start, end).indices(size)
    return ByteRange(first, max(first, last))


def _kept(error: Exception, on_error: str) -> Exception:
    if on_error == "raise":
        raise error
    return error


def _read(reader: SeriesReader, record: InstanceRecord, start: int | None, end: int | None) -> bytes:
    span = _span(start, end, record.size)
    if len(span) == record.size:
        return reader.read_instance(record)
    data = reader.read_span(record, span)
    ReadChecks(record, reader.tar_uri).check(span, data)
    return data


def _taker(
    results: list[Any], batch: Sequence[tuple[int, InstanceRecord, ByteRange]], tar_uri: str
) -> Callable[[int, bytes], None]:
    def take(position: int, data: bytes) -> None:
        number, record, span = batch[position]
        ReadChecks(record, tar_uri).check(span, data)
        results[number] = data

    return take
