"""Children that may be killed: forked, one at a time, from a process that has no threads and has loaded everything.

A child costs some milliseconds, and nothing of the test process (its threads, sockets, clients) is in it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """How a child ended: its exit code (negative: the signal), and what the function returned or the traceback."""

    code: int
    result: Any


class Forks:
    """A process that forks; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def run(self, function: Callable[..., Any], *arguments: Any) -> Ended:
        """Call a function of a module in a child of its own, and wait for the child's end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((function, arguments), self._process.stdin)
        self._process.stdin.flush()
        return Ended(*pickle.load(self._process.stdout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _child(function: Callable[..., Any], arguments: tuple[Any, ...], writing: int) -> None:
    code, result = 0, None
    try:
        result = function(*arguments)
    except BaseException:  # noqa: BLE001 - whatever it is, the test that waits must hear of it
        code, result = 1, traceback.format_exc()
    with os.fdopen(writing, "wb") as answer:
        pickle.dump(result, answer)
    os._exit(code)


def _fork(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(function, arguments, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        data = answer.read()
    _, status = os.waitpid(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), pickle.loads(data) if data else None)


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Fork for every job until there are no more."""
    while True:
        try:
            function, arguments = pickle.load(jobs)
        except EOFError:
            return
        pickle.dump(tuple(_fork(function, arguments)), answers)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
