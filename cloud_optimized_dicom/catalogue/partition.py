"""One partition of a catalogue: what is unchanged is copied, what changed is read anew."""

from __future__ import annotations

import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.catalogue.columns import instance_columns, schema_of, series_columns
from cloud_optimized_dicom.catalogue.extras import pyarrow
from cloud_optimized_dicom.catalogue.manifest import PartitionFiles, file_name
from cloud_optimized_dicom.catalogue.rows import SeriesRows, read_rows
from cloud_optimized_dicom.errors import CODError, CODObjectNotFoundError
from cloud_optimized_dicom.series.files import open_range_file
from cloud_optimized_dicom.storage.base import Attributes, new_write_id
from cloud_optimized_dicom.storage.payload import FilePayload
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cloud_optimized_dicom.storage.base import ObjectStore

_ROW_GROUP = 1 << 16
_PARQUET = Attributes(content_type="application/vnd.apache.parquet")


class CatalogueFailure(NamedTuple):
    """A series that could not be read, and why; the catalogue keeps the rows that it had of it, if any."""

    uri: str
    error: CODError


class Listed(NamedTuple):
    """A series and the version of its metadata.json, as a listing showed them."""

    study_uid: str
    series_uid: str
    version: str


@dataclass(frozen=True)
class PartitionTask:
    """What one partition has to become; it pickles.

    Parameters
    ----------
    listed
        The series that belong into the partition now.
    files
        What it consists of so far, if it exists.
    """

    datastore: ObjectStore
    catalogue: ObjectStore
    number: int
    listed: tuple[Listed, ...]
    files: PartitionFiles | None


class PartitionResult(NamedTuple):
    """What a partition has become: its files (None: it is empty), and how many series were read, kept and removed."""

    number: int
    files: PartitionFiles | None
    read: int
    kept: int
    removed: int
    failures: tuple[CatalogueFailure, ...] = ()


def update_partition(task: PartitionTask, workers: int, advance: Callable[[], None] = lambda: None) -> PartitionResult:
    """Bring one partition up to date: new files are written under new names, old ones stay.

    Parameters
    ----------
    workers
        How many series are read at a time; so many are held, at most.
    advance
        Called once per series that needs reading.

    Notes
    -----
    Nothing is visible before the files are published.  Where nothing has changed nothing is written.
    """
    known = dict(_iter_known(task))
    listed = {(one.study_uid, one.series_uid): one.version for one in task.listed}
    changed = [SeriesKey(*uids) for uids, version in listed.items() if known.get(uids) != version]
    kept = {uids for uids, version in listed.items() if known.get(uids) == version}
    removed = len(known.keys() - listed.keys())
    if not changed and not removed:
        return PartitionResult(task.number, task.files, 0, len(kept), 0)
    with tempfile.TemporaryDirectory(prefix="cod-") as scratch:
        tables = _Tables(Path(scratch))
        failures = []
        for key, found in _iter_read(task.datastore, changed, workers):
            advance()
            if isinstance(found, SeriesRows):
                tables.add(found)
            elif not isinstance(found, CODObjectNotFoundError):  # those were removed since the listing
                failures.append(CatalogueFailure(task.datastore.url_of(key.folder), found))
                kept |= {(key.study_uid, key.series_uid)} & known.keys()
        if task.files is not None:
            tables.copy(task, kept)
        files = tables.store(task)
    return PartitionResult(task.number, files, len(changed), len(kept), removed, tuple(failures))


def _iter_known(task: PartitionTask) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the series that the partition has, and the version of the metadata.json that each was made from."""
    if task.files is None:
        return
    with _open(task.catalogue, task.files.series) as file:
        for batch in file.iter_batches(columns=["StudyInstanceUID", "SeriesInstanceUID", "metadata_version"]):
            for study, series, version in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield (study, series), version


def _open(store: ObjectStore, name: str) -> Any:
    """Return a ParquetFile whose bytes are read as they are needed."""
    size = store.stat(name).size
    return pyarrow("parquet").ParquetFile(open_range_file(lambda span: store.read(name, span), size, name=name))


def _iter_read(
    store: ObjectStore, keys: Iterable[SeriesKey], workers: int
) -> Iterator[tuple[SeriesKey, SeriesRows | CODError]]:
    """Yield the rows of series in the order given; only so many are read ahead."""

    def read(key: SeriesKey) -> SeriesRows | CODError:
        try:
            return read_rows(store, key)
        except CODError as error:
            return error

    ahead: deque[Any] = deque()
    with ThreadPoolExecutor(workers, "cod-catalogue") as pool:
        for key in keys:
            ahead.append((key, pool.submit(read, key)))
            if len(ahead) >= workers:
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()


@dataclass
class _Table:
    """A Parquet file in the making, in row groups of an even size."""

    path: Path
    schema: Any
    rows: int = 0
    _writer: Any = None
    _pending: list[Any] = field(default_factory=list)
    _pending_rows: int = 0

    def add(self, table: Any) -> None:
        self.rows += table.num_rows
        self._pending_rows += table.num_rows
        self._pending.append(table)
        if self._pending_rows >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pyarrow("parquet").ParquetWriter(self.path, self.schema, compression="zstd")
        if self._pending:
            self._writer.write_table(pyarrow().concat_tables(self._pending), row_group_size=_ROW_GROUP)
        self._pending, self._pending_rows = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()


class _Tables:
    def __init__(self, scratch: Path) -> None:
        self._series = _Table(scratch / "series", schema_of(series_columns()))
        self._instances = _Table(scratch / "instances", schema_of(instance_columns()))

    def add(self, rows: SeriesRows) -> None:
        """Add a series that was read."""
        from_pylist = pyarrow().Table.from_pylist
        self._series.add(from_pylist([rows.series], self._series.schema))
        self._instances.add(from_pylist(rows.instances, self._instances.schema))

    def copy(self, task: PartitionTask, kept: set[tuple[str, str]]) -> None:
        """Add what stays of the files so far."""
        if task.files is None or not kept:
            return
        pa, compute = pyarrow(), pyarrow("compute")
        wanted = pa.array([f"{study}/{series}" for study, series in kept])
        for table, name in ((self._series, task.files.series), (self._instances, task.files.instances)):
            with _open(task.catalogue, name) as file:
                for batch in file.iter_batches(_ROW_GROUP):
                    uids = compute.binary_join_element_wise(batch["StudyInstanceUID"], batch["SeriesInstanceUID"], "/")
                    rows = batch.filter(compute.is_in(uids, value_set=wanted))
                    table.add(pa.Table.from_batches([rows], rows.schema).select(table.schema.names))

    def store(self, task: PartitionTask) -> PartitionFiles | None:
        """Write the files under new names, the series last; None where there is no row."""
        if not self._series.rows:
            return None
        write_id = new_write_id()
        names = {}
        for table, kind in ((self._instances, "instances"), (self._series, "series")):
            table.close()
            names[kind] = file_name(kind, task.number, write_id)
            task.catalogue.create(names[kind], FilePayload.of(table.path), write_id=new_write_id(), attributes=_PARQUET)
        return PartitionFiles(names["series"], names["instances"], self._series.rows, self._instances.rows)
