"""Paths of the filesystem: a datastore, and what in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from cloud_optimized_dicom.errors import InvalidUidError
from cloud_optimized_dicom.uids import SeriesKey, is_uid

_UID = "[0-9.]+"
_TAIL = re.compile(
    rf"(?:^|/)studies(?:/(?P<study>{_UID})(?:/series(?:/(?P<series>{_UID})"
    rf"(?P<instances>/instances(?:/(?P<instance>{_UID})\.dcm)?)?)?)?)?$"
)


class Level(IntEnum):
    """What a path names."""

    DATASTORE = 0
    STUDIES = 1
    STUDY = 2
    STUDY_SERIES = 3
    SERIES = 4
    INSTANCES = 5
    INSTANCE = 6


@dataclass(frozen=True, slots=True)
class CodPath:
    """``{root}/studies/{study}/series/{series}/instances/{instance}.dcm``, or the beginning of one.

    Parameters
    ----------
    text
        The path as it was given, without a trailing slash.
    root
        What lies before ``studies``: the datastore.
    level
        How far it goes.
    """

    text: str
    root: str
    level: Level
    study: str = ""
    series: str = ""
    instance: str = ""

    @classmethod
    def parse(cls, text: str) -> CodPath:
        """Return the parts of a path.

        Raises
        ------
        FileNotFoundError
            If nothing can be there.
        """
        text = text.rstrip("/")
        match = _TAIL.search(text)
        if match is None:
            if re.search("(?:^|/)studies/", text):
                raise FileNotFoundError(text)
            return cls(text, text, Level.DATASTORE)
        study, series, instance = (match[name] or "" for name in ("study", "series", "instance"))
        if not all(is_uid(uid) for uid in (study, series, instance) if uid):
            raise FileNotFoundError(text)
        level = Level.INSTANCE if instance else Level.INSTANCES if match["instances"] else Level.SERIES
        if not series:
            level = Level.STUDY if study else Level.STUDIES
            level = Level.STUDY_SERIES if text.endswith("/series") else level
        return cls(text, text[: match.start()], level, study, series, instance)

    @property
    def key(self) -> SeriesKey:
        """The series; `FileNotFoundError` for a path that names none."""
        try:
            return SeriesKey(self.study, self.series)
        except InvalidUidError:
            raise FileNotFoundError(self.text) from None

    def below(self, name: str) -> str:
        """Return the path of what lies in this folder under a name."""
        return f"{self.text}/{name}" if self.text else name
