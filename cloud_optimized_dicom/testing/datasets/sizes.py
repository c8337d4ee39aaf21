"""How large the series of a real collection are, and draws from that: most of them tiny, a few of them huge."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)
"""Which quantiles of a collection are known."""


class Quantiles(NamedTuple):
    """What is known of a distribution: its sum over all series, and some of its quantiles; the largest is its end."""

    total: float
    least: float
    p50: float
    p90: float
    p99: float
    largest: float

    def at(self, share: float, bend: float = 1) -> float:
        """Return the size that a share of all series stay below: lines between the logarithms of what is known.

        Parameters
        ----------
        share
            Between 0 and 1.
        bend
            The larger it is, the later each line rises; 1: they are straight.
        """
        place = min(bisect_right(SHARES, share), len(SHARES) - 1)
        low, high = SHARES[place - 1 : place + 1]
        start, end = self[place : place + 2]
        rise: float = ((share - low) / (high - low)) ** bend
        return float(start * (end / start) ** rise)


IDC_SERIES = 1_044_191
"""Series of the NCI Imaging Data Commons, release 25, as are the next two."""

IDC_INSTANCES = Quantiles(58_784_975, 1, 1, 161, 560, 91_980)
IDC_BYTES = Quantiles(99.944892e12, 0.01e6, 15.49e6, 171.2e6, 1_288.6e6, 195_185e6)


def draw_sizes(known: Quantiles, series: int, chance: random.Random, *, at_most: int | None = None) -> list[int]:
    """Return the sizes of so many series, each drawn by itself.

    Parameters
    ----------
    at_most
        What larger ones are cut down to; the quantiles below stay what they are.
    """
    drawn = [round(known.at(chance.random())) for _ in range(series)]
    return drawn if at_most is None else [min(size, at_most) for size in drawn]
