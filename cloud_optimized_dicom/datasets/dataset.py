"""Map-style datasets over series: what `torch.utils.data.DataLoader` asks for, without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.datasets.access import EncodedFrame, FrameAccess, portable
from cloud_optimized_dicom.datasets.build import BuildOptions, SkippedSeries, Wanted, build_index
from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.dicom.decode import pixel_dtype
from cloud_optimized_dicom.ranges import FetchPolicy
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from cloud_optimized_dicom.datasets.header import HeaderView
    from cloud_optimized_dicom.datasets.items import FrameItem, SliceItem, VolumeItem
    from cloud_optimized_dicom.storage.base import ObjectStore

_EVERYTHING = FetchPolicy(max_waste=4.0)
"""Between the slices of a volume lie headers, which cost less than a request each."""


class SeriesDataset(ABC):
    """What the datasets have in common.

    Parameters
    ----------
    datastore
        A `Datastore`, its URL or path, or a store.  None: each of `series` is a URI that says where it is.
    series
        Keys, or URIs of folders, tars or metadata; None: all of the datastore.
    where
        Takes a `HeaderView`; False leaves the instance out.  Called once per instance with pixel data, from several
        threads, and not kept.
    transform
        Called with each item; what it returns is the item.
    decode
        Makes an image of an `EncodedFrame`, instead of pydicom's decoders.
    rescale
        Apply each frame's rescale slope and intercept; images are then float32.

    Raises
    ------
    CODObjectNotFoundError
        If a series that was named is not there.
    ValueError
        If a URI names no series.

    Notes
    -----
    Making a dataset reads the metadata of every series once, in parallel, and keeps of it what finding a frame takes:
    about 110 bytes an instance and 45 a frame.  Reading an item then costs exactly its frames.  Frames of one series
    that are asked for together come in few requests, and several series are read at a time.

    Datasets pickle, without connections or credentials and without reading again; threads may share one; a forked
    process opens connections of its own.  `transform` and `decode` must pickle where workers are spawned.

    A dataset stays as it was made.  Instances that are appended later are not in it.  What moves within a series is
    found where it is; reading what was removed or replaced raises `StaleReadError`, or `CODObjectNotFoundError` where
    the whole series is gone.
    """

    _stacked = True

    def __init__(
        self,
        datastore: Datastore | str | os.PathLike[str] | ObjectStore | None = None,
        series: Iterable[SeriesKey | str] | None = None,
        *,
        where: Callable[[HeaderView], bool] | None = None,
        transform: Callable[[Any], Any] | None = None,
        decode: Callable[[EncodedFrame], Any] | None = None,
        rescale: bool = False,
    ) -> None:
        stores, wanted = _wanted(datastore, series)
        index, skipped = build_index(stores, wanted, BuildOptions(where, stacked=self._stacked))
        self.skipped: tuple[SkippedSeries, ...] = skipped
        self.transform = transform
        self._frames = FrameAccess(stores, index, decode, rescale=rescale)
        self._index = index

    @property
    def series(self) -> tuple[SeriesKey, ...]:
        """The series that items are of, in order."""
        return tuple(place.key for place in self._index.places)

    @property
    def groups(self) -> NDArray[np.int32]:
        """Per item the number of its series in :attr:`series`: to keep a series on one side of a split."""
        return self._groups()

    @property
    def nbytes(self) -> int:
        """Size of what a dataset keeps of its series."""
        return self._index.nbytes

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _groups(self) -> NDArray[np.int32]: ...

    @abstractmethod
    def _read(self, numbers: Sequence[int]) -> Sequence[Any]:
        """Read items by their numbers."""

    def __getitem__(self, number: int) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """Return several items, read together; a DataLoader asks for its batches this way.

        Raises
        ------
        IndexError
            If there is no such item.
        StaleReadError
            If an instance was removed or replaced since the dataset was made.
        HashMismatchError
            If stored bytes are not those that were stored.
        """
        length = len(self)
        found = [int(number) for number in numbers]
        if any(not -length <= number < length for number in found):
            raise IndexError(f"the dataset has {length} items")
        items = self._read([number % length for number in found])
        return [item if self.transform is None else self.transform(item) for item in items]

    def _images(self, rows: Sequence[int]) -> list[Any]:
        images: list[Any] = [None] * len(rows)
        self._frames.read_each(rows, images.__setitem__)
        return images

    def _frame_item(self, row: int, image: Any) -> FrameItem:
        instance = int(self._index.frames["instance"][row])
        entry = self._index.instances[instance]
        key = self._index.places[int(entry["series"])].key
        return {
            "image": image,
            "study_uid": key.study_uid,
            "series_uid": key.series_uid,
            "instance_uid": self._index.uid(instance),
            "frame": row - int(entry["first_frame"]),
        }


class FrameDataset(SeriesDataset):
    """Every frame of every instance, as `FrameItem`: series by series, in the order of their metadata."""

    _stacked = False

    def __len__(self) -> int:
        return len(self._index.frames)

    def _groups(self) -> NDArray[np.int32]:
        return np.asarray(self._index.instances["series"][self._index.frames["instance"]])

    def _read(self, numbers: Sequence[int]) -> Sequence[FrameItem]:
        return [self._frame_item(row, image) for row, image in zip(numbers, self._images(numbers), strict=True)]


class SliceDataset(SeriesDataset):
    """Every frame of every series that stacks into a volume, as `SliceItem`: along the normal of the volume.

    Notes
    -----
    Series that do not stack, as `CODObject.read_volume` has it, are in `skipped`, with the reason.
    """

    def __len__(self) -> int:
        return len(self._order)

    @property
    def _order(self) -> NDArray[np.int64]:
        return self._index.order if self._index.order is not None else np.zeros(0, np.int64)

    def _groups(self) -> NDArray[np.int32]:
        return np.repeat(self._index.stacks["series"], self._index.stacks["slices"])

    def _read(self, numbers: Sequence[int]) -> Sequence[SliceItem]:
        rows = [int(row) for row in self._order[numbers]]
        images = self._images(rows)
        return [self._item(*one) for one in zip(numbers, rows, images, strict=True)]

    def _item(self, number: int, row: int, image: Any) -> SliceItem:
        stack = self._index.stacks[self._index.stack_of(number)]
        position = number - int(stack["first"])
        affine = stack["affine"].copy()
        affine[:3, 3] += position * affine[:3, 0]
        frame = self._frame_item(row, image)
        return {**frame, "affine": affine, "slice": position}


class VolumeDataset(SeriesDataset):
    """Every series that stacks into a volume, as `VolumeItem`.

    Notes
    -----
    Volumes are those of `CODObject.read_volume`.  Series that do not stack are in `skipped`, with the reason.  A
    `decode` of its own must return arrays of the type that pydicom gives.
    """

    def __len__(self) -> int:
        return len(self._index.stacks)

    def _groups(self) -> NDArray[np.int32]:
        return self._index.stacks["series"].copy()

    def _read(self, numbers: Sequence[int]) -> Sequence[VolumeItem]:
        return [self._item(number) for number in numbers]

    def _item(self, number: int) -> VolumeItem:
        stack, order = self._index.stacks[number], self._index.order
        if order is None:
            raise IndexError(number)
        rows = [int(row) for row in order[stack["first"] : stack["first"] + stack["slices"]]]
        volume = self._empty(rows)
        self._frames.read_each(rows, volume.__setitem__, _EVERYTHING)
        key = self._index.places[int(stack["series"])].key
        return {
            "image": portable(volume),
            "affine": stack["affine"].copy(),
            "study_uid": key.study_uid,
            "series_uid": key.series_uid,
        }

    def _empty(self, rows: Sequence[int]) -> NDArray[Any]:
        index = self._index
        numbers = np.unique(index.instances["description"][index.frames["instance"][rows]])
        headers = [index.pixels[number].header for number in numbers]
        shape = (len(rows), *(int(headers[0][tag]["Value"][0]) for tag in ("00280010", "00280011")))
        kind = np.dtype(np.float32) if self._frames.rescale else np.result_type(*map(pixel_dtype, headers))
        return np.empty(shape, kind)


def _wanted(
    datastore: Datastore | str | os.PathLike[str] | ObjectStore | None, series: Iterable[SeriesKey | str] | None
) -> tuple[list[ObjectStore], Iterable[Wanted]]:
    """Return the stores, and the series to index by the numbers of theirs."""
    if datastore is not None:
        opened = datastore if isinstance(datastore, Datastore) else Datastore(datastore)
        if series is None:
            return [opened.store], (Wanted(0, key, named=False) for key in opened.series())
        return [opened.store], [
            Wanted(0, one if isinstance(one, SeriesKey) else _key_of(one), named=True) for one in series
        ]
    numbers: dict[str, int] = {}
    wanted = []
    for uri in series or ():
        if not isinstance(uri, str):
            raise TypeError("a series key needs a datastore")
        key = _key_of(uri)
        root = uri[: uri.rindex(key.folder)].rstrip("/") or ("/" if uri.startswith("/") else ".")
        wanted.append(Wanted(numbers.setdefault(root, len(numbers)), key, named=True))
    return [open_store(root) for root in numbers], wanted


def _key_of(uri: str) -> SeriesKey:
    key = SeriesKey.parse(uri)
    if key is None:
        raise ValueError(f"{uri} names no series: ...studies/STUDY/series/SERIES is expected")
    return key
