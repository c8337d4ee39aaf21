"""A file's header as DICOM JSON, by our walk and by pydicom's ``dcmread`` and ``to_json_dict``, on real files."""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pydicom

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.dicom.header import HeaderBuilder
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.dicom.source import open_source
from cloud_optimized_dicom.dicom.values import dump_short_element
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.format.dicom_json import pack_header
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from tests.realfiles import real_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

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

    @property
    def cold_ratio(self) -> float:
        """How many times faster than pydicom, at the least."""
        return self.reference_seconds / self.cold_seconds if self.cold_seconds else 0.0

    @property
    def warm_ratio(self) -> float:
        """How many times faster than pydicom, within a series."""
        return self.reference_seconds / self.warm_seconds if self.warm_seconds else 0.0


@dataclass(frozen=True)
class StageFigures:
    """Seconds for a CT slice of 512 x 512 pixels: all of its inspection, packing its header, and its CRC32C alone."""

    inspect_seconds: float
    pack_seconds: float
    crc32c_seconds: float


def measure_headers(rounds: int) -> list[HeaderFigures]:
    """Return the figures of each modality of set (a), the largest number of files first, and of all files."""
    kinds: dict[str, list[bytes]] = defaultdict(list)
    for file in real_files():
        data = file.read()
        try:
            kinds[_modality(data)].append(data)
        except InstanceValidationError:
            continue
    figures = [_measure(kind, files, rounds) for kind, files in kinds.items()]
    figures.sort(key=lambda each: (-each.files, each.kind))
    return [*figures, _total(figures)]


def measure_stages(rounds: int) -> StageFigures:
    """Return the times of one slice of a series whose other slices were inspected before."""
    slices = list(CtSeries(rounds + 1))
    packed = inspect_dicom(io.BytesIO(slices[0]), "ct", bulk_data_uri=lambda _, span: f"{span.start}").header
    inspect = [
        _seconds(lambda data=data: inspect_dicom(io.BytesIO(data), "ct", bulk_data_uri=lambda *_: ""))
        for data in slices[1:]
    ]
    return StageFigures(
        inspect_seconds=min(inspect),
        pack_seconds=_fastest(lambda: pack_header(packed), rounds),
        crc32c_seconds=_fastest(lambda: crc32c(slices[0]), rounds),
    )


def show_headers(rounds: int) -> list[HeaderFigures]:
    """Measure, and print one line a kind."""
    print("header to DICOM JSON, against pydicom's dcmread and to_json_dict")
    figures = measure_headers(rounds)
    for each in figures:
        print(
            f"  {each.kind:<8} {each.files:>3} files   first {each.cold_ratio:4.1f}x"
            f"   in a series {each.warm_ratio:4.1f}x   fell back {each.fell_back}   only ours {each.only_ours}"
        )
    stages = measure_stages(rounds)
    print(
        f"  CT slice: inspect {stages.inspect_seconds * 1e3:.2f} ms, pack {stages.pack_seconds * 1e3:.2f} ms,"
        f" floor (CRC32C) {stages.crc32c_seconds * 1e3:.2f} ms"
    )
    return figures


def _modality(data: bytes) -> str:
    with open_source(io.BytesIO(data), "file", whole_bytes=_WHOLE_BYTES) as source:
        element = next((element for element in source.walk() if element.tag == 0x00080060), None)  # noqa: PLR2004
        return (element.read(source.reader).decode("latin-1").strip(" \0") if element else "") or "none"


def _measure(kind: str, files: Iterable[bytes], rounds: int) -> HeaderFigures:
    reference = cold = warm = 0.0
    count = fell_back = only_ours = 0
    for data in files:
        count += 1
        fell_back += _calls_pydicom(lambda data=data: _ours(data))
        try:
            taken = _fastest(lambda data=data: _reference(data), rounds)
        except Exception:  # noqa: BLE001  (whatever pydicom raises)
            only_ours += 1
            continue
        reference += taken
        cold += _fastest(lambda data=data: _ours(data), rounds, before=dump_short_element.cache_clear)
        warm += _fastest(lambda data=data: _ours(data), rounds)
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
