"""Hashed UIDs: a function of the caller's gives, for each UID, the one that stands for it in names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import HashedUidsError
from cloud_optimized_dicom.uids import SeriesKey, check_uid

if TYPE_CHECKING:
    from collections.abc import Iterable

UidHash = Callable[[str], str]
"""From a UID to the one that stands for it: always the same one for the same UID, and no other UID's.  Several threads
call it at a time."""

# What the caller's code may raise over a UID that it does not like; anything else is a defect that ends the work.
_REFUSALS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def load_uid_hash(given: UidHash | str) -> UidHash:
    """Return a hash function that is given itself, or as ``module:function``.

    Parameters
    ----------
    given
        ``module:object.method`` will do as well.  The module must be importable here, and on every worker of a
        pipeline.

    Raises
    ------
    ValueError
        If the name is that of no function.  The text holds nothing that the module says: its secrets may be there.
    """
    if not isinstance(given, str):
        return given
    module, _, function = given.partition(":")
    try:
        loaded = importlib.import_module(module)
    except (ImportError, *_REFUSALS) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        reason = f"there is no module {missing}" if missing else f"its module raised {type(error).__name__}"
        raise ValueError(f"{given} names no function: {reason}") from None
    try:
        found: UidHash = attrgetter(function)(loaded)
    except AttributeError:
        raise ValueError(f"{given} names no function: module:function does") from None
    if not callable(found):
        raise ValueError(f"{given} is no function")  # noqa: TRY004 - one error for whatever is wrong with the name
    return found


def find_uid_hash(given: UidHash | str | None) -> UidHash | None:
    """Return a hash function as :func:`load_uid_hash` does, or None where none is given."""
    return None if given is None else load_uid_hash(given)


def hash_uid(function: UidHash, uid: str, uri: str) -> str:
    """Return what stands for a UID.

    Parameters
    ----------
    uri
        Of the file that has the UID, for errors.

    Raises
    ------
    HashedUidsError
        If the function refuses the UID.
    InvalidUidError
        If what it returns is no UID.
    """
    try:
        hashed = function(uid)
    except _REFUSALS as error:
        # Not chained: the text of a table's KeyError is the very UID that nobody is to see.
        raise HashedUidsError(uri, f"its uid_hash_func raised {type(error).__name__}") from None
    return check_uid(hashed, "hashed")


def hash_key(function: UidHash | None, key: SeriesKey, uri: str) -> SeriesKey:
    """Return the series that is stored in the place of another; without a function, that one.

    Raises
    ------
    HashedUidsError, InvalidUidError
        As :func:`hash_uid`.
    """
    if function is None:
        return key
    return SeriesKey(hash_uid(function, key.study_uid, uri), hash_uid(function, key.series_uid, uri))


def hash_instances(function: UidHash | None, uids: Iterable[str], uri: str) -> dict[str, str]:
    """Return what stands for each instance of a series; without a function, the UIDs themselves.

    Raises
    ------
    HashedUidsError
        If the function refuses a UID, or two of them have one hash.
    InvalidUidError
        If what it returns is no UID.
    """
    hashes = {uid: uid if function is None else hash_uid(function, uid, uri) for uid in uids}
    if len(set(hashes.values())) < len(hashes):
        raise HashedUidsError(uri, "two of its instances have one hash")
    return hashes
