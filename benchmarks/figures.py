"""What benchmarks return: frozen rows, each one piece of work beside its floor and what it is to reach."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloud_optimized_dicom.testing.gcs_server import RequestRecord

PUBLISHED = "cloud-optimized-dicom 2.2.0"
_GOAL_FORMATS = {"time": "{:.2f}", "speed": "{:.1f}", "share": "{:.2f}", "memory": "{:.0f}"}


@dataclass(frozen=True)
class Traffic:
    """What a server saw: HTTP requests, and the bytes of their bodies."""

    requests: int
    bytes_up: int
    bytes_down: int

    @classmethod
    def of(cls, records: Iterable[RequestRecord]) -> Traffic:
        """Return the sums over the records of some requests."""
        seen = list(records)
        return cls(len(seen), sum(each.bytes_in for each in seen), sum(each.bytes_out for each in seen))


@dataclass(frozen=True)
class Spent:
    """What a piece of work took.

    Parameters
    ----------
    cpu_seconds
        Of the process and of the processes that it started; the storage server's are not among them.
    traffic
        None where no server counts.
    peak_mib
        Peak resident memory of the process; None where it was not asked.
    peak_with_workers_mib
        The most that the process and those that it started held together, pages that they share counted in each.
    """

    wall_seconds: float
    cpu_seconds: float
    traffic: Traffic | None = None
    peak_mib: float | None = None
    peak_with_workers_mib: float | None = None

    @classmethod
    def median(cls, rounds: Sequence[Spent]) -> Spent:
        """Return the medians of the times, and the counts of the last round."""
        last = rounds[-1]
        return cls(
            statistics.median(each.wall_seconds for each in rounds),
            statistics.median(each.cpu_seconds for each in rounds),
            last.traffic,
            last.peak_mib,
            last.peak_with_workers_mib,
        )


Kind = Literal["requests", "bytes", "count", "time", "speed", "share", "memory", "beside"]


@dataclass(frozen=True)
class Goal:
    """Something to reach.

    Notes
    -----
    The exact kinds ("requests", "bytes", "count") hold on any machine and for data of any size.  "beside" is a count,
    too, but beside another's of the same run, and data may be so small that there is nothing to save.
    """

    kind: Kind
    what: str
    found: float
    limit: float
    is_minimum: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether what was found keeps to the limit."""
        return self.found >= self.limit if self.is_minimum else self.found <= self.limit

    def __str__(self) -> str:
        form = _GOAL_FORMATS.get(self.kind, "{:,.0f}")
        sign = ">=" if self.is_minimum else "<="
        verdict = "" if self.is_reached else " (missed)"
        return f"{self.what} {form.format(self.found)} {sign} {form.format(self.limit)}{verdict}"


@dataclass(frozen=True)
class Row:
    """One piece of work.

    Parameters
    ----------
    benchmark
        The name of the benchmark that measured it.
    floor, floor_is
        The least that the work could take, measured in turns with it, and what was done there.
    reference, reference_is
        What another library took for the same, and which; None where it was not asked, or where it failed.
    note
        What else there is to say, a failure of the reference for example.
    """

    benchmark: str
    what: str
    ours: Spent
    floor: Spent | None = None
    floor_is: str = ""
    goals: tuple[Goal, ...] = ()
    reference: Spent | None = None
    reference_is: str = PUBLISHED
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Our wall time over the floor's."""
        return _over(self.ours, self.floor)

    @property
    def reference_ratio(self) -> float | None:
        """The reference's wall time over ours: how many times faster we are."""
        return _over(self.reference, self.ours)

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with the ratios and whether each goal is reached."""
        goals = [asdict(goal) | {"is_reached": goal.is_reached} for goal in self.goals]
        ratios = {"ratio": self.ratio, "reference_ratio": self.reference_ratio}
        return asdict(self) | {"goals": goals} | ratios


def _over(upper: Spent | None, lower: Spent | None) -> float | None:
    if upper is None or lower is None or not lower.wall_seconds:
        return None
    return upper.wall_seconds / lower.wall_seconds


def at_most(kind: Kind, what: str, found: float, limit: float) -> Goal:
    """Return a goal from above."""
    return Goal(kind, what, found, limit)


def at_least(kind: Kind, what: str, found: float, limit: float) -> Goal:
    """Return a goal from below."""
    return Goal(kind, what, found, limit, is_minimum=True)


def times_floor(ours: Spent, floor: Spent, limit: float) -> Goal:
    """Return the goal for the wall time as a multiple of the floor's."""
    return at_most("time", "x floor", ours.wall_seconds / floor.wall_seconds, limit)


def requests_at_most(spent: Spent, limit: int) -> Goal:
    """Return the goal for the number of requests."""
    return at_most("requests", "requests", spent.traffic.requests if spent.traffic else 0, limit)
