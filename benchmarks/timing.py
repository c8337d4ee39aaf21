"""Two pieces of work against each other, in turns, so that both meet the same noise."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[int], None]
    """Does the work once; takes the number of the round, so that each has a place of its own."""


@dataclass(frozen=True)
class Timing:
    """Wall time, and CPU time of this process, in seconds."""

    wall_seconds: float
    cpu_seconds: float


def alternate(work: Work, floor: Work, rounds: int) -> tuple[Timing, Timing]:
    """Return the medians of the work and of its floor.

    Notes
    -----
    One round more is run first and not counted: it pays for imports and fills caches.
    """
    taken: tuple[list[Timing], list[Timing]] = ([], [])
    for number in range(rounds + 1):
        for times, piece in zip(taken, (work, floor), strict=True):
            timing = _timed(piece, number)
            if number:
                times.append(timing)
    return _median(taken[0]), _median(taken[1])


def _timed(piece: Work, number: int) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    piece(number)
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def _median(times: list[Timing]) -> Timing:
    return Timing(
        statistics.median(timing.wall_seconds for timing in times),
        statistics.median(timing.cpu_seconds for timing in times),
    )
