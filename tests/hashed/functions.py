"""Hash functions as callers write them, good and bad, and a look for UIDs where none may be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.uids import SeriesKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.core.conftest import Files

PSEUDONYM = f"{__name__}:pseudonym"


def pseudonym(uid: str) -> str:
    """Return another UID for a UID."""
    return "2.25." + str(int(hashlib.sha256(uid.encode()).hexdigest()[:30], 16))


def key_of(files: Files) -> SeriesKey:
    """Return the key that a series is stored under."""
    uids = files.series.uids
    return SeriesKey(pseudonym(uids.study), pseudonym(uids.series))


@dataclass(frozen=True)
class Keyed:
    """Hashes that nobody makes who does not know the key."""

    key: bytes

    def pseudonym(self, uid: str) -> str:
        """Return another UID for a UID."""
        return "2.25." + str(int(hashlib.blake2b(uid.encode(), key=self.key, digest_size=15).hexdigest(), 16))


KEYED = Keyed(b"secret")


class Table:
    """A table of pseudonyms; what is not in it is a KeyError that names the UID."""

    def __init__(self, known: Iterable[str]) -> None:
        self._hashes = {uid: pseudonym(uid) for uid in known}

    def __call__(self, uid: str) -> str:
        """Return the pseudonym of a UID of the table."""
        return self._hashes[uid]


def is_told(files: Files, text: str) -> bool:
    """Return whether a text holds any UID of the files."""
    uids = files.series.uids
    return any(uid in text for uid in (uids.study, uids.series, *files.uids))
