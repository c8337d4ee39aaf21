"""Threads that work on tasks and answer into one queue, and that nobody has to wait for."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

Task = TypeVar("Task", bound="Callable[[], None]")
Answer = TypeVar("Answer")


class Ended(NamedTuple, Generic[Task]):
    """A task has ended; `error` is what it raised."""

    task: Task
    error: BaseException | None


class _Ending(Generic[Task, Answer]):
    """Hands what a task raises over to the thread that waits for it."""

    def __init__(self, task: Task, answers: SimpleQueue[Answer | Ended[Task]]) -> None:
        self._task, self._answers = task, answers

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        self._answers.put(Ended(self._task, error))
        return True


class Workers(Generic[Task, Answer]):
    """A fixed number of threads.

    Parameters
    ----------
    count
        How many.

    Notes
    -----
    They are daemons: Ctrl-C does not wait until requests that are under way have been answered or have timed out.
    """

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer | Ended[Task]] = SimpleQueue()
        self._stopped = threading.Event()
        self._count = count

    def __enter__(self) -> Self:
        for number in range(self._count):
            threading.Thread(target=self._work, name=f"cod-export-{number}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for _number in range(self._count):
            self._tasks.put(None)

    @property
    def stopped(self) -> bool:
        """Whether tasks should come to an end."""
        return self._stopped.is_set()

    def submit(self, task: Task) -> None:
        """Have a task done; its end is an answer, too."""
        self._tasks.put(task)

    def say(self, answer: Answer) -> None:
        """Answer from within a task."""
        self._answers.put(answer)

    def next_answer(self) -> Answer | Ended[Task]:
        """Wait for the next answer of any task."""
        return self._answers.get()

    def iter_answers(self) -> Iterator[Answer]:
        """Yield what tasks have said and nobody has heard yet; their ends are left out."""
        with suppress(Empty):
            while True:
                answer = self._answers.get_nowait()
                if not isinstance(answer, Ended):
                    yield answer

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self.stopped:
            with _Ending(task, self._answers):
                task()
