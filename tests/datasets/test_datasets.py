"""What items are, and which there are."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.datasets import (
    FrameDataset,
    HeaderView,
    SliceDataset,
    VolumeDataset,
    keep_encoded,
    with_monai_meta,
)
from cloud_optimized_dicom.errors import CODObjectNotFoundError, StaleReadError
from cloud_optimized_dicom.testing.datasets import kinds
from cloud_optimized_dicom.testing.datasets.slides import slide_tiles
from tests.dicom import oracle
from tests.realfiles import real_file

from .conftest import CHEST, HEAD, SLIDE, TILES, fill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.datasets import EncodedFrame

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PIXELS = {
    series.instance_uid(index): series.pixels(index) for series in (HEAD, CHEST) for index in range(series.instances)
}


def is_ct(header: HeaderView) -> bool:
    """Filter by modality."""
    return bool(header.get("Modality") == "CT")


def check_slice(item: Mapping[str, Any]) -> None:
    """Compare a CT slice with what it was made from."""
    assert (item["image"] == PIXELS[item["instance_uid"]]).all()
    assert item["image"].dtype == np.uint16


# -- frames


def test_frames_of_every_store(datastore: Datastore) -> None:
    """Every frame of every series is an item, with its UIDs, in whatever order and how often it is asked for."""
    dataset = FrameDataset(datastore)
    assert len(dataset) == 7 + TILES
    assert {key.series_uid for key in dataset.series} == {HEAD.uids.series, CHEST.uids.series, SLIDE.series}
    items = dataset.__getitems__([*range(len(dataset)), 3, 3, -1])
    assert np.array_equal(items[-1]["image"], items[len(dataset) - 1]["image"])
    assert items[-2]["instance_uid"] == items[3]["instance_uid"]
    for number, item in enumerate(items[: len(dataset)]):
        key = dataset.series[dataset.groups[number]]
        assert (item["study_uid"], item["series_uid"]) == (key.study_uid, key.series_uid)
        if item["series_uid"] == SLIDE.series:
            assert item["image"].shape == (64, 64, 3)
        else:
            check_slice(item)
    tiles = [item["frame"] for item in items[: len(dataset)] if item["series_uid"] == SLIDE.series]
    assert tiles == list(range(TILES))


def test_a_dataset_is_a_sequence(datastore: Datastore) -> None:
    """A dataset is iterated over to its end, and refuses items that it does not have."""
    dataset = FrameDataset(datastore, where=is_ct)
    items = list(dataset)
    assert len(items) == len(dataset) == 7
    for item in items:
        check_slice(item)
    for number in (7, -8):
        with pytest.raises(IndexError):
            dataset[number]
    assert dataset.__getitems__([]) == []


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "ExplVR_BigEnd.dcm",
        "MR2_J2KR.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_rle_2frame.dcm",
        "emri_small.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "examples_palette.dcm",
        "examples_ybr_color.dcm",
        "image_dfl.dcm",
        "liver.dcm",
        "rtdose.dcm",
    ],
)
def test_real_files_are_what_pydicom_has(name: str, tmp_path: Path) -> None:
    """Every frame of a real file is what pydicom's pixel_array has there, in a form that torch takes."""
    path = real_file(name).path
    datastore = Datastore(tmp_path / "store")
    assert datastore.ingest([path]).count("new") == 1
    file = oracle.read(path.read_bytes())
    dataset = FrameDataset(datastore)
    assert len(dataset) == int(file.get("NumberOfFrames", 1))
    items = dataset.__getitems__(range(len(dataset)))
    pixels = file.pixel_array
    assert np.array_equal(np.stack([item["image"] for item in items]).reshape(pixels.shape), pixels)
    for item in items:
        assert item["image"].dtype == pixels.dtype.newbyteorder("=")
        assert item["image"].flags.writeable
        assert item["image"].flags.c_contiguous


@pytest.mark.parametrize(
    "make",
    [kinds.jpeg2000, kinds.htj2k, kinds.native, kinds.deflated, kinds.big_endian],
    ids=lambda make: make.__name__,
)
def test_made_files(make: Any, tmp_path: Path) -> None:
    """Frames of kinds that real files lack, fragmented ones too, are the pixels that they were made from."""
    pixels = kinds.make_frames(5, 16, 12)
    path = tmp_path / "made.dcm"
    path.write_bytes(make(pixels, fragments=3) if make in {kinds.jpeg2000, kinds.htj2k} else make(pixels))
    Datastore(tmp_path / "store").ingest([path])
    items = FrameDataset(tmp_path / "store").__getitems__([4, 0, 2])
    assert np.array_equal([item["image"] for item in items], pixels[[4, 0, 2]])


STORES = sorted(
    entry["store"] for entry in json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))["series"]
)


@pytest.mark.parametrize("name", STORES)
def test_stores_of_older_writers(name: str) -> None:
    """Frames of series without versions and with frame tables that are not to be believed are read right."""
    dataset = FrameDataset(GOLDEN / name, decode=keep_encoded)
    items = dataset.__getitems__(range(len(dataset)))
    by_uid: dict[str, list[Any]] = {}
    for item in items:
        by_uid.setdefault(item["instance_uid"], []).append(item["image"])
    for key in Datastore(GOLDEN / name).series():
        with Datastore(GOLDEN / name).open(key.study_uid, key.series_uid) as cod:
            for uid, instance in cod.get_instances(strict_sorting=False).items():
                if instance.has_pixeldata:
                    assert by_uid.pop(uid) == cod.read_frames(uid)
    assert not by_uid


# -- slices and volumes


def test_slices_lie_where_their_volume_has_them(datastore: Datastore) -> None:
    """Slices come along the normal of their volume, each with the affine that leads to it; a slide has none."""
    dataset, volumes = SliceDataset(datastore), VolumeDataset(datastore)
    assert (len(dataset), len(volumes)) == (7, 2)
    assert [skipped.uri.rpartition("/")[2] for skipped in dataset.skipped] == [SLIDE.series]
    assert "colour" in dataset.skipped[0].reason
    assert dataset.groups.tolist() == [0] * len(volumes[0]["image"]) + [1] * len(volumes[1]["image"])
    for number, item in enumerate(dataset.__getitems__(range(7))):
        check_slice(item)
        volume = volumes[dataset.groups[number]]
        assert (volume["image"][item["slice"]] == item["image"]).all()
        corner = [0, 5, 7, 1]
        assert np.allclose(item["affine"] @ corner, volume["affine"] @ [item["slice"], 5, 7, 1])
        assert item["affine"].shape == (4, 4)


@pytest.mark.parametrize("rescale", [False, True])
def test_volumes_are_those_of_their_series(datastore: Datastore, *, rescale: bool) -> None:
    """A volume, its type and its affine are what read_volume gives."""
    dataset = VolumeDataset(datastore, rescale=rescale)
    for number, item in enumerate(dataset.__getitems__([0, 1])):
        key = dataset.series[dataset.groups[number]]
        with datastore.open(key.study_uid, key.series_uid) as cod:
            volume, affine = cod.read_volume(rescale=rescale)
        assert item["image"].dtype == volume.dtype
        assert (item["image"] == volume).all()
        assert np.array_equal(item["affine"], affine)
        assert (item["study_uid"], item["series_uid"]) == (key.study_uid, key.series_uid)


def test_a_real_enhanced_instance(tmp_path: Path) -> None:
    """An enhanced MR of 176 frames is 176 slices, or one volume."""
    path = real_file("philips_mprage.dcm.gz").path_in(tmp_path)
    Datastore(tmp_path / "store").ingest([path])
    slices, volumes = SliceDataset(tmp_path / "store"), VolumeDataset(tmp_path / "store")
    assert (len(slices), len(volumes)) == (176, 1)
    pixels, volume = pydicom.dcmread(path).pixel_array, volumes[0]["image"]
    for item in slices.__getitems__([0, 90, 175]):
        assert (item["image"] == pixels[item["frame"]]).all()
        assert (item["image"] == volume[item["slice"]]).all()


def test_slices_that_do_not_stack_are_told(tmp_path: Path) -> None:
    """A series with a gap is left out with its reason; its frames are items all the same."""
    folder = tmp_path / "files"
    folder.mkdir()
    for index in (0, 1, 3):
        (folder / f"{index}.dcm").write_bytes(HEAD.instance(index))
    Datastore(tmp_path / "store").ingest([folder])
    dataset = SliceDataset(tmp_path / "store")
    assert len(dataset) == 0
    (skipped,) = dataset.skipped
    assert "gap" in skipped.reason
    assert skipped.uri.endswith(HEAD.uids.series)
    assert len(FrameDataset(tmp_path / "store")) == 3


# -- choices


def test_series_are_named_by_key_or_uri(datastore: Datastore) -> None:
    """A dataset of some series takes keys, and URIs of folders, tars and metadata; a missing series raises."""
    (chest,) = (key for key in datastore.series() if key.series_uid == CHEST.uids.series)
    for name in (chest, *(f"{datastore.url}/{part}" for part in (chest.folder, chest.tar, chest.metadata))):
        assert FrameDataset(datastore, [name]).series == (chest,)
    gone = f"{datastore.url}/studies/1.2/series/3.4"
    with pytest.raises(CODObjectNotFoundError):
        FrameDataset(datastore, [gone])
    with pytest.raises(ValueError, match="names no series"):
        FrameDataset(datastore, [datastore.url])


def test_series_of_several_datastores(tmp_path: Path) -> None:
    """URIs alone say where their series are, each in a datastore of its own."""
    fill(Datastore(tmp_path / "one"), tmp_path / "files" / "one")
    fill(Datastore(tmp_path / "two"), tmp_path / "files" / "two")
    uris = [
        f"{tmp_path}/one/studies/{HEAD.uids.study}/series/{HEAD.uids.series}",
        f"file://{tmp_path}/two/studies/{CHEST.uids.study}/series/{CHEST.uids.series}.tar",
    ]
    dataset = SliceDataset(series=uris)
    assert [key.series_uid for key in dataset.series] == [HEAD.uids.series, CHEST.uids.series]
    for item in dataset.__getitems__(range(7)):
        check_slice(item)
    with pytest.raises(TypeError, match="datastore"):
        FrameDataset(series=dataset.series)


def test_a_filter_sees_headers(datastore: Datastore) -> None:
    """A filter asks by keyword or tag, gets one value or a list, and chooses instances; one that takes none is fine."""
    seen: list[HeaderView] = []

    def last_of_chest(header: HeaderView) -> bool:
        seen.append(header)
        return bool(header.get("InstanceNumber") == 3 and header.get("SeriesInstanceUID") == CHEST.uids.series)

    dataset = FrameDataset(datastore, where=last_of_chest)
    assert [item["instance_uid"] for item in dataset] == [CHEST.instance_uid(2)]  # type: ignore[attr-defined]
    ct = next(header for header in seen if header.get("00080060") == "CT")
    assert len(ct.get("PixelSpacing")) == 2
    assert ct.get("NumberOfFrames", 1) == 1
    assert "Rows" in ct
    with pytest.raises(KeyError):
        ct.get("NoSuchKeyword")
    for kind in (FrameDataset, SliceDataset, VolumeDataset):
        empty = kind(datastore, where=lambda _: False)
        assert (len(empty), empty.series, empty.skipped) == (0, (), ())
        assert empty.groups.tolist() == []


def doubled(encoded: EncodedFrame) -> Any:
    """Decode native 16-bit pixels, times two."""
    assert encoded.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    return np.frombuffer(encoded.data, "<u2").reshape(16, 12) * 2


def test_frames_are_decoded_as_asked(datastore: Datastore) -> None:
    """A decoder of the caller's gets the encoded frame; `keep_encoded` gives it as it is stored."""
    for item in SliceDataset(datastore, where=is_ct, decode=doubled).__getitems__([0, 6]):
        assert (item["image"] == PIXELS[item["instance_uid"]] * 2).all()
    slide = FrameDataset(datastore, where=lambda header: header.get("Modality") == "SM", decode=keep_encoded)
    tiles = slide_tiles(TILES, tile_size=64)
    for item in slide.__getitems__([39, 3]):
        assert item["image"].rstrip(b"\0") == tiles[item["frame"]].rstrip(b"\0")


def broken(_encoded: EncodedFrame) -> Any:
    """Fail."""
    raise ValueError("no")


def test_a_frame_that_does_not_decode_is_named(datastore: Datastore) -> None:
    """The decoder's own error comes through, with a note of which frame it was."""
    with pytest.raises(ValueError, match="no") as caught:
        FrameDataset(datastore, where=is_ct, decode=broken)[0]
    assert any("frame 0 of instance 2.25." in note for note in caught.value.__notes__)


def test_rescaled_frames(datastore: Datastore) -> None:
    """Slope and intercept are applied on request, and give float32."""
    for item in FrameDataset(datastore, where=is_ct, rescale=True).__getitems__([1, 5]):
        assert item["image"].dtype == np.float32
        assert (item["image"] == PIXELS[item["instance_uid"]].astype(np.float32) - 1024).all()


def test_items_are_transformed(datastore: Datastore) -> None:
    """What the transform returns is the item."""
    dataset = SliceDataset(datastore, transform=lambda item: item["image"].mean())
    assert dataset[2] == pytest.approx(SliceDataset(datastore)[2]["image"].mean())


def test_items_for_monai(datastore: Datastore) -> None:
    """MONAI's metadata has the affine in RAS, for volumes and for slices, which become volumes of one."""
    for item in (VolumeDataset(datastore)[0], SliceDataset(datastore)[3]):
        made = with_monai_meta(item)
        meta = made["image_meta_dict"]
        assert np.array_equal(meta["affine"], np.diag([-1, -1, 1, 1]) @ item["affine"])
        assert made["image"].shape == tuple(meta["spatial_shape"])
        assert made["image"].ndim == 3
        assert meta["space"] == "RAS"


# -- series that change


def test_what_was_appended_to_is_read_on(datastore: Datastore, tmp_path: Path) -> None:
    """A dataset stays as it was made while its series grows: the same items, read from the new tar."""
    dataset = SliceDataset(datastore)
    check_slice(dataset[0])
    path = tmp_path / "late.dcm"
    path.write_bytes(changed(HEAD.instance(0), "2.25.77"))
    with datastore.open(HEAD.uids.study, HEAD.uids.series, "a") as cod:
        assert len(cod.append([Instance(path)]).new) == 1
    for item in dataset.__getitems__(range(7)):
        check_slice(item)
    assert len(FrameDataset(datastore, where=is_ct)) == 8


def test_what_was_removed_or_replaced_is_said_to_be(datastore: Datastore, tmp_path: Path) -> None:
    """Items of instances that went away raise, each time; the others of the series are read where they are now."""
    dataset = FrameDataset(datastore, where=is_ct)
    uids = [item["instance_uid"] for item in dataset.__getitems__(range(7))]
    removed, replaced = (uids.index(HEAD.instance_uid(index)) for index in (0, 2))
    with datastore.open(HEAD.uids.study, HEAD.uids.series, "a") as cod:
        cod.remove([uids[removed], uids[replaced]])
    path = tmp_path / "other.dcm"
    path.write_bytes(changed(HEAD.instance(2), HEAD.instance_uid(2)))
    with datastore.open(HEAD.uids.study, HEAD.uids.series, "a") as cod:
        assert len(cod.append([Instance(path)]).new) == 1
    for _ in range(2):
        with pytest.raises(StaleReadError, match="removed") as caught:
            dataset[removed]
        assert caught.value.instance_uid == uids[removed]
        for number in set(range(7)) - {removed, replaced}:
            check_slice(dataset[number])
        with pytest.raises(StaleReadError, match="replaced"):
            dataset[replaced]


def changed(data: bytes, uid: str) -> bytes:
    """Return an instance with another UID and comment."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.ImageComments = "changed"
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def test_a_dataset_pickles_small(tmp_path: Path) -> None:
    """A pickled dataset reads on, and its index takes some hundred bytes an instance, however large the headers."""
    datastore = fill(Datastore(tmp_path / "store"), tmp_path / "files")
    dataset = SliceDataset(datastore)
    check_slice(pickle.loads(pickle.dumps(dataset))[4])
    frames = FrameDataset(datastore)
    assert frames.nbytes <= 110 * 8 + 45 * (7 + TILES)
    assert b"Synthetic" not in pickle.dumps(dataset)
