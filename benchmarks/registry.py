"""The benchmarks by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.figures import Row
    from benchmarks.workbench import Workbench

    Measure = Callable[[Workbench], Iterator[Row]]


@dataclass(frozen=True)
class Benchmark:
    """Some rows that belong together; `title` says in one line what is done."""

    name: str
    title: str
    measure: Measure


BENCHMARKS: dict[str, Benchmark] = {}
"""Filled by the modules that `benchmarks.suite` imports."""

ORDER = (
    *("ingest", "ingest-gcs", "real", "recompress", "append", "reingest", "remove", "edit"),
    *("large", "memory", "open", "frames", "volume", "tools", "headers", "beam"),
)
"""In which they run, and stand in the documentation."""


def benchmark(name: str, title: str) -> Callable[[Measure], Measure]:
    """Register a function that yields rows."""

    def register(measure: Measure) -> Measure:
        BENCHMARKS[name] = Benchmark(name, title, measure)
        return measure

    return register
