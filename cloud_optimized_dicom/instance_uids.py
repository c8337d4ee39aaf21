"""The UIDs of an instance: its own, and the hashed ones that it may be stored under."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import HashedUidsError, HintMismatchError, InvalidUidError
from cloud_optimized_dicom.uid_hashing import hash_uid
from cloud_optimized_dicom.uids import SeriesKey, check_uid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.hints import Hints
    from cloud_optimized_dicom.model import DicomFacts, InstanceRecord
    from cloud_optimized_dicom.uid_hashing import UidHash


class InstanceUids(ABC):
    """What an instance says of its UIDs."""

    dicom_uri: str
    hints: Hints
    uid_hash_func: UidHash | None
    _original_path: str
    _record: InstanceRecord | None
    _hashed_names: tuple[str, str, str] | None
    """What study, series and instance are stored under, for an instance that a hashed series gave out."""

    @property
    def original_path(self) -> str:
        """The URI that the instance was made with, or was ingested from; it never changes."""
        return self._original_path

    @abstractmethod
    def measured(self) -> DicomFacts:
        """Return what was measured on the file, reading it if that has not happened yet."""

    # -- its own

    def instance_uid(self, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the SOP Instance UID."""
        return self._uid("instance_uid", trust_hints=trust_hints_if_available)

    def series_uid(self, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the Series Instance UID."""
        return self._uid("series_uid", trust_hints=trust_hints_if_available)

    def study_uid(self, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the Study Instance UID."""
        return self._uid("study_uid", trust_hints=trust_hints_if_available)

    def _uid(self, name: str, *, trust_hints: bool) -> str:
        hinted = getattr(self.hints, name)
        if trust_hints and hinted is not None:
            return check_uid(hinted, name.removesuffix("_uid"))
        facts = self._record if self._record is not None else self.measured()
        return str(getattr(facts, name))

    # -- hashed

    def hash_uid(self, uid: str) -> str:
        """Return what stands for any UID.

        Raises
        ------
        HashedUidsError
            Without a `uid_hash_func` (an instance of a hashed series still knows what its own UIDs are stored as), and
            where the function refuses the UID.  It is a `ValueError`.
        InvalidUidError
            If what the function returns is no UID.
        """
        if self.uid_hash_func is not None:
            return hash_uid(self.uid_hash_func, uid, self.original_path)
        known = self._known_hashes
        if uid not in known:
            raise HashedUidsError(self.original_path, "it has no uid_hash_func")
        return known[uid]

    @property
    def _known_hashes(self) -> Mapping[str, str]:
        """What an instance of a hashed series is stored under, by its own UIDs; nothing of any other."""
        record, names = self._record, self._hashed_names
        if record is None or names is None:
            return {}
        return dict(zip((record.study_uid, record.series_uid, record.instance_uid), names, strict=True))

    def hashed_instance_uid(self, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the hash of the SOP Instance UID; errors as of :meth:`hash_uid`."""
        return self.hash_uid(self.instance_uid(trust_hints_if_available=trust_hints_if_available))

    def hashed_series_uid(self, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the hash of the Series Instance UID; errors as of :meth:`hash_uid`."""
        return self.hash_uid(self.series_uid(trust_hints_if_available=trust_hints_if_available))

    def hashed_study_uid(self, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the hash of the Study Instance UID; errors as of :meth:`hash_uid`."""
        return self.hash_uid(self.study_uid(trust_hints_if_available=trust_hints_if_available))

    # -- either

    def get_instance_uid(self, hashed: bool, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the SOP Instance UID, or its hash."""
        getter = self.hashed_instance_uid if hashed else self.instance_uid
        return getter(trust_hints_if_available=trust_hints_if_available)

    def get_series_uid(self, hashed: bool, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the Series Instance UID, or its hash."""
        getter = self.hashed_series_uid if hashed else self.series_uid
        return getter(trust_hints_if_available=trust_hints_if_available)

    def get_study_uid(self, hashed: bool, trust_hints_if_available: bool = False) -> str:  # noqa: FBT001, FBT002
        """Return the Study Instance UID, or its hash."""
        getter = self.hashed_study_uid if hashed else self.study_uid
        return getter(trust_hints_if_available=trust_hints_if_available)

    # -- as it is stored

    @property
    def is_hashed(self) -> bool:
        """Whether it is stored, or is to be stored, under hashed UIDs."""
        return self.uid_hash_func is not None or bool(self._known_hashes)

    def stored_uid(self, uid: str) -> str:
        """Return what stands for a UID where the instance is stored: itself, or its hash."""
        return self.hash_uid(uid) if self.is_hashed else uid

    def stored_key(self, uids: DicomFacts | Hints) -> SeriesKey:
        """Return the series that the instance, being of these UIDs, is stored in; errors as of :meth:`hash_uid`."""
        return SeriesKey(self.stored_uid(uids.study_uid or ""), self.stored_uid(uids.series_uid or ""))

    def find_stored_uid(self, uids: DicomFacts | Hints) -> str | None:
        """Return the UID that the instance is stored under; None where its own is not known, or has no hash."""
        try:
            return None if uids.instance_uid is None else self.stored_uid(uids.instance_uid)
        except (HashedUidsError, InvalidUidError):
            return None  # whoever has to store it is told why

    def check_hashing(self, *, hashed: bool) -> None:
        """Make sure that the instance may go into a series of hashed UIDs, or into one that is none.

        Raises
        ------
        HashedUidsError
            Otherwise: nothing is stored under other UIDs than was meant.
        """
        if hashed and not self.is_hashed:
            raise HashedUidsError(self.original_path, "it has no uid_hash_func, and the series is one of hashed UIDs")
        if not hashed and self.uid_hash_func is not None:
            reason = "it has a uid_hash_func, and the series is not one of hashed UIDs"
            raise HashedUidsError(self.original_path, reason)

    def told(self, error: Exception) -> Exception:
        """Return an error as it may be told of the instance: it names no UID that the instance is not stored under."""
        if not self.is_hashed or not isinstance(error, HintMismatchError) or not error.field.endswith("_uid"):
            return error
        try:
            hinted, found = (self.hash_uid(str(uid)) for uid in (error.hinted, error.found))
        except (HashedUidsError, InvalidUidError) as refusal:
            return refusal
        return HintMismatchError(error.uri, error.field, hinted, found)
