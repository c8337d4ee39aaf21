"""Every real file that decodes, redacted: pixels outside the box as they were, inside equal to the fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloud_optimized_dicom.bounding_box import BoundingBox
from cloud_optimized_dicom.dicom.transcode.model import Target
from cloud_optimized_dicom.errors import RedactionError
from tests.dicom import oracle
from tests.dicom.helpers import accepted_files, facts_of
from tests.redaction.checks import NATIVE, assert_redacted, by_ours, by_pydicom, painted, redacted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.realfiles import RealFile

LARGEST_FAST_BYTES = 600_000
REFUSED_BY_PYDICOM = {"badVR.dcm", "OT-PAL-8-face.dcm"}  # for their headers; ours is then the only decoder
CHOICES: dict[str, dict[str, Any]] = {
    "own": {},
    "native": {"native": True},
    **{target.value: {"target": target} for target in Target},
}
FAST_CHOICES = {"own", "jpeg2000"}


def is_decodable(file: RealFile) -> bool:
    """Tell whether pydicom decodes the first frame of a file."""
    try:
        return next(by_pydicom(file.read(), [0]), None) is not None
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):
        return False


def cases() -> Iterator[Any]:
    """Yield every file with each choice of encoding; of a large one it takes long, and by RLE very."""
    for file in accepted_files():
        small = file.path.stat().st_size <= LARGEST_FAST_BYTES
        for choice in CHOICES if facts_of(file).has_pixeldata else ():
            if small or choice != "rle":
                marks = [] if small and choice in FAST_CHOICES else [pytest.mark.slow]
                yield pytest.param(file, choice, id=f"{file.name}-{choice}", marks=marks)


@pytest.mark.parametrize(("file", "choice"), list(cases()))
def test_real_files_are_redacted(file: RealFile, choice: str, tmp_path: Path) -> None:
    """Fill a box off the corner, by every choice of encoding, or refuse and change nothing if it does not decode."""
    data = file.read()
    pixels = oracle.read(data)
    columns, rows = int(pixels.get("Columns") or 1), int(pixels.get("Rows") or 1)
    box = BoundingBox(columns // 3, rows // 4, max(1, columns // 5), max(1, rows // 3))
    if file.path.name in REFUSED_BY_PYDICOM:
        after, done = redacted(data, tmp_path, [box], **CHOICES[choice])
        for old, new in zip(by_ours(data), by_ours(after), strict=True):
            np.testing.assert_array_equal(new, painted(old, [box], done.fill))
        return
    if not is_decodable(file):
        path = tmp_path / "instance.dcm"
        with pytest.raises(RedactionError):
            redacted(data, tmp_path, [box], **CHOICES[choice])
        assert path.read_bytes() == data
        return
    after, done = redacted(data, tmp_path, [box], **CHOICES[choice])
    assert_redacted(data, after, [box], done)
    syntax = done.after.transfer_syntax_uid
    assert syntax in NATIVE | {target.transfer_syntax_uid for target in Target}
    if choice == "native":
        assert syntax in NATIVE
    if choice == "own" and done.before.transfer_syntax_uid in NATIVE:
        assert syntax in NATIVE
