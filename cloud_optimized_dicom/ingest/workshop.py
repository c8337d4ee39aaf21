"""Files read ahead of the one that is being decided on: fetched by threads, measured by them or by processes.

What is under way is bounded by number and by bytes, and what comes out is in the order of what went in, so that a run
over the same files decides the same things.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from cloud_optimized_dicom.errors import CODError, SourceUnavailableError
from cloud_optimized_dicom.format.dicom_json import pack_header
from cloud_optimized_dicom.ingest.measure import fetched, measure, relative_uri, with_bulk_data_base
from cloud_optimized_dicom.ingest.source_kinds import temporary_bytes
from cloud_optimized_dicom.processes.pool import NoWorkerError, WorkerDiedError, WorkerPool
from cloud_optimized_dicom.storage.payload import FilePayload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from cloud_optimized_dicom.dicom.transcode.model import Target, TranscodeOutcome
    from cloud_optimized_dicom.dicom.transcode.transcoder import Transcoder
    from cloud_optimized_dicom.hints import Hints
    from cloud_optimized_dicom.ingest.source_kinds import Source
    from cloud_optimized_dicom.model import DicomFacts
    from cloud_optimized_dicom.storage.payload import Payload

Item = TypeVar("Item")

_FETCHES = 32
"""How many remote files are on their way at a time."""

_AHEAD = 256
_AHEAD_BYTES = 512 << 20
_UNKNOWN_BYTES = 1 << 20  # what a file is taken for whose size nobody told
_FEW = 2000  # small files that are measured before processes, and their memory, are worth their start
_SMALL_BYTES = 1 << 20  # of larger files the bytes are what takes time: reading, checksums, the upload
_RECORD_BYTES = 512
_FRAME_BYTES = 112  # of a frame in a table: four numbers


class StoppedError(Exception):
    """The work was interrupted; what was not committed is given up."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that was read once.

    Parameters
    ----------
    source
        The file, cheap to read again.
    facts
        What was measured; its header is left out.
    packed_header
        The header as a record holds it.
    copy
        Our own copy of it, to be deleted with :meth:`discard`.
    """

    source: Source
    facts: DicomFacts
    packed_header: str
    copy: Path | None = None

    @property
    def record_bytes(self) -> int:
        """About how much memory is taken while this is kept."""
        return len(self.packed_header) + len(self.facts.frame_table or ()) * _FRAME_BYTES + _RECORD_BYTES

    @property
    def copy_bytes(self) -> int:
        """How much room for temporary files is taken while this is kept."""
        return self.facts.size if self.copy is not None else temporary_bytes(self.source)

    def discard(self) -> None:
        """Delete the copy; nobody needs it any more."""
        if self.copy is not None:
            self.copy.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read.

    Parameters
    ----------
    hints
        What is claimed of it.
    uri_of
        Gives the URI that it will be stored under, once its UIDs are known.
    facts
        What was measured before; None: nothing was.
    target
        What it is likely to be recompressed to: a process for that starts meanwhile.
    """

    source: Source
    hints: Hints
    uri_of: Callable[[DicomFacts], str]
    facts: DicomFacts | None = None
    target: Target | None = None


class Workshop:
    """Reads files ahead, and recompresses them.

    Parameters
    ----------
    directory
        For copies of remote files, and for recompressed ones.
    workers
        How many processes measure and recompress; None: as many as there are processors.  They are started once they
        are worth it; with 1, this process measures.
    ahead_bytes
        How much of files is read ahead of the one that is asked for.

    Notes
    -----
    Use it in a ``with`` block.  Leaving it drops what was not asked for yet, and waits for what is under way.  Threads
    may share it.
    """

    def __init__(self, directory: Path, workers: int | None = None, ahead_bytes: int = _AHEAD_BYTES) -> None:
        self._directory, self._ahead_bytes = directory, ahead_bytes
        self._workers = workers or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(_FETCHES, "cod-fetch")
        self._processes = WorkerPool(self._workers)
        self._mutex = threading.Lock()
        self._transcoder: Transcoder | None = None
        self._begun = 0
        self._started = 0
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._processes.close()
        if self._transcoder is not None:
            self._transcoder.close()
        self._threads.shutdown()

    def stop(self) -> None:
        """Let whoever is still preparing files fail with `StoppedError`, soon."""
        self._stopped.set()

    def check(self) -> None:
        """Raise `StoppedError` once the work was stopped."""
        if self._stopped.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond a stop; raise `StoppedError` then."""
        if self._stopped.wait(seconds):
            raise StoppedError

    def prepare_all(
        self, items: Iterable[Item], job_of: Callable[[Item], Job | None]
    ) -> Iterator[tuple[Item, Prepared | Exception | None]]:
        """Yield every item, in order, with its file prepared, or with what went wrong.

        Parameters
        ----------
        job_of
            None for an item that needs nothing read; what it raises is what went wrong.
        """
        waiting: deque[_Waiting[Item]] = deque()
        ahead_bytes = 0
        for item in items:
            self.check()
            waiting.append(self._begin(item, job_of))
            ahead_bytes += waiting[-1].size
            while waiting and (waiting[0].is_done or len(waiting) > _AHEAD or ahead_bytes > self._ahead_bytes):
                ahead_bytes -= waiting[0].size
                yield waiting.popleft().result()
        while waiting:
            self.check()
            yield waiting.popleft().result()

    def _begin(self, item: Item, job_of: Callable[[Item], Job | None]) -> _Waiting[Item]:
        try:
            job = job_of(item)
        except (CODError, OSError, ValueError) as error:
            return _Waiting(item, error, 0)
        if job is None:
            return _Waiting(item, None, 0)
        if job.target is not None and self._started < self._workers:
            self._started += 1
            self._open_transcoder().start_worker(job.target)
        size = job.source.size
        self._begun += size is None or size <= _SMALL_BYTES
        if self._is_quicker_here(job):
            return _Waiting(item, self._outcome(job), 0)
        return _Waiting(item, self._threads.submit(self._outcome, job), _UNKNOWN_BYTES if size is None else size)

    def _is_quicker_here(self, job: Job) -> bool:
        """Return whether a thread would only wait for this one: Python measures one file at a time."""
        return job.source.local_path is not None and not self._uses_processes

    @property
    def _uses_processes(self) -> bool:
        return self._workers > 1 and self._begun > _FEW

    def _outcome(self, job: Job) -> Prepared | Exception:
        try:
            return self._prepared(job)
        except (CODError, OSError, ValueError) as error:
            return error

    def _prepared(self, job: Job) -> Prepared:
        source = fetched(job.source, self._directory, self.check)
        copy = source.local_path if source is not job.source else None
        try:
            facts = job.facts or self._measured(source, job.hints)
            header = pack_header(with_bulk_data_base(facts.header, job.uri_of(facts)))
        except BaseException:
            if copy is not None:
                copy.unlink(missing_ok=True)
            raise
        return Prepared(source, replace(facts, header=b""), header, copy)

    def _measured(self, source: Source, hints: Hints) -> DicomFacts:
        if source.local_path is None or not self._uses_processes:
            return measure(source, hints)
        try:
            found = self._processes.submit(_measure_in_worker, source, hints).result()
        except NoWorkerError:
            return measure(source, hints)
        except WorkerDiedError as error:  # its memory may have been wanted elsewhere
            raise SourceUnavailableError(source.uri, "the process that read it died") from error
        except CancelledError as error:
            raise StoppedError from error
        if isinstance(found, Exception):
            raise found
        return found

    # -- recompression

    def transcode_all(
        self, items: Iterable[tuple[Item, Payload]], target: Target
    ) -> Iterator[tuple[Item, TranscodeOutcome | Exception]]:
        """Yield every item, in order, with what became of its file; several are under way at a time.

        Notes
        -----
        The caller deletes the file of a `Recompressed`.
        """
        waiting: deque[tuple[Item, Future[TranscodeOutcome | Exception]]] = deque()
        for item, payload in items:
            self.check()
            waiting.append((item, self._threads.submit(self._transcoded, payload, target)))
            while waiting and (waiting[0][1].done() or len(waiting) > 2 * self._workers):
                first, outcome = waiting.popleft()
                yield first, outcome.result()
        while waiting:
            self.check()
            first, outcome = waiting.popleft()
            yield first, outcome.result()

    def _transcoded(self, payload: Payload, target: Target) -> TranscodeOutcome | Exception:
        transcoder = self._open_transcoder()
        try:
            if isinstance(payload, FilePayload):
                return transcoder.transcode(payload.path, target, self._directory, bulk_data_uri=relative_uri)
            with payload.open() as stream:
                return transcoder.transcode(stream, target, self._directory, bulk_data_uri=relative_uri)
        except CancelledError as error:
            raise StoppedError from error
        except (CODError, OSError, ValueError) as error:
            return error

    def _open_transcoder(self) -> Transcoder:
        from cloud_optimized_dicom.dicom.transcode.transcoder import Transcoder  # noqa: PLC0415 - loads codecs

        with self._mutex:
            if self._transcoder is None:
                self._transcoder = Transcoder(self._workers)
            return self._transcoder


def _measure_in_worker(source: Source, hints: Hints) -> DicomFacts | Exception:
    """Return what was measured, or why not: an exception would end the worker."""
    try:
        return measure(source, hints)
    except (CODError, OSError, ValueError) as error:
        return error


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item]):
    item: Item
    outcome: Future[Prepared | Exception] | Exception | Prepared | None
    size: int

    @property
    def is_done(self) -> bool:
        return not isinstance(self.outcome, Future) or self.outcome.done()

    def result(self) -> tuple[Item, Prepared | Exception | None]:
        return self.item, self.outcome.result() if isinstance(self.outcome, Future) else self.outcome
