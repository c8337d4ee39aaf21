"""What leaves a pipeline: results of each stage, and what it could not do, as values of their own types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from cloud_optimized_dicom.beam.counters import count
from cloud_optimized_dicom.ingest.public_uri import public_uri

RESULTS = "results"
"""Tag of what a stage did."""

DEAD_LETTERS = "dead_letters"
"""Tag of what no later attempt would do either: `DeadLetter`."""

RETRYABLE = "retryable"
"""Tag of what a later attempt may well do: a series that another writer held, a store that failed in passing."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Something that was asked for and cannot be done; the rest went on.

    Parameters
    ----------
    stage
        ``"inventory"``, ``"grouping"``, ``"ingest"`` ...
    subject
        The URI of a file, without password and signature; the row of a table; or a series.
    reason
        Why, without any header value other than a UID.
    retryable
        Whether another run may well do it.
    """

    stage: str
    subject: str
    reason: str
    retryable: bool = False


def dead_letter(stage: str, subject: str, reason: str, *, retryable: bool = False) -> Any:
    """Return a dead letter as a DoFn gives it out, and count it; of a URI in `subject`, what may be recorded."""
    count(DEAD_LETTERS)
    return beam.pvalue.TaggedOutput(DEAD_LETTERS, DeadLetter(stage, public_uri(subject), reason, retryable))
