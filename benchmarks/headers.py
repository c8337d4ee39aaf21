"""A file's header as DICOM JSON, by our walk and by pydicom's ``dcmread`` and ``to_json_dict``, on real files."""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pydicom

from benchmarks.figures import Row, Spent, at_least
from benchmarks.registry import benchmark
from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.dicom.header import HeaderBuilder
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.dicom.source import open_source
from cloud_optimized_dicom.dicom.values import dump_short_element
from cloud_optimized_dicom.errors import InstanceValidationError
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from benchmarks.workbench import Workbench

_INLINE_BYTES = 1024
_WHOLE_BYTES = 8 << 20
_PYDICOM_READERS = tuple(f"/pydicom/{name}.py" for name in ("dataelem", "dataset", "filereader", "jsonrep", "values"))


@dataclass(frozen=True)
class HeaderFigures:
    """The files of one kind.

    Parameters
    ----------
    cold_seconds, warm_seconds
        Of ours, each file with nothing remembered, and as one of a series whose other files were read before.
    fell_back
        Files for which ours called pydicom's reader.
    only_ours
        Files that pydicom cannot convert; they are in no time.
    """

    kind: str
    files: int
    reference_seconds: float
    cold_seconds: float
    warm_seconds: float
    fell_back: int
    only_ours: int

    def row(self) -> Row:
        """Return the row: the cold times, which are the worse ones."""
        ratio = self.reference_seconds / self.cold_seconds if self.cold_seconds else 0.0
        warm = self.reference_seconds / self.warm_seconds if self.warm_seconds else 0.0
        is_all = self.kind == "all"
        return Row(
            "headers",
            f"{self.kind}, {self.files} files",
            Spent(self.cold_seconds, self.cold_seconds),
            goals=(at_least("speed", "x pydicom", ratio, 4),) if is_all else (),
            reference=Spent(self.reference_seconds, self.reference_seconds),
            reference_is="pydicom",
            note=f"{warm:.1f}x in a series; {self.fell_back} fell back to pydicom, which cannot convert"
            f" {self.only_ours} of them"
            if is_all
            else "",
        )


@benchmark("headers", "a file's header as DICOM JSON, beside pydicom's dcmread and to_json_dict, on real files")
def measure_headers(bench: Workbench) -> Iterator[Row]:
    """Yield the figures of each modality of set (a), the largest number of files first, of all files, and a slice."""
    kinds: dict[str, list[bytes]] = defaultdict(list)
    for file in real_files():
        data = file.read()
        try:
            kinds[_modality(data)].append(data)
        except InstanceValidationError:
            continue
    if bench.scale.is_quick:
        kinds = {"US": kinds["US"]}
    figures = [_measure(kind, files, bench.scale.rounds) for kind, files in kinds.items()]
    figures.sort(key=lambda each: (-each.files, each.kind))
    for each in [*figures, _total(figures)]:
        yield each.row()
    yield _measure_slice(bench)


def _measure_slice(bench: Workbench) -> Row:
    """Return all that is found out about a CT slice of a series whose other slices were read before."""
    slices = [bench.data.ct_series.instance(number) for number in range(bench.scale.rounds + 1)]
    ours, floor = bench.compare(
        lambda number: inspect_dicom(io.BytesIO(slices[number]), "ct", bulk_data_uri=lambda *_: ""),
        lambda number: crc32c(slices[number]),
        is_warm=True,
    )
    return Row("headers", "CT slice, all of its inspection", replace(ours, traffic=None), floor, "its CRC32C")


def _modality(data: bytes) -> str:
    with open_source(io.BytesIO(data), "file", whole_bytes=_WHOLE_BYTES) as source:
        element = next((element for element in source.walk() if element.tag == 0x00080060), None)  # noqa: PLR2004
        return (element.read(source.reader).decode("latin-1").strip(" \0") if element else "") or "none"


def _measure(kind: str, files: Iterable[bytes], rounds: int) -> HeaderFigures:
    reference = cold = warm = 0.0
    count = fell_back = only_ours = 0
    for data in files:
        count += 1
        fell_back += _calls_pydicom(partial(_ours, data))
        try:
            taken = _fastest(partial(_reference, data), rounds)
        except Exception:  # noqa: BLE001  (whatever pydicom raises)
            only_ours += 1
            continue
        reference += taken
        cold += _fastest(partial(_ours, data), rounds, before=dump_short_element.cache_clear)
        warm += _fastest(partial(_ours, data), rounds)
    return HeaderFigures(kind, count, reference, cold, warm, fell_back, only_ours)


def _total(figures: list[HeaderFigures]) -> HeaderFigures:
    return HeaderFigures(
        "all",
        sum(each.files for each in figures),
        sum(each.reference_seconds for each in figures),
        sum(each.cold_seconds for each in figures),
        sum(each.warm_seconds for each in figures),
        sum(each.fell_back for each in figures),
        sum(each.only_ours for each in figures),
    )


def _ours(data: bytes) -> bytes:
    with open_source(io.BytesIO(data), "file", whole_bytes=_WHOLE_BYTES) as source:
        builder = HeaderBuilder(source.reader, "file")
        builder.add_elements(source.meta, source.meta_encoding)
        builder.add_dataset(source.dataset_start, source.encoding)
        return builder.dump(lambda _: "")


def _reference(data: bytes) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        return dataset.to_json_dict(bulk_data_threshold=_INLINE_BYTES, bulk_data_element_handler=lambda _: "")


def _calls_pydicom(work: Callable[[], object]) -> bool:
    called = False

    def note(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal called
        called = called or (event == "call" and frame.f_code.co_filename.endswith(_PYDICOM_READERS))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return called


def _fastest(work: Callable[[], object], rounds: int, *, before: Callable[[], object] = lambda: None) -> float:
    taken = []
    for _ in range(rounds):
        before()
        taken.append(_seconds(work))
    return min(taken)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
