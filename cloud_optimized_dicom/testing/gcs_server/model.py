"""What the server holds: versions of objects, and buckets."""

from __future__ import annotations

import base64
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server.content import Content
    from cloud_optimized_dicom.testing.gcs_server.preconditions import Preconditions


class Locator(NamedTuple):
    """Which object; of which generation, where one is named."""

    bucket: str
    name: str
    generation: int | None = None


class Source(NamedTuple):
    """A source of a composition or copy and the conditions it must meet."""

    locator: Locator
    conditions: Preconditions


@dataclass(frozen=True, slots=True)
class Draft:
    """An object about to be.

    Parameters
    ----------
    content, crc32c, md5
        The bytes; composed objects have no MD5.
    properties
        What clients may set, by its JSON name: ``contentType``, ``metadata`` ...
    component_count
        Of composed objects only.
    """

    content: Content
    crc32c: int
    md5: bytes | None
    properties: dict[str, Any]
    component_count: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One state of one object; `deleted` is when it became noncurrent."""

    bucket: str
    name: str
    generation: int
    metageneration: int
    updated: datetime
    draft: Draft
    deleted: datetime | None = None

    @property
    def created(self) -> datetime:
        """When the data was written: generations are its microseconds."""
        return datetime.fromtimestamp(self.generation / 1e6, UTC)

    @property
    def etag(self) -> str:
        """Changes with data and metadata."""
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    @property
    def content_encoding(self) -> str | None:
        """As the client set it."""
        return self.draft.properties.get("contentEncoding")

    @property
    def storage_class(self) -> str:
        """Such as ``"STANDARD"``."""
        return str(self.draft.properties["storageClass"])


@dataclass
class Bucket:
    """A bucket; guarded by the lock of the state that holds it."""

    name: str
    generation: int
    properties: dict[str, Any]
    metageneration: int = 1
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))
    live: dict[str, ObjectVersion] = field(default_factory=dict)
    noncurrent: dict[str, list[ObjectVersion]] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)  # sorted; code point order is the order of UTF-8 bytes

    @property
    def created(self) -> datetime:
        """When it was made."""
        return datetime.fromtimestamp(self.generation / 1e6, UTC)

    @property
    def etag(self) -> str:
        """Changes with the metadata."""
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    @property
    def versioned(self) -> bool:
        """Whether overwritten and deleted objects are kept as noncurrent versions."""
        return bool((self.properties.get("versioning") or {}).get("enabled"))

    @property
    def empty(self) -> bool:
        """Whether no version of any object is left."""
        return not self._names

    def find(self, name: str, generation: int | None = None) -> ObjectVersion | None:
        """Return the live version, or the one named."""
        live = self.live.get(name)
        if generation is None or (live and live.generation == generation):
            return live
        return next((one for one in self.noncurrent.get(name, ()) if one.generation == generation), None)

    def set_live(self, version: ObjectVersion) -> None:
        """Make a version the live one; what was live is forgotten."""
        self._add_name(version.name)
        self.live[version.name] = version

    def add_noncurrent(self, version: ObjectVersion) -> None:
        """Keep a version that is no longer live."""
        self._add_name(version.name)
        self.noncurrent.setdefault(version.name, []).append(version)

    def remove(self, version: ObjectVersion) -> None:
        """Forget a version."""
        name = version.name
        if self.live.get(name) is version:
            del self.live[name]
        else:
            self.noncurrent[name].remove(version)
            if not self.noncurrent[name]:
                del self.noncurrent[name]
        if name not in self.live and name not in self.noncurrent:
            del self._names[bisect_left(self._names, name)]

    def names_from(self, start: str) -> int:
        """Return the index of the first name that is not before `start`."""
        return bisect_left(self._names, start)

    def name_at(self, index: int) -> str | None:
        """Return the name at an index of the sorted names, or None past the end."""
        return self._names[index] if index < len(self._names) else None

    def versions(self, name: str, *, noncurrent: bool) -> list[ObjectVersion]:
        """Return the versions of a name by ascending generation, the live one last."""
        found = list(self.noncurrent.get(name, ())) if noncurrent else []
        if live := self.live.get(name):
            found.append(live)
        return found

    def _add_name(self, name: str) -> None:
        if name not in self.live and name not in self.noncurrent:
            insort(self._names, name)
