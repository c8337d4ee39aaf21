"""What a DICOMweb GET asks for (PS3.18 section 10.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import unquote

from cloud_optimized_dicom.uids import SeriesKey, check_uid

if TYPE_CHECKING:
    from collections.abc import Mapping

Resource = Literal["metadata", "frames", "bulkdata", "instance"]

STUDY_LEVEL_TAGS = (
    *("00100010", "00100020", "00100030", "00100040", "00080020"),
    *("00080030", "00080050", "00080090", "0020000D", "00081030"),
)
"""What the metadata of a study consist of: what all its instances share."""

_REQUEST = re.compile(
    r"(?P<datastore>.*)/studies/(?P<study>[^/]+)"
    r"(?:/series/(?P<series>[^/]+)(?:/instances/(?P<instance>[^/]+))?)?"
    r"(?P<rest>/(?:metadata|frames/[^/]+|bulkdata(?:/[0-9A-Za-z/]+)?(?:\?.*)?))?",
    re.DOTALL,
)
_FRAME = re.compile(r"[1-9][0-9]*", re.ASCII)


@dataclass(frozen=True)
class DicomwebRequest:
    """One request.

    Parameters
    ----------
    datastore_uri
        What comes before ``/studies/``.
    frames
        As they are asked for: the first one is 1.
    resource
        "instance": the DICOM file itself.
    bulkdata
        Which value: ``?offset=N&length=M``, or tags and item numbers as ``/00081140/0/...``.
    """

    datastore_uri: str
    study_uid: str
    series_uid: str | None = None
    instance_uid: str | None = None
    frames: list[int] = field(default_factory=list)
    resource: Resource = "metadata"
    bulkdata: str = ""

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Return the request in ``{datastore}/studies/S[/series/E[/instances/I]]/metadata``.

        For instances also ``/frames/1,2,3``, ``/bulkdata...`` or nothing behind it.

        Raises
        ------
        ValueError
            If it asks for nothing of these; `InvalidUidError` for what is no UID.
        """
        match = _REQUEST.fullmatch(uri.strip().rstrip("/"))
        if match is None:
            raise ValueError("a request is .../studies/S[/series/E[/instances/I]]/metadata, or of an instance's frames")
        study, series, instance = (match[name] for name in ("study", "series", "instance"))
        for kind, uid in (("study", study), ("series", series), ("instance", instance)):
            if uid is not None:
                check_uid(uid, kind)
        found, _, rest = (match["rest"] or "").removeprefix("/").partition("/")
        resource, _, query = found.partition("?")
        if resource == "metadata":
            return cls(match["datastore"], study, series, instance)
        if instance is None:
            raise ValueError("only metadata are asked of a study or a series: end the request in /metadata")
        if resource == "frames":
            return cls(match["datastore"], study, series, instance, _frames(rest), "frames")
        bulk = f"?{query}" if query else f"/{rest}" if rest else ""
        return cls(match["datastore"], study, series, instance, [], "bulkdata" if resource else "instance", bulk)

    @classmethod
    def from_request(cls, request: str) -> Self:
        """Return a request that may begin with the word GET; errors as :meth:`from_uri`."""
        return cls.from_uri(request.strip().removeprefix("GET "))

    @property
    def key(self) -> SeriesKey | None:
        """The series that it is about; None for a study."""
        return None if self.series_uid is None else SeriesKey(self.study_uid, self.series_uid)

    def handle(self, client: Any = None) -> Any:
        """Return the answer; see :func:`~cloud_optimized_dicom.dicomweb.handle_request`."""
        from cloud_optimized_dicom.dicomweb.service import Dicomweb  # noqa: PLC0415 - which answers requests

        return Dicomweb(self.datastore_uri, client).handle(self)


def _frames(text: str) -> list[int]:
    numbers = unquote(text).split(",")
    if not all(_FRAME.fullmatch(number) for number in numbers):
        raise ValueError("frames are numbers from 1 on, with commas between them")
    return [int(number) for number in numbers]


def study_level(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study is told by, of the header of one of its instances."""
    return {tag: header[tag] for tag in STUDY_LEVEL_TAGS if tag in header}
