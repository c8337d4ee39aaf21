"""What an argument names: a datastore, a study, a series or an instance."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.errors import CODObjectNotFoundError, StorageError
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.uids import SeriesKey, check_uid

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cloud_optimized_dicom.cod_object import CODObject

_UID = r"[0-9.]{1,64}?"
_TARGET = re.compile(
    rf"(?:(?P<store>.*)/)?studies/(?P<study>{_UID})"
    rf"(?:/series/(?P<series>{_UID})(?:\.tar(?:://instances/(?P<instance>{_UID})\.dcm)?|/metadata\.json)?)?/*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Target:
    """The parts of a URI; None where it does not go that far."""

    uri: str
    store: str
    study_uid: str | None = None
    key: SeriesKey | None = None
    instance_uid: str | None = None

    @classmethod
    def parse(cls, uri: str) -> Target:
        """Return what a URI or path names; what has no series in it names a datastore."""
        match = _TARGET.fullmatch(uri)
        if match is None:
            return cls(uri, uri)
        check_uid(match["study"], "study")
        key = SeriesKey(match["study"], match["series"]) if match["series"] else None
        store = "." if match["store"] is None else match["store"] or "/"
        return cls(uri, store, match["study"], key, match["instance"])

    @property
    def datastore(self) -> Datastore:
        """The datastore that it belongs to."""
        return open_datastore(self.store)


def open_datastore(url: str) -> Datastore:
    """Return a datastore; a URL that cannot be one is a usage error."""
    try:
        return Datastore(url)
    except StorageError as error:
        raise typer.BadParameter(str(error)) from error


def series_target(uri: str) -> Target:
    """Return the target of an argument that must be a series (or an instance of one)."""
    target = Target.parse(uri)
    if target.key is None:
        raise typer.BadParameter(f"{uri} names no series: .../studies/STUDY_UID/series/SERIES_UID is one")
    return target


def instance_target(uri: str, instance_uid: str | None) -> tuple[Target, str]:
    """Return the series and the instance UID that two arguments, or one instance URI, name."""
    target = series_target(uri)
    uid = instance_uid or target.instance_uid
    if uid is None:
        raise typer.BadParameter("which instance? Give its UID, or the URI of an instance")
    return target, uid


def open_series(target: Target, mode: str = "r", wait_seconds: float = 0) -> AbstractContextManager[CODObject]:
    """Open the series of a target that has one."""
    key = _series_key(target)
    return target.datastore.open(
        key.study_uid, key.series_uid, mode, create_if_missing=False, wait_seconds=wait_seconds
    )


def open_reader(target: Target) -> SeriesReader:
    """Read the metadata of the series of a target that has one; what is asked of the reader is of that state."""
    return SeriesReader.open(target.datastore.store, _series_key(target))


def _series_key(target: Target) -> SeriesKey:
    if target.key is None:
        raise typer.BadParameter(f"{target.uri} names no series")
    return target.key


def series_keys(target: Target, *, incomplete: bool = False) -> list[SeriesKey]:
    """Return the series that a target names or holds; `incomplete` as of `Datastore.series`.

    Raises
    ------
    CODObjectNotFoundError
        If there is none.
    """
    if target.key is not None:
        return [target.key]
    keys = list(target.datastore.series(target.study_uid, incomplete=incomplete))
    if not keys:
        raise CODObjectNotFoundError(target.uri)
    return keys


def existing_keys(target: Target, *, incomplete: bool = False) -> list[SeriesKey]:
    """Return the series that a target names or holds, if it has any object at all: a lock alone counts.

    Raises
    ------
    CODObjectNotFoundError
        If there is none.
    """
    keys = series_keys(target, incomplete=incomplete)
    store = target.datastore.store
    if target.key is not None and not any(store.list(f"{target.key.folder}/")) and not store.find(target.key.tar):
        raise CODObjectNotFoundError(store.url_of(target.key.folder))
    return keys
