"""Every flipped byte of a series is found by a verification, and no reader ever passes it on."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.errors import CODError, FormatError
from cloud_optimized_dicom.format.metadata.document import parse_document
from cloud_optimized_dicom.series.verify import verify_series
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from tests.core.test_golden_stores import GOLDEN
from tests.core.tiny import KEY, Contents, Flip, FlippingStore, open_tiny, tiny_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.storage.memory import MemoryStore
    from cloud_optimized_dicom.uids import SeriesKey

Note = "Callable[[str, object], None]"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """Return a store that holds the series, which nobody changes."""
    return tiny_store(tmp_path_factory.mktemp("tiny"), 0, 1, 2)


def flips_of_tar(store: ObjectStore, key: SeriesKey = KEY, step: int = 1) -> Iterator[Flip]:
    """Yield one flip for every byte of the tar, or for every so many."""
    chance = random.Random(key.series_uid)
    for at in range(0, store.stat(key.tar).size, step):
        yield Flip(key.tar, at, chance.randrange(1, 256))


def read_everything(store: ObjectStore, key: SeriesKey = KEY) -> Contents:
    """Return what a reader gets of everything: each instance's file, frames and header, or the error in its place."""

    def attempt(read: Callable[[], object]) -> object:
        try:
            return read()
        except CODError as error:
            return error

    with open_tiny(store, key=key) as cod:
        instances = cod.get_instances(strict_sorting=False)
        return Contents(
            {uid: attempt(lambda instance=instance: _file(instance)) for uid, instance in instances.items()},
            {
                uid: attempt(lambda uid=uid: cod.read_frames(uid))
                for uid, instance in instances.items()
                if instance.has_pixeldata
            },
            {uid: instance.metadata for uid, instance in instances.items()},
        )


def _file(instance: object) -> bytes:
    with instance.open() as stream:  # type: ignore[attr-defined]
        return stream.read()  # type: ignore[no-any-return]


def check_nothing_wrong(found: Contents, right: Contents) -> int:
    """Compare what a reader got with what is right; return how often it was refused."""
    assert found.headers == right.headers
    refused = 0
    for got, expected in ((found.files, right.files), (found.frames, right.frames)):
        assert got.keys() == expected.keys()
        for uid, value in got.items():
            if isinstance(value, CODError):
                refused += 1
            else:
                assert value == expected[uid]
    return refused


def test_every_flipped_byte_of_a_tar_is_found(store: MemoryStore, record_property: Note) -> None:
    """Bit rot in any one byte of the tar, headers and padding of its members included, is damage to a verification."""
    flips = list(flips_of_tar(store))
    unseen = [flip for flip in flips if not verify_series(FlippingStore(store, flip), KEY).damaged]
    record_property("points", len(flips))
    assert unseen == []
    assert len(flips) == store.stat(KEY.tar).size == 4608, "the figure in docs/guarantees.md"


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_no_reader_passes_a_flipped_byte_of_a_tar_on(store: MemoryStore, step: int, record_property: Note) -> None:
    """Whichever byte of the tar is rotten, files, frames and headers are right or refused, and one flip hurts one."""
    right = read_everything(store)
    flips = list(flips_of_tar(store, step=step))
    refusals = [check_nothing_wrong(read_everything(FlippingStore(store, flip)), right) for flip in flips]
    record_property("points", len(flips))
    assert set(refusals) == {0, 1, 2}, "padding, a file, a file and its frames"


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_every_tar_that_was_written_anew_with_a_flip_is_found(tmp_path: Path, step: int, record_property: Note) -> None:
    """A tar that somebody has replaced by one with another byte is damage, wherever the byte is."""
    changed = tiny_store(tmp_path, 0, 1, 2)
    data = b"".join(changed.iter_chunks(KEY.tar))
    flips = list(flips_of_tar(changed, step=step))
    for flip in flips:
        replace(changed, KEY.tar, flip.of(data))
        report = verify_series(changed, KEY)
        assert "tar-changed" in {finding.kind for finding in report.findings if finding.damage}, flip
    record_property("points", len(flips))
    replace(changed, KEY.tar, data)
    assert verify_series(changed, KEY).ok, "the same bytes at another version are a copy"


def test_no_reader_passes_a_replaced_byte_on(tmp_path: Path) -> None:
    """A reader of a series whose tar somebody has replaced, wherever it differs, is refused everything but headers."""
    changed = tiny_store(tmp_path, 0, 1, 2)
    right = read_everything(changed)
    data = b"".join(changed.iter_chunks(KEY.tar))
    for at in (0, 600, len(data) - 1):
        replace(changed, KEY.tar, Flip(KEY.tar, at, 1).of(data))
        assert check_nothing_wrong(read_everything(changed), right) == 5


def replace(store: ObjectStore, name: str, data: bytes) -> None:
    """Write over an object, as somebody outside the protocol would."""
    store.replace(name, BytesPayload(data), version=store.stat(name).version, write_id=new_write_id())


def test_a_thousand_flips_in_the_metadata_are_found_or_harmless(store: MemoryStore, record_property: Note) -> None:
    """A flipped byte of metadata.json is damage, to readers too, or one that the document does not depend on."""
    chance = random.Random("metadata")
    data = store.read_object(KEY.metadata).data
    right = parse_document("x", data, KEY).raw
    harmless = set()
    for _ in range(1000):
        flip = Flip(KEY.metadata, chance.randrange(len(data)), chance.randrange(1, 256))
        rotten = FlippingStore(store, flip)
        report = verify_series(rotten, KEY)
        try:
            with open_tiny(rotten) as cod:
                metadata = cod.get_metadata()
        except FormatError:
            assert [finding.kind for finding in report.findings if finding.damage] == ["metadata-damaged"], flip
        else:
            assert metadata == right, flip
            assert report.ok
            harmless.add(flip.at)
    record_property("points", 1000)
    assert len(harmless) < 20, "a flag, time and system in the head of gzip; the bits behind the end of its stream"


@pytest.mark.parametrize("step", [97, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["v2-rtdose", "v2-series", "v2-sc-rgb-rle-2frame", "v1-series"])
def test_no_reader_passes_a_flipped_byte_of_an_older_tar_on(
    name: str, step: int, tmp_path: Path, record_property: Note
) -> None:
    """The same holds for series of older writers, whose frame tables are rebuilt and have no checksums."""
    older = Datastore(shutil.copytree(GOLDEN / name, tmp_path / name))
    (key,) = older.series()
    right = read_everything(older.store, key)
    flips = list(flips_of_tar(older.store, key, step))
    refusals = [check_nothing_wrong(read_everything(FlippingStore(older.store, flip), key), right) for flip in flips]
    record_property("points", len(flips))
    assert 0 < sum(map(bool, refusals)) < len(flips)
