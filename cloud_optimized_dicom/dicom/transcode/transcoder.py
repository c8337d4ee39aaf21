"""Lossless recompression of DICOM files, their frames spread over worker processes."""

from __future__ import annotations

import os
import uuid
from collections import deque
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from cloud_optimized_dicom.dicom.frames import plan_frame_table, read_frame
from cloud_optimized_dicom.dicom.inspect import inspect_dicom
from cloud_optimized_dicom.dicom.source import DicomSource, open_source
from cloud_optimized_dicom.dicom.transcode.assemble import BASIC_TABLE_LIMIT_BYTES, Assembler, TooLargeError
from cloud_optimized_dicom.dicom.transcode.budget import ByteBudget
from cloud_optimized_dicom.dicom.transcode.codecs import CODECS, Codec, load_codec, require_codec
from cloud_optimized_dicom.dicom.transcode.dataset import Changes, NotExactError, Surroundings, plan_surroundings
from cloud_optimized_dicom.dicom.transcode.frames import FrameJob, transcode_frames
from cloud_optimized_dicom.dicom.transcode.model import (
    Kept,
    Reason,
    Recompressed,
    Target,
    TranscodeOutcome,
    TranscodePlan,
)
from cloud_optimized_dicom.dicom.transcode.plan import (
    MAX_FRAME_BYTES,
    PIXEL_DATA,
    UNCOMPRESSED_SYNTAXES,
    plan_transcode,
    read_pixel_format,
)
from cloud_optimized_dicom.errors import CODError, FrameTableError
from cloud_optimized_dicom.format.offsets.reader import PositionedReader
from cloud_optimized_dicom.processes.pool import NoWorkerError, WorkerDiedError, WorkerPool
from cloud_optimized_dicom.whole_files import new_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from concurrent.futures import Future
    from types import TracebackType

    from cloud_optimized_dicom.dicom.elements import RawElement
    from cloud_optimized_dicom.model import FrameTable
    from cloud_optimized_dicom.ranges import ByteRange

    BulkDataUri = Callable[[str, ByteRange], str]
    """Makes the URI of a large value, as `inspect_dicom` wants it."""

    class _Encoded(Protocol):
        """The encoded frames of an instance in order, by the batch, or why it stays."""

        def __iter__(self) -> Iterator[list[bytes] | Kept]: ...

        def close(self) -> None: ...

    _Encode = Callable[[FrameJob, "_Frames"], _Encoded]

_BATCH_BYTES = 4 << 20
_IN_FLIGHT_BATCHES = 2  # a worker: one that it works on, and one that waits for it


@dataclass(frozen=True)
class Settings:
    """How a transcoder works; the defaults are right but for tests.

    Parameters
    ----------
    codecs
        What encodes and reads back, per target; functions that workers can import.
    basic_table_limit_bytes
        Sources from this size on get an Extended Offset Table: the result is smaller, so below it 32 bits suffice.
    batch_bytes
        Frames are handed to a worker in batches of about this size, decoded.  Of a file by its path that is no larger
        a worker does all the work, so that this process is no bottleneck.
    """

    codecs: Mapping[Target, Codec] = field(default_factory=CODECS.copy)
    basic_table_limit_bytes: int = BASIC_TABLE_LIMIT_BYTES
    batch_bytes: int = _BATCH_BYTES


class Transcoder:
    """Recompresses files; thread-safe, so that several may be on their way at once.

    Parameters
    ----------
    workers
        Processes; as many as there are processors by default.  They start when first needed.

    Notes
    -----
    Memory: about `workers` times two batches, whatever the files' sizes and however many threads call; at least one
    frame and its encoded form.  Leaving the context ends all workers; calls that are still on their way raise
    `CancelledError`.
    """

    def __init__(self, workers: int | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        count = workers or os.cpu_count() or 1
        self._pool = WorkerPool(count)
        self._budget = ByteBudget(count * _IN_FLIGHT_BATCHES * self._settings.batch_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; calls that are on their way raise `CancelledError`."""
        self._pool.close()

    def start_worker(self, target: Target) -> None:
        """Start a process, if there are fewer than there may be, and let it load a codec; nobody waits for it."""
        with suppress(CancelledError):
            self._pool.submit(load_codec, target)

    def transcode(
        self, source: str | Path | BinaryIO, target: Target, out_dir: str | Path, *, bulk_data_uri: BulkDataUri
    ) -> TranscodeOutcome:
        """Recompress one DICOM file, if that can be done without changing a bit of what it says.

        Parameters
        ----------
        source
            A path, or a seekable stream that nobody else reads meanwhile.
        out_dir
            Where the new file is made; nothing stays there unless it is `Recompressed`.
        bulk_data_uri
            As for `inspect_dicom`, for the facts of the new file; for paths a function that workers can import.

        Raises
        ------
        InstanceValidationError
            If it is no DICOM file.
        MissingDependencyError
            Without the codecs that the target needs.
        OSError
            From reading or writing files.
        CancelledError
            If the transcoder is closed meanwhile.
        """
        require_codec(target)
        work = _Work(target, Path(out_dir), f"transcoded-{uuid.uuid4().hex}-", bulk_data_uri, self._settings)
        if not isinstance(source, str | Path):
            return work.transcode(source, "the stream", self._encode)
        path = Path(source)
        if path.stat().st_size <= self._settings.batch_bytes:
            return self._transcode_whole(work, path)
        with path.open("rb") as stream:
            return work.transcode(stream, str(path), self._encode)

    def _transcode_whole(self, work: _Work, path: Path) -> TranscodeOutcome:
        try:
            found = self._pool.submit(transcode_whole, work, path).result()
        except (WorkerDiedError, NoWorkerError) as error:
            work.discard()
            return _kept_without(error)
        except BaseException:
            work.discard()
            raise
        if isinstance(found, Exception):
            raise found
        return found

    def _encode(self, job: FrameJob, frames: _Frames) -> _Batches:
        size = max(1, self._settings.batch_bytes // job.source.frame_bytes)
        return _Batches(self._pool, self._budget, job, frames, size)


def _kept_without(error: WorkerDiedError | NoWorkerError) -> Kept:
    """Return what a worker's failure means for the file."""
    if isinstance(error, WorkerDiedError):
        return Kept(Reason.UNSUPPORTED, "a codec's process ended before it answered")
    return Kept(Reason.UNSUPPORTED, "no process could be started for the codec")


def transcode_whole(work: _Work, path: Path) -> TranscodeOutcome | Exception:
    """Recompress a file in this process, a worker; what went wrong is returned, as an exception would end it."""
    try:
        with path.open("rb") as stream:
            return work.transcode(stream, str(path), _encode_here)
    except (CODError, OSError, ValueError) as error:
        return error


def _encode_here(job: FrameJob, frames: _Frames) -> Generator[list[bytes] | Kept]:
    for number in range(len(frames)):
        yield transcode_frames(job, [frames.read(number)])


@dataclass(frozen=True)
class _Work:
    """What is to be made of a file; pickles, if its functions do.

    Parameters
    ----------
    prefix
        Of the new file's name, and of no other's.
    """

    target: Target
    out_dir: Path
    prefix: str
    bulk_data_uri: BulkDataUri
    settings: Settings

    def transcode(self, stream: BinaryIO, name: str, encode: _Encode) -> TranscodeOutcome:
        """Recompress a file, its frames encoded as told."""
        with open_source(stream, name) as source:
            image = _plan_image(source, self.target, name)
            if isinstance(image, Kept):
                return image
            size_bytes = PositionedReader(stream).size
            with new_file(self.out_dir, ".dcm", self.prefix) as file:
                path = Path(file.name)
                kept = self._write(image, source, file, size_bytes, encode)
                if kept is not None:
                    path.unlink()
                    return kept
                file.flush()
                facts = inspect_dicom(file, path.name, bulk_data_uri=self.bulk_data_uri)
            return Recompressed(path, facts, self.target, size_bytes)

    def discard(self) -> None:
        """Delete what a worker that died has left."""
        for path in self.out_dir.glob(f"{self.prefix}*"):
            path.unlink(missing_ok=True)

    def _write(
        self, image: _Image, source: DicomSource, file: BinaryIO, size_bytes: int, encode: _Encode
    ) -> Kept | None:
        """Write the new file; return why it has to be thrown away, if so."""
        assembler = Assembler(
            file,
            source.reader,
            frames=len(image.table),
            extended=size_bytes >= self.settings.basic_table_limit_bytes,
            limit_bytes=size_bytes,
        )
        job = FrameJob.of(image.plan, self.settings.codecs[image.plan.target])
        try:
            with closing(encode(job, _Frames(source, image.table))) as batches:
                assembler.begin(image.surroundings)
                for batch in batches:
                    if isinstance(batch, Kept):
                        return batch
                    for frame in batch:
                        assembler.add(frame)
                assembler.finish()
        except TooLargeError:
            return Kept(Reason.NOT_SMALLER, "the recompressed file is not smaller")
        except (WorkerDiedError, NoWorkerError) as error:
            return _kept_without(error)
        return None


@dataclass(frozen=True)
class _Image:
    plan: TranscodePlan
    table: FrameTable
    surroundings: Surroundings


def _plan_image(source: DicomSource, target: Target, name: str) -> _Image | Kept:
    """Return what there is to do, or why nothing is done; reads no pixels."""
    walk = source.walk()
    elements = list(walk)
    by_tag = {element.tag: element for element in elements}
    if PIXEL_DATA not in by_tag:
        return Kept(Reason.UNSUPPORTED, "there is no integer Pixel Data")
    plan = plan_transcode(read_pixel_format(source, by_tag), target)
    if isinstance(plan, Kept):
        return plan
    if walk.problem or source.problems:
        return Kept(Reason.UNSUPPORTED, "the file is damaged")
    changes = Changes(target.transfer_syntax_uid, plan.photometric_interpretation, plan.planar_configuration)
    try:
        surroundings = plan_surroundings(source, elements, changes)
        table = _plan_table(source, by_tag, plan, name)
    except NotExactError as error:
        return Kept(Reason.UNSUPPORTED, str(error))
    return _Image(plan, table, surroundings)


def _plan_table(source: DicomSource, elements: Mapping[int, RawElement], plan: TranscodePlan, name: str) -> FrameTable:
    try:
        table = plan_frame_table(source, elements, name)
    except FrameTableError as error:
        raise NotExactError("the frames cannot be told apart") from error
    if table is None or not _is_whole(table, elements[PIXEL_DATA], plan):
        raise NotExactError("the pixel data is not exactly the frames that the header announces")
    return table


def _is_whole(table: FrameTable, pixels: RawElement, plan: TranscodePlan) -> bool:
    """Whether the frames are all there is in the pixel data, so that nothing but padding is lost with it."""
    image = plan.format
    if len(table) != image.number_of_frames or max(table.lengths) > MAX_FRAME_BYTES:
        return False
    if image.transfer_syntax_uid in UNCOMPRESSED_SYNTAXES and pixels.scan is None:
        return 0 <= pixels.length - image.number_of_frames * image.frame_bytes <= 1
    fragments = sum(table.fragment_counts) if table.fragment_counts else len(table)
    return pixels.scan is not None and len(pixels.scan) == fragments + 1


class _Frames:
    """The frames of a source, read one after the other."""

    def __init__(self, source: DicomSource, table: FrameTable) -> None:
        self._reader = source.reader
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def read(self, frame: int) -> bytes:
        """Return a frame, its fragments joined."""
        return read_frame(self._reader, self._table, frame)


class _Batches:
    """The encoded frames of one instance in order, by the batch, with as many on their way as the budget allows."""

    def __init__(self, pool: WorkerPool, budget: ByteBudget, job: FrameJob, frames: _Frames, batch_frames: int) -> None:
        self._pool = pool
        self._budget = budget
        self._job = job
        self._frames = frames
        self._batch_frames = batch_frames
        self._next = 0
        self._pending: deque[tuple[Future[list[bytes] | Kept], int]] = deque()

    def __iter__(self) -> Iterator[list[bytes] | Kept]:
        while self._next < len(self._frames) or self._pending:
            while self._next < len(self._frames) and self._submit():
                pass
            future, size_bytes = self._pending[0]
            result = future.result()
            self._pending.popleft()
            self._budget.release(size_bytes)
            yield result

    def close(self) -> None:
        """Give up what is on its way, and give its share of the budget back."""
        for future, size_bytes in self._pending:
            future.cancel()
            self._budget.release(size_bytes)
        self._pending.clear()

    def _submit(self) -> bool:
        numbers = range(self._next, min(self._next + self._batch_frames, len(self._frames)))
        size_bytes = len(numbers) * self._job.source.frame_bytes
        if not self._budget.acquire(size_bytes, wait=not self._pending):
            return False
        try:
            future = self._pool.submit(transcode_frames, self._job, [self._frames.read(number) for number in numbers])
        except BaseException:
            self._budget.release(size_bytes)
            raise
        self._pending.append((future, size_bytes))
        self._next = numbers.stop
        return True
