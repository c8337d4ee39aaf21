"""The conditions of a request: what the object must be like for the request to be carried out.

An absent object has generation 0 and metageneration 0.  A ``...Match`` that does not hold is refused with 412, a
``...NotMatch`` with 304, on reads and on writes alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cloud_optimized_dicom.testing.gcs_server.errors import NOT_MODIFIED, ServiceError, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Mapping


class Conditioned(Protocol):
    """What conditions look at: an object or a bucket."""

    @property
    def generation(self) -> int:
        """Which state of the data."""
        ...

    @property
    def metageneration(self) -> int:
        """Which state of the metadata, counted from 1."""
        ...

    @property
    def etag(self) -> str:
        """One name for both."""
        ...


@dataclass(frozen=True, slots=True)
class Preconditions:
    """Conditions; None is no condition."""

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None
    etag_match: str | None = None
    etag_not_match: str | None = None

    @classmethod
    def parse(
        cls, query: Mapping[str, str], headers: Mapping[str, str] | None = None, *, prefix: str = "if"
    ) -> Preconditions:
        """Return the conditions of a JSON request.

        Parameters
        ----------
        query
            Parameters, e.g. ``ifGenerationMatch``.
        headers
            With names in lower case; where given, ``If-Match`` and ``If-None-Match`` are read too.
        prefix
            ``"ifSource"`` for those that bind the source of a copy.

        Raises
        ------
        ServiceError
            400, if one is not an integer.
        """
        headers = headers or {}
        return cls(
            _integer(query, f"{prefix}GenerationMatch"),
            _integer(query, f"{prefix}GenerationNotMatch"),
            _integer(query, f"{prefix}MetagenerationMatch"),
            _integer(query, f"{prefix}MetagenerationNotMatch"),
            headers.get("if-match"),
            headers.get("if-none-match"),
        )

    @classmethod
    def parse_xml(cls, headers: Mapping[str, str]) -> Preconditions:
        """Return the conditions of an XML request.

        Raises
        ------
        ServiceError
            As :meth:`parse`.
        """
        return cls(
            _integer(headers, "x-goog-if-generation-match"),
            None,
            _integer(headers, "x-goog-if-metageneration-match"),
            None,
            headers.get("if-match"),
            headers.get("if-none-match"),
        )

    def check(self, current: Conditioned | None) -> None:
        """Return if every condition holds for the present state (None: there is none).

        Raises
        ------
        ServiceError
            412 or 304.
        """
        generation = current.generation if current else 0
        metageneration = current.metageneration if current else 0
        if self.generation_match not in {None, generation}:
            raise precondition_failed("ifGenerationMatch")
        if self.metageneration_match not in {None, metageneration}:
            raise precondition_failed("ifMetagenerationMatch")
        if self.generation_not_match == generation:
            raise ServiceError(NOT_MODIFIED, "")
        if self.metageneration_not_match == metageneration:
            raise ServiceError(NOT_MODIFIED, "")
        self._check_etag(current.etag if current else None)

    def _check_etag(self, etag: str | None) -> None:
        if self.etag_match is not None and not _names(self.etag_match, etag):
            raise precondition_failed("If-Match")
        if self.etag_not_match is not None and _names(self.etag_not_match, etag):
            raise ServiceError(NOT_MODIFIED, "")


def _names(header: str, etag: str | None) -> bool:
    tags = {tag.strip().strip('"') for tag in header.split(",")}
    return etag is not None and ("*" in tags or etag in tags)


def _integer(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name)
    return None if text is None else parse_integer(text, name)


def parse_integer(text: str, name: str) -> int:
    """Return the value of an integer parameter.

    Raises
    ------
    ServiceError
        400, if it is none.
    """
    try:
        return int(text)
    except ValueError:
        message = f"Invalid value for parameter {name}"
        raise ServiceError(400, message, location_type="parameter", location=name) from None
