"""Frames as pictures: what the header says of grey values and colours, and what is done where it says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from cloud_optimized_dicom.thumbnail.lookup import BinaryValues
from cloud_optimized_dicom.thumbnail.render import Renderer
from tests.realfiles import real_file
from tests.thumbnail.scenes import image, ramp

if TYPE_CHECKING:
    from numpy.typing import NDArray


def no_bulk(uri: str) -> bytes:
    """Refuse: these headers hold their values."""
    raise ValueError(uri)


def render(dataset: Dataset, frame: int = 0, *, big_endian: bool = False) -> NDArray[np.uint8]:
    """Return a frame of a dataset as a picture."""
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    array = dataset.pixel_array
    several = int(dataset.get("NumberOfFrames", 1)) > 1
    header = {tag: value for tag, value in dataset.to_json_dict().items() if tag != "7FE00010"}
    return Renderer.of(header, BinaryValues(no_bulk, big_endian)).render(array[frame] if several else array, frame)


def expected(dataset: Dataset) -> NDArray[np.float64]:
    """Return what pydicom makes of a grey image, from 0 to 255 over the range that its window maps to."""
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    signed, bits = dataset.PixelRepresentation == 1, dataset.BitsStored
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    low, high = low * slope + intercept, high * slope + intercept
    grey = (shown - low) * 255 / (high - low)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_are_those_of_pydicom(function: str, photometric: str) -> None:
    """Each function of the Standard, behind a rescale, upright and inverted, gives what pydicom gives."""
    dataset = image(
        1,
        ramp().astype(np.int16) - 1000,
        WindowCenter=[40, 7],
        WindowWidth=[800, 9],
        VOILUTFunction=function,
        RescaleSlope=2,
        RescaleIntercept=-100,
        PhotometricInterpretation=photometric,
    )
    assert np.abs(render(dataset) - expected(dataset)).max() <= 0.51


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "RG1_UNCR.dcm", "RG3_UNCR.dcm", "693_UNCR.dcm"])
def test_real_windows_are_those_of_pydicom(name: str) -> None:
    """Real images with a window look as pydicom has them; one without a window fills the range of grey."""
    dataset = pydicom.dcmread(real_file(name).path)
    if "WindowCenter" in dataset:
        assert np.abs(render(dataset) - expected(dataset)).max() <= 0.51
    else:
        assert np.ptp(render(dataset)) == 255


def lookup(values: Any, first: int, bits: int) -> Sequence:
    """Return a LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, bits])
    item.add_new("LUTData", "US", list(values))
    return Sequence([item])


def test_lookup_tables_are_used() -> None:
    """A modality LUT and a VOI LUT are applied one after the other; what lies outside gets their ends."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    modality = lookup(range(0, 120, 4), 10, 16)
    voi = lookup(np.linspace(0, 255, 100).astype(int).tolist(), 5, 8)
    dataset = image(1, pixels, ModalityLUTSequence=modality, VOILUTSequence=voi)
    middle = np.clip(pixels.astype(int) - 10, 0, 29) * 4
    assert (render(dataset) == np.linspace(0, 255, 100).astype(int)[np.clip(middle - 5, 0, 99)]).all()


@pytest.mark.parametrize("name", ["mlut_18.dcm", "vlut_04.dcm"])
def test_real_lookup_tables_are_those_of_pydicom(name: str) -> None:
    """A real modality LUT, and a real VOI LUT, give what pydicom gives."""
    dataset = pydicom.dcmread(real_file(name).path)
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
    picture = render(dataset).astype(np.float64)
    assert np.corrcoef(shown.ravel(), picture.ravel())[0, 1] > 0.999
    assert np.ptp(picture) > 200


@pytest.mark.parametrize(
    ("name", "big_endian"), [("examples_palette.dcm", False), ("OBXXXX1A.dcm", False), ("OBXXXX1A_expb.dcm", True)]
)
def test_palettes_are_those_of_pydicom(name: str, big_endian: bool) -> None:
    """Palette colours are those of pydicom, in either byte order."""
    dataset = pydicom.dcmread(real_file(name).path)
    little = pydicom.dcmread(real_file(name.replace("_expb", "")).path)
    assert (render(dataset, big_endian=big_endian) == apply_color_lut(little.pixel_array, little) >> 8).all()


def test_a_palette_that_does_not_serve_is_shown_in_grey() -> None:
    """A PALETTE COLOR image without a palette is not lost."""
    dataset = image(1, ramp(top=255).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    assert render(dataset).shape == (32, 32)
    assert np.ptp(render(dataset)) == 255


def test_without_a_window_the_range_is_spread() -> None:
    """Without a window the darkest and brightest pixels are black and white, a few outliers clipped."""
    pixels = ramp(100, 100, 500) + 3000
    pixels[0, 0] = 65535
    picture = render(image(1, pixels))
    assert picture.min() == 0
    assert (picture == 255).mean() < 0.05
    assert abs(int(picture[50, 50]) - 128) < 5


def test_padding_does_not_count() -> None:
    """Pixels of the padding value, and of its range, do not set the range that is spread."""
    pixels = ramp(100, 100, 500) + 3000
    pixels[:50] = 0
    pixels[:25] = 7
    picture = render(image(1, pixels, PixelPaddingValue=0, PixelPaddingRangeLimit=10))
    assert np.ptp(picture[60]) > 250


def test_a_window_that_hides_the_image_is_not_used() -> None:
    """Where a window would make one flat area of an image that is none, the range is spread."""
    assert np.ptp(render(image(1, ramp(), WindowCenter=-5000, WindowWidth=10))) == 255
    assert np.ptp(render(image(1, ramp(), WindowCenter=100, WindowWidth=0))) == 255


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (200, 200), (255, 255)])
def test_a_blank_image_stays_blank(value: int, grey: int) -> None:
    """An image of one value is one shade, as bright as the value is of its range."""
    assert (render(image(1, np.full((8, 8), value, np.uint8))) == grey).all()


def test_bytes_are_shown_as_they_are() -> None:
    """8-bit images that use their range are not stretched; a mask of zeros and ones is."""
    pixels = (ramp(top=150).astype(np.uint8)) + 20
    assert (render(image(1, pixels)) == pixels).all()
    assert np.unique(render(image(1, (pixels > 80).astype(np.uint8)))).tolist() == [0, 255]


def test_colours_keep_their_high_bits() -> None:
    """RGB of 8 bits is shown as it is, of 16 by its high bytes."""
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    assert (render(image(1, pixels)) == pixels).all()
    assert (render(image(1, pixels.astype(np.uint16) << 8)) == pixels).all()


def test_functional_groups_are_per_frame() -> None:
    """Each frame of an enhanced image has its own window and rescale; the shared ones serve the others."""

    def group(**attributes: Any) -> Dataset:
        values, window = Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, attributes["intercept"], "US"
        window.WindowCenter, window.WindowWidth = attributes["center"], 4096
        item = Dataset()
        item.PixelValueTransformationSequence = Sequence([values])
        item.FrameVOILUTSequence = Sequence([window])
        return item

    dataset = image(1, np.stack([ramp(), ramp()]))
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group(intercept=0, center=2048), Dataset()])
    dataset.SharedFunctionalGroupsSequence = Sequence([group(intercept=2048, center=2048)])
    first, second = render(dataset, 0).astype(int), render(dataset, 1).astype(int)
    assert first[0, 0] == 0
    assert abs(first[0, 16] - second[0, 0]) < 8
    assert second[0, -1] == 255


def test_float_pixels_may_hold_no_numbers() -> None:
    """NaN and infinity are drawn as something, and do not set the range."""
    header = {"00280010": {"vr": "US", "Value": [2]}, "7FE00008": {"vr": "OF"}}
    frame = np.array([[np.nan, 1.0], [2.0, np.inf]], np.float32)
    picture = Renderer.of(header, BinaryValues(no_bulk)).render(frame, 0)
    assert picture[0, 1] == 0
    assert picture[1, 0] == 255
    assert (Renderer.of(header, BinaryValues(no_bulk)).render(frame * np.nan, 0) == 0).all()
