"""Other people's readers on a slide: through our files, beside the same slide as a loose object."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from benchmarks.figures import Row, at_most
from benchmarks.registry import benchmark
from benchmarks.tools import Loose, cheapest, tools_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.figures import Goal, Spent
    from benchmarks.tools import Cost
    from benchmarks.workbench import Workbench
    from cloud_optimized_dicom import CODObject
    from cloud_optimized_dicom.series.virtual_file import OffsetTable as OffsetTableShown

_WAYS: tuple[tuple[str, OffsetTableShown | None], ...] = (("as stored", None), ("shown a table", "extended"))


@benchmark(
    "tools", "other readers on a slide through open_instance, its series open, beside the slide as a loose object"
)
def measure_tools(bench: Workbench) -> Iterator[Row]:
    """Yield two rows for each tool and kind of offset table, every request late."""
    logging.getLogger("highdicom").setLevel(logging.ERROR)  # a synthetic slide has no ICC profile
    for table in bench.scale.tables:
        files = bench.data.slide(table)
        blob = bench.blob()
        blob.upload_from_filename(str(files.paths[0]))
        _, series = bench.stored(files)
        tools = tools_for(bench.scale.tiles)
        for name in ["pydicom"] if bench.scale.is_quick else tools:
            for row in _measure_tool(bench, tools[name], series, Loose(bench.server, blob)):
                yield replace(row, what=f"{name}, {table} table, {row.what}")


def _measure_tool(bench: Workbench, tool: Callable[[BinaryIO], Any], series: CODObject, loose: Loose) -> Iterator[Row]:
    costs = loose.costs(tool)
    chunk = cheapest(costs)
    expected = loose.open_and_read(tool, chunk)
    for way, shown in _WAYS:
        # A series anew for each round, so that none finds what the one before has kept.
        opened = [_opened(bench, series) for _ in range(bench.scale.rounds + 1)]
        (uid,) = opened[0].get_instances()

        def work(number: int, shown: OffsetTableShown | None = shown, opened: list[CODObject] = opened) -> Any:
            with opened[number].open_instance(uid, shown) as file:  # noqa: B023 - one UID for all
                return tool(file)

        if not np.array_equal(work(0), expected):
            raise RuntimeError("a tool reads other pixels through our file")
        with bench.latency():
            ours, floor = bench.compare(work, lambda _: partial(loose.open_and_read, tool, chunk)())
        floor_is = f"a loose object, opened with the best chunk size; {bench.latency_name}"
        fewest = min(costs, key=lambda size: (costs[size].requests, costs[size].bytes_down))
        note = f"loose, best: {_told(chunk, costs)}; with the fewest requests: {_told(fewest, costs)}"
        yield Row("tools", way, ours, floor, floor_is, _goals(ours, costs[chunk], costs), note=note)


def _goals(ours: Spent, best: Cost, costs: Mapping[int, Cost]) -> tuple[Goal, ...]:
    """Return the goals: fewer requests and bytes than at the best chunk size, and fewer requests than at any."""
    requests, bytes_down = (ours.traffic.requests, ours.traffic.bytes_down) if ours.traffic else (0, 0)
    fewest = min(cost.requests for cost in costs.values())
    return (
        at_most("beside", "requests", requests, best.requests - 1),
        at_most("beside", "bytes down", bytes_down, best.bytes_down - 1),
        at_most("beside", "requests, any chunk size", requests, fewest - 1),
    )


def _told(chunk: int, costs: Mapping[int, Cost]) -> str:
    cost = costs[chunk]
    return f"{cost.requests} requests, {cost.bytes_down / 1e6:.2f} MB, {chunk} KiB chunks"


def _opened(bench: Workbench, series: CODObject) -> CODObject:
    opened = bench.reopened(bench.datastore(series.store.url), series.key)
    opened.get_instances()
    return opened
