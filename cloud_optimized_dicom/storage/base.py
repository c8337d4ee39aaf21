"""What an object store can do: conditional writes, pinned reads, lists.  Bytes and names only, no DICOM.

Every write is conditional and carries a *write id*, so that a response that got lost is never taken for a refusal (see
the design note on lost responses).  A *version* names one state of one object and never comes back for that name: a
generation on Google Cloud Storage.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.errors import ObjectNotFoundError, PreconditionFailedError
from cloud_optimized_dicom.ranges import PARALLEL_READS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.payload import Payload

MAX_CONCAT_SOURCES = 32
"""How many sources one :meth:`ObjectStore.concat` takes on every store (the limit of Google Cloud Storage)."""


def common_prefix(first: str, second: str) -> str:
    """Return what two names begin with alike, not only up to a slash."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return "".join(char for char, _ in pairs)


def new_write_id() -> str:
    """Return a fresh write id."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Attributes:
    """How an object is labelled; None leaves the store's default.

    Parameters
    ----------
    content_type, content_encoding
        As in HTTP.  An encoded object is stored and read as its encoded bytes.
    storage_class
        ``"STANDARD"``, ``"NEARLINE"`` ...; ignored by stores that have none.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    storage_class: str | None = None


DEFAULT_ATTRIBUTES = Attributes()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One state of one object.

    Parameters
    ----------
    name
        Relative to the store.
    size, crc32c
        Of the stored bytes (encoded ones, where there is a content encoding).  A store that does not keep checksums
        gives None.
    version
        Never repeats for a name.
    updated
        When this state was written, by the store's clock.
    write_id
        What the writer of this state called its write; None for foreign writers.
    """

    name: str
    size: int
    version: str
    crc32c: int | None
    updated: datetime
    write_id: str | None = None
    content_encoding: str | None = None
    storage_class: str | None = None


class ReadResult(NamedTuple):
    """A whole small object: its stored bytes, its state, and the store's clock at the moment of reading.

    `info.write_id` may be None here even where the object has one, and both times may be told in whole seconds: one
    request must be enough.
    """

    data: bytes
    info: ObjectInfo
    served_at: datetime


class ConcatSource(NamedTuple):
    """A source of a concatenation, at the version it must have (None: whatever is there)."""

    name: str
    version: str | None = None


class ObjectStore(ABC):
    """A prefix of a bucket, or a directory, seen as named objects.

    Notes
    -----
    Objects appear whole or not at all; a read or list sees every write that was acknowledged before it.  All methods
    are safe to call from several threads.  Stores pickle; an unpickled store opens its own connections.

    Errors of every implementation: `PermissionDeniedError`, `TransientStorageError` (after its own retries with
    back-off), and `StorageError` for anything else the store says.
    """

    url: str
    """Where the store is, without a trailing slash, e.g. ``gs://bucket/prefix``."""

    uploads_at_once: int = 1
    """How many uploads are worth running side by side; where it is one, to cut what is large only costs."""

    @property
    def client(self) -> Any:
        """What makes the store's requests, and can make those of another bucket; None for stores without clients."""
        return None

    def close(self) -> None:
        """End the connections that the store has made by itself, if any; the next request makes new ones."""
        return

    def url_of(self, name: str) -> str:
        """Return the full URL of an object."""
        return f"{self.url}/{name}"

    # -- reading

    @abstractmethod
    def stat(self, name: str) -> ObjectInfo:
        """Return the present state of an object.

        Raises
        ------
        ObjectNotFoundError
            If there is none.
        """

    def find(self, name: str) -> ObjectInfo | None:
        """Return the present state of an object, or None."""
        try:
            return self.stat(name)
        except ObjectNotFoundError:
            return None

    @abstractmethod
    def read_object(self, name: str) -> ReadResult:
        """Read a whole object in one request, as stored: a content encoding is *not* undone.

        Raises
        ------
        ObjectNotFoundError
            If there is none.
        """

    @abstractmethod
    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read exactly the bytes of `span`, of the named version if one is given.

        Raises
        ------
        ObjectNotFoundError
            If the object is gone or is not at `version` any more.
        StorageError
            If the object ends before `span` does: short data is never returned.
        """

    def read_ranges(self, name: str, spans: Sequence[ByteRange], *, version: str | None = None) -> list[bytes]:
        """Read several spans, in the order given; each costs one request, several run at a time.

        Raises
        ------
        ObjectNotFoundError, StorageError
            As :meth:`read`.
        """
        if len(spans) <= 1:
            return [self.read(name, span, version=version) for span in spans]
        with ThreadPoolExecutor(min(len(spans), PARALLEL_READS)) as pool:
            return list(pool.map(lambda span: self.read(name, span, version=version), spans))

    @abstractmethod
    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """Stream `span` (or the whole object) in chunks of a few MiB, in one request where the store allows it.

        Raises
        ------
        ObjectNotFoundError, StorageError
            As :meth:`read`; short data raises instead of ending early.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield every object whose name starts with `prefix`, in the order of the names' UTF-8 bytes."""

    def list_between(self, start: str, stop: str) -> Iterator[ObjectInfo]:
        """Yield every object from the name `start` on, up to and without the name `stop`, in order; names are ASCII."""
        return (info for info in self.list(common_prefix(start, stop)) if start <= info.name < stop)

    @abstractmethod
    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names, ending in a slash, of the folders directly below `prefix` (empty or ending in one)."""

    # -- writing

    @abstractmethod
    def create(
        self, name: str, payload: Payload, *, write_id: str, attributes: Attributes = DEFAULT_ATTRIBUTES
    ) -> ObjectInfo:
        """Write an object that must not exist yet; its bytes are checked against the payload's CRC32C by the store.

        Raises
        ------
        PreconditionFailedError
            If there is an object of that name that is not this write's.
        WriteUnknownError
            If it cannot be established whether the write landed; it may land later.
        """

    @abstractmethod
    def replace(
        self,
        name: str,
        payload: Payload,
        *,
        version: str,
        write_id: str,
        attributes: Attributes = DEFAULT_ATTRIBUTES,
    ) -> ObjectInfo:
        """Write over the named version of an object.

        Raises
        ------
        PreconditionFailedError
            If the object is gone or at another version, unless that version is this very write's.
        WriteUnknownError
            As :meth:`create`.
        """

    @abstractmethod
    def concat(
        self,
        name: str,
        sources: Sequence[ConcatSource],
        *,
        version: str | None,
        write_id: str,
        attributes: Attributes = DEFAULT_ATTRIBUTES,
        expected_crc32c: int | None = None,
    ) -> ObjectInfo:
        """Make `name` the concatenation of 1 to 32 sources without moving their bytes through here.

        Parameters
        ----------
        sources
            In order; `name` itself may be among them.
        version
            The version that `name` must have now; None: it must not exist.
        expected_crc32c
            What the result must hash to.

        Raises
        ------
        PreconditionFailedError
            If `name` is not at `version`, or a source not at its own.
        StorageError
            If the result is not what was expected (a store that joins the bytes far from here has written it by then),
            or if there is no source or more than 32.
        ObjectNotFoundError
            If a source does not exist.  Neither error is raised where the present object is this very write's.
        WriteUnknownError
            As :meth:`create`.
        """

    @abstractmethod
    def delete(self, name: str, *, version: str | None = None) -> None:
        """Delete an object, if it is at `version` where one is given.

        Raises
        ------
        ObjectNotFoundError
            If there is none (not raised where an earlier attempt of this call may have deleted it).
        PreconditionFailedError
            If it is at another version.
        """

    def delete_all(self, objects: Sequence[tuple[str, str | None]]) -> None:
        """Delete several objects, each given as its name and the version it must have (None: any).

        Notes
        -----
        For tidying up: what is gone, or has moved on, is passed over.  One request where the store has batches; in no
        particular order then.
        """
        for name, version in objects:
            try:
                self.delete(name, version=version)
            except (ObjectNotFoundError, PreconditionFailedError):
                continue
