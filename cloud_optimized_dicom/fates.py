"""What becomes of each instance that is given to an ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloud_optimized_dicom.append import CONFLICT_REASON, reason_of
from cloud_optimized_dicom.ingest.report import is_retryable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.append import AppendResult
    from cloud_optimized_dicom.events import Outcome
    from cloud_optimized_dicom.instance import Instance


class Fate(NamedTuple):
    """What became of an instance, and why."""

    outcome: Outcome
    reason: str | None = None
    retryable: bool = False

    @classmethod
    def of(cls, error: Exception) -> Fate:
        """Return the fate of an instance that could not be stored."""
        return cls("error", reason_of(error), is_retryable(error))


def outcomes_of(result: AppendResult, instances: Sequence[Instance]) -> dict[int, Fate]:
    """Return what became of each instance, by its id; one whose file came before shares its fate."""
    outcomes = {id(instance): Fate("new") for instance in result.new}
    outcomes |= {id(instance): Fate("conflict", CONFLICT_REASON) for instance in result.conflict}
    outcomes |= {id(instance): Fate.of(error) for instance, error in result.errors}
    first = {instance.file_key: outcomes[id(instance)] for instance in instances if id(instance) in outcomes}
    for instance in instances:
        fate = first.get(instance.file_key, Fate("same"))
        outcomes.setdefault(id(instance), Fate("same") if fate.outcome == "new" else fate)
    return outcomes
