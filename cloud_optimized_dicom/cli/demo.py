"""``python -m cloud_optimized_dicom.cli.demo``: the package at work on real DICOM, each claim checked."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.encaps import generate_frames

from cloud_optimized_dicom.cli.output import count_text, size_text
from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.errors import CODError, MissingDependencyError
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.ingest.report import IngestReport
    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.base import ReadResult
    from cloud_optimized_dicom.uids import SeriesKey

_SERIES = ("dicomdirtests/98892003/MR700", "dicomdirtests/98892001/CT5N", "dicomdirtests/77654033/CT2")
_CINE = "examples_ybr_color.dcm"  # ultrasound, 30 frames, JPEG
_FILES = (_CINE, "CT_small.dcm", "MR_small_RLE.dcm", "rtdose.dcm", "rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm")
_NOT_DICOM = "README.txt"
_FRAME = 12


class _ClaimError(Exception):
    """The demo showed something else than it says."""


def _claim(what: str, *, holds: bool) -> None:
    if not holds:
        raise _ClaimError(what)
    _say(f"   {what}")


def _say(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")


class _CountingStore(LocalStore):
    """A local store that counts what is read from it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests = self.fetched_bytes = 0

    def read_object(self, name: str) -> ReadResult:
        """Read a whole object."""
        found = super().read_object(name)
        self._count(len(found.data))
        return found

    def read_ranges(self, name: str, spans: Sequence[ByteRange], *, version: str | None = None) -> list[bytes]:
        """Read several spans; `read` comes here too."""
        pieces = super().read_ranges(name, spans, version=version)
        for piece in pieces:
            self._count(len(piece))
        return pieces

    def _count(self, size_bytes: int) -> None:
        self.requests += 1
        self.fetched_bytes += size_bytes


@dataclass
class _Demo:
    """The steps, and what they hand on."""

    inbox: Path
    datastore: Datastore
    root: Path
    held_back: Path = field(init=False)
    report: IngestReport = field(init=False)

    def run(self) -> None:
        self.collect()
        steps: tuple[tuple[str, str, Callable[[], None]], ...] = (
            ("Ingest the inbox: every series becomes one tar and one metadata.json.", "cod ingest", self.ingest),
            ("Ingest the same inbox again: nothing is stored twice.", "cod ingest", self.repeat),
            (
                "Append one slice to the MR series; readers see all of a commit or none.",
                "CODObject.append",
                self.append,
            ),
            ("Read an instance back: exactly the file that was ingested.", "CODObject.open_instance", self.read),
            ("Read one frame of an ultrasound cine, not the cine.", "CODObject.read_frames", self.frame),
            ("Compare every byte with the checksums on record.", "cod verify", self.verify),
        )
        for number, (title, name, step) in enumerate(steps, 1):
            _say(f"\n{number}. {title}  [{name}]")
            step()

    def collect(self) -> None:
        """Copy real files out of the installed pydicom into an inbox."""
        root = Path(pydicom.__file__).parent / "data/test_files"
        for folder in _SERIES:
            shutil.copytree(root / folder, self.inbox / folder)
        for name in (*_FILES, f"dicomdirtests/{_NOT_DICOM}"):
            (self.inbox / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, self.inbox / name)
        first = min((self.inbox / _SERIES[0]).iterdir())
        self.held_back = first.replace(self.inbox.parent / "late.dcm")
        files = [path for path in self.inbox.rglob("*") if path.is_file()]
        total = size_text(sum(path.stat().st_size for path in files))
        _say(f"Inbox: {count_text(len(files), 'file')}, {total}: CT, MR, ultrasound, RT, SR, ECG, and a text file.")

    def ingest(self) -> None:
        """Store the inbox, and show what lies where."""
        self.report = self.datastore.ingest([self.inbox])
        new, series = self.report.count("new"), len(self.report.series)
        _claim(f"{new} instances stored in {count_text(series, 'series')}", holds=new > len(_FILES) and series > 1)
        failed = [(result.uri.rpartition("/")[2], result.reason) for result in self.report.errors]
        reason = failed[0][1] if failed else ""
        holds = [name for name, _ in failed] == [_NOT_DICOM]
        _claim(f"1 file refused, the others went on: {_NOT_DICOM}: {reason}", holds=holds)
        _say(f"   One of them, in {self.datastore.url}:")
        for name in (self._series_of(_SERIES[0]).tar, self._series_of(_SERIES[0]).metadata):
            _say(f"     {name}  ({size_text(self.datastore.store.stat(name).size)})")

    def repeat(self) -> None:
        """Store the same inbox once more."""
        again = self.datastore.ingest([self.inbox])
        same = again.count("same")
        _claim(f"{same} instances recognised as the same, 0 new", holds=(same, again.count("new")) == self._expected)

    @property
    def _expected(self) -> tuple[int, int]:
        return self.report.count("new"), 0

    def append(self) -> None:
        """Add the file that was held back to its series."""
        key = self._series_of(_SERIES[0])
        with self.datastore.open(key.study_uid, key.series_uid) as cod:
            before = len(cod.get_instances())
        with self.datastore.open(key.study_uid, key.series_uid, mode="a") as cod:
            result = cod.append([Instance(self.held_back)])
        with self.datastore.open(key.study_uid, key.series_uid) as cod:
            after = len(cod.get_instances())
        _claim(f"{before} instances before, {after} after", holds=len(result.new) == 1 and after == before + 1)

    def read(self) -> None:
        """Compare an instance with its file."""
        original = self.held_back.read_bytes()
        key = self._series_of(_SERIES[0])
        uid = str(pydicom.dcmread(self.held_back).SOPInstanceUID)
        with self.datastore.open(key.study_uid, key.series_uid) as cod, cod.open_instance(uid) as stream:
            _claim(f"{len(original)} bytes, equal to the file", holds=stream.read() == original)
            header = cod.get_instance(uid).metadata
        _claim(f"its header, {len(header)} elements as DICOM JSON, needs no DICOM file at all", holds=bool(header))

    def frame(self) -> None:
        """Fetch a frame, count what that costs, compare it with pydicom's."""
        original = pydicom.dcmread(self.inbox / _CINE)
        frames = int(original.NumberOfFrames)
        key, uid = self._series_of(_CINE), str(original.SOPInstanceUID)
        store = _CountingStore(self.root)
        reading = self.datastore.open(key.study_uid, key.series_uid)
        reading.store = store
        with reading as cod:
            encoded = cod.read_frames(uid, [_FRAME])[0]
            requests, fetched_bytes = store.requests, store.fetched_bytes
            try:
                array = cod.read_frame_array(uid, _FRAME)
            except (NotImplementedError, RuntimeError) as error:  # how pydicom says that it has no decoder
                raise MissingDependencyError("decoding JPEG", "codecs") from error
            size = cod.get_instance(uid).size()
        expected = list(generate_frames(original.PixelData, number_of_frames=frames))[_FRAME]
        what = f"frame {_FRAME + 1} of {frames}: {requests} requests, {fetched_bytes} bytes fetched of {size}"
        whole = fetched_bytes < size // 2 and requests == 2  # noqa: PLR2004 - the metadata, then the frame
        _claim(what, holds=encoded == expected and whole)
        _claim(f"of these, the frame itself is {len(encoded)} bytes of JPEG", holds=len(encoded) < fetched_bytes)
        same: Any = (array == original.pixel_array[_FRAME]).all()
        _claim(f"decoded: an array of {array.shape}, equal to pydicom's", holds=bool(same))

    def verify(self) -> None:
        """Check the whole datastore."""
        reports = list(self.datastore.verify())
        checked = size_text(sum(report.bytes_checked for report in reports))
        instances = sum(report.instances for report in reports)
        what = f"{len(reports)} series, {instances} instances, {checked} compared: no damage"
        _claim(what, holds=all(report.ok for report in reports) and instances == self.report.count("new") + 1)

    def _series_of(self, name: str) -> SeriesKey:
        return next(result.series for result in self.report.files if f"/{name}" in result.uri and result.series)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if everything that it says is true."""
    parser = argparse.ArgumentParser(prog="python -m cloud_optimized_dicom.cli.demo", description="Show the package.")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep the datastore in this folder, new or empty")
    keep: Path | None = parser.parse_args(arguments).keep
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        parser.error(f"{keep} is there already, and not an empty folder")
    with tempfile.TemporaryDirectory(prefix="cod-demo-") as temporary:
        root = keep or Path(temporary) / "datastore"
        inbox = Path(temporary) / "inbox"
        inbox.mkdir()
        try:
            _Demo(inbox, Datastore(root), root).run()
        except (_ClaimError, CODError) as error:
            sys.stderr.write(f"\nThe demo failed. This does not hold: {error}\n")
            return 1
    _say("\nEverything above was checked while it was said.")
    _next_steps(keep)
    return 0


def _next_steps(keep: Path | None) -> None:
    if keep is None:
        _say("The datastore was temporary; python -m cloud_optimized_dicom.cli.demo --keep DIR keeps it.")
    store = keep or "STORE"
    _say("Next:")
    _say(f"  cod ls {store}               its series")
    _say("  cod info SERIES            what one holds")
    _say(f"  cod export {store} OUT       all files back, byte for byte")
    _say("  cod ingest SRC gs://bucket/prefix   the same on Google Cloud Storage")


if __name__ == "__main__":
    sys.exit(main())
