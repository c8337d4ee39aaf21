"""Events as Beam metrics: what a runner shows while a pipeline runs, and what a program asks for afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from apache_beam.metrics import Metrics, MetricsFilter

from cloud_optimized_dicom.events import (
    BytesExported,
    Event,
    FileDone,
    FileExported,
    InstanceRecompressed,
    SeriesCommitted,
)

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

NAMESPACE = "cod"
"""Of all our metrics."""


class MetricsHook:
    """A hook that counts events, and hands the counts to Beam when told to.

    Notes
    -----
    Beam takes metrics only from the thread that runs a DoFn, and events come from any: so they are kept until
    :meth:`flush`, which that thread calls.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._values: list[tuple[str, int]] = []

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""
        match event:
            case FileDone(outcome=outcome, size_bytes=size_bytes):
                self.count(f"files_{outcome}")
                if outcome == "new":
                    self.count("bytes_new", size_bytes)
                    self.record("file_bytes", size_bytes)
            case SeriesCommitted(instances=instances, tar_bytes=tar_bytes):
                self.count("commits")
                self.record("series_instances", instances)
                self.record("series_bytes", tar_bytes)
            case InstanceRecompressed(reason="recompressed", saved_bytes=saved_bytes):
                self.count("files_recompressed")
                self.count("bytes_saved", saved_bytes)
            case BytesExported(size_bytes=size_bytes):
                self.count("bytes_exported", size_bytes)
            case FileExported(error=error):
                self.count("files_exported" if error is None else "files_not_exported")

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter, with the next flush."""
        with self._mutex:
            self._counts[name] += amount

    def record(self, name: str, value: int) -> None:
        """Add a value to a distribution, with the next flush."""
        with self._mutex:
            self._values.append((name, value))

    def flush(self) -> None:
        """Hand everything to Beam; to be called in the thread that runs the DoFn."""
        with self._mutex:
            counts, values = self._counts, self._values
            self._counts, self._values = Counter(), []
        for name, amount in counts.items():
            Metrics.counter(NAMESPACE, name).inc(amount)
        for name, value in values:
            Metrics.distribution(NAMESPACE, name).update(value)

    def __reduce__(self) -> tuple[type[MetricsHook], tuple[()]]:
        return MetricsHook, ()


def count(name: str, amount: int = 1) -> None:
    """Add to one of our counters; in the thread that runs the DoFn."""
    Metrics.counter(NAMESPACE, name).inc(amount)


def read_counters(result: PipelineResult) -> dict[str, int]:
    """Return our counters, summed over all steps of a pipeline that has run.

    Notes
    -----
    Of what was committed to the pipeline; a runner that only shows attempted work (retried bundles included) is read as
    it shows it.
    """
    totals: Counter[str] = Counter()
    for found in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        totals[found.key.metric.name] += found.result or 0
    return dict(totals)
