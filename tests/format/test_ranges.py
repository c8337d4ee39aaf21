"""Which ranges are fetched together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_optimized_dicom.ranges import ByteRange, FetchPolicy, coalesce

ranges = st.builds(ByteRange.of, st.integers(0, 5000), st.integers(0, 300))
policies = st.builds(FetchPolicy, st.integers(0, 400), st.floats(0, 2), st.integers(1, 3000))


@given(st.lists(ranges, max_size=30), policies)
def test_every_range_is_covered_once_within_the_policy(wanted: list[ByteRange], policy: FetchPolicy) -> None:
    """Whatever is asked for, each range lies in exactly one request, and no more is wasted than allowed."""
    groups = coalesce(wanted, policy)
    positions = [position for group in groups for position in group.members]
    assert sorted(positions) == list(range(len(wanted)))
    for group in groups:
        members = [wanted[position] for position in group.members]
        assert all(member in group.span for member in members)
        assert group.span == ByteRange(min(m.start for m in members), max(m.stop for m in members))
        assert len(members) == 1 or len(group.span) <= max(policy.max_request_bytes, *map(len, members))
    fetched = sum(len(group.span) for group in groups)
    assert fetched <= sum(map(len, wanted)) * (1 + policy.max_waste) + 1e-6
    assert [group.span.start for group in groups] == sorted(group.span.start for group in groups)


def test_neighbours_are_one_request() -> None:
    """What touches, overlaps or repeats is fetched together whatever the policy's waste."""
    wanted = [ByteRange(10, 20), ByteRange(0, 10), ByteRange(15, 30), ByteRange(0, 10)]
    (group,) = coalesce(wanted, FetchPolicy(0, 0.0))
    assert group.span == ByteRange(0, 30)
    assert sorted(group.members) == [0, 1, 2, 3]


def test_the_smallest_gaps_are_closed_first() -> None:
    """With waste for one gap only, it is the small one."""
    wanted = [ByteRange(0, 100), ByteRange(150, 250), ByteRange(260, 360)]
    groups = coalesce(wanted, FetchPolicy(1000, 0.1))
    assert [group.span for group in groups] == [ByteRange(0, 100), ByteRange(150, 360)]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2)])
def test_no_range_runs_backwards(start: int, stop: int) -> None:
    """A range that is none is a ValueError."""
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)
