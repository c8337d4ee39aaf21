"""The files of a series redacted: all of them, or none."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.redaction.image import open_image
from cloud_optimized_dicom.redaction.model import FileState, RedactedInstance, RedactionRecord
from cloud_optimized_dicom.redaction.plan import PlannedImage, group_regions, plan_images
from cloud_optimized_dicom.redaction.write import Work, write_redacted
from cloud_optimized_dicom.whole_files import new_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_optimized_dicom.bounding_box import PixelRedaction
    from cloud_optimized_dicom.redaction.model import RedactionOptions, TargetFile


def redact_files(
    redactions: Sequence[PixelRedaction], files: Mapping[str, TargetFile], options: RedactionOptions, uri: str = ""
) -> RedactionRecord:
    """Overwrite boxes of pixels in local files, each of which is replaced by a new one.

    Parameters
    ----------
    files
        By UID, the file of every instance that may be named.
    uri
        Of the series, for an error.

    Raises
    ------
    ValueError
        If there is no reviewer.
    RedactionError
        One of its kinds; no file has changed.
    MissingDependencyError
        Without a codec that is needed; no file has changed.

    Notes
    -----
    Everything is checked first, and every new file is complete before the first one takes its place.  Holds one
    decoded frame at a time.
    """
    if not options.reviewer.strip():
        raise ValueError("reviewer must say who asks for the redaction")
    planned = plan_images(group_regions(redactions, files, uri), files, options)
    with ExitStack() as unfinished:
        made = []
        for item in planned:
            path, done = _redact(item, options)
            unfinished.callback(path.unlink, missing_ok=True)
            made.append((path, item.image.path, done))
        for path, place, _ in made:
            path.replace(place)
    return RedactionRecord(options.reviewer, options.when, options.is_clean, tuple(done for *_, done in made))


def _redact(planned: PlannedImage, options: RedactionOptions) -> tuple[Path, RedactedInstance]:
    """Write the new file of an image; return where it is, and what was done."""
    image = planned.image
    with new_file(image.path.parent, ".dcm", ".redacted-") as file:
        with open_image(image) as opened:
            fill = write_redacted(Work(opened, planned.regions, options), file)
        file.flush()
        facts = inspect_dicom(file, image.name, bulk_data_uri=lambda *_: "")
    after = FileState(facts.transfer_syntax_uid, facts.size, facts.crc32c)
    return Path(file.name), RedactedInstance(image.name, planned.regions, fill, image.state, after)
