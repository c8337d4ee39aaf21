"""Series whose instances are told apart by their pictures, and changes of their thumbnails that may be killed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom import Instance
from cloud_optimized_dicom.errors import StaleReadError
from cloud_optimized_dicom.testing.gcs_server import Fault
from tests.crash.checks import PASSED, Later
from tests.crash.scenes import KEY, open_series
from tests.crash.traces import stored_pictures
from tests.thumbnail.scenes import image, ramp, uid, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.testing.gcs_server import GcsControl
    from tests.crash.kills import KillingStore

SIZE = 32
_NUMBERS = {uid(number): number for number in (1, 2, 3)}


@dataclass(frozen=True)
class Album:
    """DICOM files of one series: 1 grows brighter to the right, 2 to the left, 3 downwards."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> Album:
        """Make the files."""
        folder.mkdir()
        pictures = {1: ramp(), 2: ramp(turned=True), 3: np.ascontiguousarray(ramp().T)}
        for number, pixels in pictures.items():
            uids = {"StudyInstanceUID": KEY.study_uid, "SeriesInstanceUID": KEY.series_uid}
            write(folder, image(number, pixels, **uids))[0].source.local_path.rename(folder / f"{number}.dcm")
        return cls(folder)

    def instances(self, *numbers: int) -> list[Instance]:
        """Return new instances of some of the files."""
        return [Instance(self.folder / f"{number}.dcm") for number in numbers]


def numbers_in(pictures: NDArray[np.uint8]) -> list[int]:
    """Return which instances some pictures show; 0 for one that shows none."""
    found = []
    for picture in pictures.reshape(-1, *pictures.shape[-3:]).astype(float):
        across = picture[:, -SIZE // 4 :].mean() - picture[:, : SIZE // 4].mean()
        down = picture[-SIZE // 4 :].mean() - picture[: SIZE // 4].mean()
        steep = {1: across, 2: -across, 3: down}
        best = max(steep, key=lambda number: steep[number])
        found.append(best if steep[best] > 100 else 0)
    return found


Step = tuple[str, tuple[int, ...], bool]
"""A commit: its mode (or "remove"), the instances, and whether a thumbnail is asked for."""


@dataclass(frozen=True)
class Redrawing:
    """A change of a thumbnail: the commits before it, and the one that is killed."""

    before: tuple[Step, ...]
    change: Step


REDRAWINGS = {
    "first": Redrawing((("a", (1,), False),), ("a", (), True)),
    "grows": Redrawing((("a", (1,), True),), ("a", (2,), True)),
    "is-put-right": Redrawing((("a", (1, 2), True), ("a", (3,), False)), ("a", (), True)),
    "shrinks": Redrawing((("a", (1, 2), True),), ("remove", (1,), True)),
    "goes": Redrawing((("a", (1, 2), True),), ("remove", (1,), False)),
    "is-replaced": Redrawing((("a", (1, 2), True),), ("w", (3,), True)),
}


def commit(store: ObjectStore, album: Album, step: Step) -> None:
    """Do one commit."""
    mode, numbers, drawn = step
    with open_series(store, "a" if mode == "remove" else mode) as cod:
        if mode == "remove":
            cod.remove(uid(number) for number in numbers)
        elif numbers:
            assert len(cod.append(album.instances(*numbers)).new) == len(numbers)
        if drawn:
            cod.get_thumbnail(thumbnail_size=SIZE)


def prepare(store: ObjectStore, album: Album, name: str) -> None:
    """Make what there is before a change."""
    for step in REDRAWINGS[name].before:
        commit(store, album, step)


def change(store: ObjectStore, album: Album, name: str) -> None:
    """Do a change."""
    commit(store, album, REDRAWINGS[name].change)


def on_store(name: str, store: KillingStore, album: Album) -> None:
    """Die before or after a store operation of a change."""
    change(store, album, name)


def on_server(name: str, store: ObjectStore, album: Album, control: GcsControl, faults: Sequence[Fault]) -> None:
    """Have the server kill this process as it receives a request of a change."""
    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"  # as in `kills`
    control.inject(*(Fault(**(fault.as_json() | {"pid": os.getpid()})) for fault in faults))
    change(store, album, name)


def present(store: ObjectStore) -> list[int]:
    """Return which instances the series holds, in reading order."""
    with open_series(store) as cod:
        return [_NUMBERS[name] for name in cod.get_instances()]


def drawn_objects(store: ObjectStore) -> dict[str, list[int]]:
    """Return which instances the objects show that are thumbnails, by their names."""
    return {name: numbers_in(pictures) for name, pictures in stored_pictures(store).items()}


@dataclass(frozen=True)
class Aftermath:
    """What is asserted behind a change that was interrupted: which instances there were, and are to be.

    Parameters
    ----------
    decided
        Whether the change is to be there in the end.
    """

    store: ObjectStore
    album: Album
    old: list[int]
    new: list[int]
    decided: bool

    def check_now(self) -> None:
        """Check that a reader gets pictures of what it sees, and that nothing shows what was removed."""
        seen = present(self.store)
        assert seen in ([self.new] if self.old == self.new else [self.old, self.new])
        with open_series(self.store) as cod:
            try:
                assert numbers_in(cod.get_thumbnail(thumbnail_size=SIZE)) == seen
            except StaleReadError:  # what is to go cannot be drawn any more, and what showed it has gone first
                assert self.decided
                assert seen == self.old != self.new
        for name, shown in drawn_objects(self.store).items():
            assert 0 not in shown, name
            if self.decided:
                assert set(shown) <= set(self.new), f"{name} shows what was removed"

    def check_next_writer(self, arrive: Callable[[], Any] | None = None, *, behind: bool = False) -> None:
        """Let the next writer draw what there is; with it, or `behind` it, arrives what the dead one had under way."""
        with open_series(Later(self.store, PASSED), "a") as cod:
            if arrive is not None and not behind:
                arrive()
            cod.get_thumbnail(thumbnail_size=SIZE)
        if arrive is not None and behind:
            arrive()
        seen = present(self.store)
        assert seen == (self.new if self.decided else self.old)
        with open_series(self.store) as cod:
            assert numbers_in(cod.get_thumbnail(thumbnail_size=SIZE)) == seen
            assert not cod.verify().damaged

    def check_settled(self, *, anew: bool = False) -> None:
        """Make sure that the thumbnail is stored, and that there is nothing else: no lock, no segment, no old picture.

        Parameters
        ----------
        anew
            Draw it once more before: what arrived behind the last writer is gone after that.
        """
        if anew:
            with open_series(Later(self.store, PASSED), "a") as cod:
                cod.get_thumbnail(thumbnail_size=SIZE // 2)
        seen = present(self.store)
        with open_series(self.store) as cod:
            assert numbers_in(cod.get_thumbnail(generate_if_missing=False)) == seen
        extension = "jpg" if len(seen) == 1 else "mp4"
        assert drawn_objects(self.store) == {f"thumbnail.{extension}": seen}
        with open_series(self.store) as cod:
            assert cod.verify().ok
        names = {info.name for info in self.store.list(f"{KEY.folder}/")}
        assert names == {KEY.metadata, f"{KEY.folder}/thumbnail.{extension}"}
