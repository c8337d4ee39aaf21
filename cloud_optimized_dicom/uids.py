"""UIDs as object names: what may reach a path, and the names of everything that belongs to a series."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloud_optimized_dicom.errors import InvalidUidError

_UID = re.compile(r"[0-9.]{1,64}")
_SERIES_NAME = re.compile(r"studies/(?P<study>[^/]+)/series/(?P<series>[^/]+?)(?:\.tar|/metadata\.json|/)?$")
_DOTS_ONLY = re.compile(r"\.+")


def is_uid(uid: object) -> bool:
    """Return whether a text is 1 to 64 digits and dots, and not dots alone (``..`` is a path)."""
    return isinstance(uid, str) and bool(_UID.fullmatch(uid)) and not _DOTS_ONLY.fullmatch(uid)


def check_uid(uid: str, kind: str) -> str:
    """Return `uid` if it may be part of an object name.

    Parameters
    ----------
    uid
        1 to 64 digits and dots, not dots alone (``..`` is a path).  UIDs that break DICOM's finer grammar
        (PS3.5 section 9.1), a leading zero for instance, are kept: what is readable is stored.
    kind
        ``"study"``, ``"series"`` or ``"instance"``, for the error.

    Raises
    ------
    InvalidUidError
        Otherwise.  The error does not repeat the text, which may be anything.
    """
    if not is_uid(uid):
        raise InvalidUidError(kind, len(str(uid)))
    return uid


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """A series of a datastore, and the names of its objects relative to the datastore."""

    study_uid: str
    series_uid: str

    def __post_init__(self) -> None:
        check_uid(self.study_uid, "study")
        check_uid(self.series_uid, "series")

    @classmethod
    def parse(cls, name: str) -> SeriesKey | None:
        """Return the series that an object name or folder belongs to, or None if it names no series."""
        match = _SERIES_NAME.search(name.rstrip("/"))
        if match is None:
            return None
        try:
            return cls(match["study"], match["series"])
        except InvalidUidError:
            return None

    @property
    def folder(self) -> str:
        """``studies/S/series/E``: no trailing slash."""
        return f"studies/{self.study_uid}/series/{self.series_uid}"

    @property
    def names(self) -> tuple[str, str]:
        """Between which names, the second one excluded, all objects of the series lie: the tar and those in the folder.

        Notes
        -----
        UIDs are digits and dots, so no other series' object lies between ``E.tar`` and ``E/...``: in ASCII a dot comes
        right before a slash, and a slash right before a zero.
        """
        return self.tar, f"{self.folder}0"

    @property
    def tar(self) -> str:
        """Name of the tar."""
        return f"{self.folder}.tar"

    @property
    def metadata(self) -> str:
        """Name of metadata.json."""
        return f"{self.folder}/metadata.json"

    @property
    def lock(self) -> str:
        """Name of the lock blob."""
        return f"{self.folder}/.gradient.lock"

    @property
    def error_log(self) -> str:
        """Name of the quarantine marker."""
        return f"{self.folder}/error.log"

    @property
    def index(self) -> str:
        """Name of the index that older readers need."""
        return f"{self.folder}/index.sqlite"

    @property
    def pending(self) -> str:
        """Prefix of the segments on their way in; ends in a slash."""
        return f"{self.folder}/.pending/"

    def segment(self, write_id: str, number: int) -> str:
        """Name of one staged segment of a commit."""
        return f"{self.pending}{write_id}/{number:05d}"

    def __str__(self) -> str:
        return self.folder


def member_name(instance_uid: str) -> str:
    """Return the name of an instance's tar member."""
    return f"instances/{check_uid(instance_uid, 'instance')}.dcm"


def member_uri(tar_uri: str, instance_uid: str) -> str:
    """Return the URI of an instance in a tar: ``{tar}://instances/{uid}.dcm``.

    Notes
    -----
    Nothing is checked: errors name so what a damaged document calls an instance.
    """
    return f"{tar_uri}://instances/{instance_uid}.dcm"


@dataclass(frozen=True, slots=True)
class NestedUri:
    """A tar and the name of a member in it, as ``{tar}://{member}``."""

    tar: str
    member: str

    @classmethod
    def parse(cls, uri: str) -> NestedUri | None:
        """Return the two halves of a nested URI, or None for any other."""
        tar, separator, member = uri.rpartition(".tar://")
        return cls(f"{tar}.tar", member) if separator else None

    @property
    def instance_uid(self) -> str:
        """The UID that the member is named after."""
        return self.member.removeprefix("instances/").removesuffix(".dcm")

    def __str__(self) -> str:
        return f"{self.tar}://{self.member}"
