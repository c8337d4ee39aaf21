"""A pool of worker processes that any thread may give work to, and of which each may die without harm to the others."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")

_BOOT = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from cloud_optimized_dicom.processes.worker import serve; serve()"
)
_GRACE_SECONDS = 5


class WorkerDiedError(Exception):
    """The process that did the work ended before it answered: a codec crashed, or memory ran out."""


class NoWorkerError(Exception):
    """No process could be started to do the work: the system has no memory, processes or files left for it."""


class WorkerPool:
    """Processes that call functions; started when first needed, one by one.

    Parameters
    ----------
    workers
        How many at most.

    Notes
    -----
    Functions and arguments cross by pickle, so functions are those at the top level of a module, not of the main
    one.  Thread-safe.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="cod-worker")
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def submit(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        """Call a function in a worker.

        Returns
        -------
        Future
            Raises `WorkerDiedError` where the function or its process failed, `NoWorkerError` where there is no process
            to be had, `CancelledError` where the pool is closed before the answer.

        Raises
        ------
        CancelledError
            If the pool is closed.
        """
        try:
            return self._threads.submit(self._call, function, arguments)
        except RuntimeError as error:  # the executor's word for "closed"
            raise CancelledError from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what has not begun, end all processes, and wait for them."""
        with self._lock:
            self._closed = True
            processes = list(self._all)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        self._threads.shutdown(wait=True)
        for process in processes:
            _reap(process)

    def _call(self, function: Callable[..., T], arguments: tuple[object, ...]) -> T:
        call = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)  # raises before a process is taken
        process = self._take()
        try:
            result: T = _ask(process, call)
        except (OSError, EOFError, pickle.UnpicklingError) as failure:
            self._forget(process)
            raise self._failure() from failure
        with self._lock:
            self._idle.append(process)
        return result

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise CancelledError
            if self._idle:
                return self._idle.pop()
            process = _start()
            self._all.add(process)
        try:
            _send(process, pickle.dumps(list(sys.path)))
        except OSError as failure:
            self._forget(process)
            raise self._failure() from failure
        return process

    def _failure(self) -> Exception:
        return CancelledError() if self._closed else WorkerDiedError()

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._all.discard(process)
        process.terminate()
        _reap(process)


def _start() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 (our own interpreter)
            [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
    except OSError as error:
        raise NoWorkerError from error


def _environment() -> dict[str, str]:
    # One thread a worker: the pool is as large as the machine, and libraries that start their own would crowd it.
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    if process.stdin is not None:
        process.stdin.write(data)
        process.stdin.flush()


def _ask(process: subprocess.Popen[bytes], call: bytes) -> Any:
    _send(process, call)
    if process.stdout is None:
        raise EOFError
    return pickle.load(process.stdout)  # noqa: S301 (from our own worker)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not sent yet has nobody to read it
                stream.close()
