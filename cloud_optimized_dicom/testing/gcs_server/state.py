"""All buckets and objects, behind one lock: a condition and the change that it guards are one step.

Contents are immutable and made before the lock is taken, so that the lock is held for microseconds only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.checksum import combine_all
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError, no_such_object
from cloud_optimized_dicom.testing.gcs_server.model import Bucket, Draft, Locator, ObjectVersion, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloud_optimized_dicom.testing.gcs_server.content import Spool
    from cloud_optimized_dicom.testing.gcs_server.preconditions import Preconditions

MAX_COMPOSE_SOURCES = 32
_MAX_NAME_BYTES = 1024
_MAX_METADATA_BYTES = 8 << 10

Change = Callable[[dict[str, Any]], dict[str, Any]]


class State:
    """Buckets and objects; every method is atomic and safe to call from several threads.

    Notes
    -----
    Generations are microseconds since 1970 that strictly increase over all names, so none ever comes back.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._lock = threading.RLock()
        self._buckets: dict[str, Bucket] = {}
        self._generation = 0

    def _next_generation(self) -> int:
        self._generation = max(self._generation + 1, time.time_ns() // 1000)
        return self._generation

    # -- buckets

    def create_bucket(self, name: str, properties: dict[str, Any]) -> Bucket:
        """Make a bucket, or refuse with 409."""
        with self._lock:
            if name in self._buckets:
                message = "Your previous request to create the named bucket succeeded and you already own it."
                raise ServiceError(409, message)
            bucket = self._buckets[name] = Bucket(name, self._next_generation(), properties)
            return bucket

    def buckets(self) -> list[Bucket]:
        """Return all buckets by name."""
        with self._lock:
            return [self._buckets[name] for name in sorted(self._buckets)]

    @contextmanager
    def bucket(self, name: str, conditions: Preconditions | None = None) -> Iterator[Bucket]:
        """Give a bucket that nobody changes meanwhile, or refuse with 404, 412 or 304."""
        with self._lock:
            bucket = self._buckets.get(name)
            if bucket is None:
                raise ServiceError(404, "The specified bucket does not exist.")
            if conditions:
                conditions.check(bucket)
            yield bucket

    def patch_bucket(self, name: str, conditions: Preconditions, change: Change) -> Bucket:
        """Change the properties of a bucket."""
        with self.bucket(name, conditions) as bucket:
            bucket.properties = change(bucket.properties)
            bucket.metageneration += 1
            bucket.updated = datetime.now(UTC)
            return bucket

    def delete_bucket(self, name: str, conditions: Preconditions) -> None:
        """Delete a bucket, or refuse with 409 where it holds anything."""
        with self.bucket(name, conditions) as bucket:
            if not bucket.empty:
                raise ServiceError(409, "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    # -- objects

    def get(self, locator: Locator, conditions: Preconditions) -> ObjectVersion:
        """Return a version, or refuse with 404, 412 or 304."""
        with self.bucket(locator.bucket) as bucket:
            return _get(bucket, locator, conditions)

    def check_insert(self, locator: Locator, conditions: Preconditions) -> None:
        """Refuse what :meth:`insert` would refuse now; for the start of an upload session."""
        _require_valid_name(locator.name)
        with self.bucket(locator.bucket) as bucket:
            conditions.check(bucket.live.get(locator.name))

    def insert(self, locator: Locator, draft: Draft, conditions: Preconditions) -> ObjectVersion:
        """Write an object."""
        with self._lock:
            self.check_insert(locator, conditions)
            with self.bucket(locator.bucket) as bucket:
                return self._put(bucket, locator.name, draft)

    def patch(self, locator: Locator, conditions: Preconditions, change: Change) -> ObjectVersion:
        """Change the properties of a version; its generation stays, its metageneration grows."""
        with self.bucket(locator.bucket) as bucket:
            old = _get(bucket, locator, conditions)
            properties = change(old.draft.properties)
            _require_small_metadata(properties)
            new = replace(
                old,
                metageneration=old.metageneration + 1,
                updated=datetime.now(UTC),
                draft=replace(old.draft, properties=properties),
            )
            if bucket.live.get(old.name) is old:
                bucket.set_live(new)
            else:
                bucket.remove(old)
                bucket.add_noncurrent(new)
            return new

    def delete(self, locator: Locator, conditions: Preconditions) -> None:
        """Delete a version; a live one that is not named by generation stays as noncurrent in a versioned bucket."""
        with self.bucket(locator.bucket) as bucket:
            version = _get(bucket, locator, conditions)
            _require_no_hold(version)
            bucket.remove(version)
            if locator.generation is None and bucket.versioned:
                bucket.add_noncurrent(replace(version, deleted=datetime.now(UTC)))

    def compose(
        self,
        target: Locator,
        sources: Sequence[Source],
        conditions: Preconditions,
        properties: dict[str, Any],
        *,
        delete_sources: bool = False,
    ) -> ObjectVersion:
        """Write the concatenation of 1 to 32 sources, over one of them if need be.

        Notes
        -----
        `delete_sources` deletes for good (no noncurrent version stays) every source but the target itself.
        """
        if not 1 <= len(sources) <= MAX_COMPOSE_SOURCES:
            raise ServiceError(400, f"The number of source components provided ({len(sources)}) must be 1 to 32")
        with self._lock:
            self.check_insert(target, conditions)
            with self.bucket(target.bucket) as bucket:
                parts = [_get(bucket, source.locator, source.conditions) for source in sources]
                doomed = {part.generation: part for part in parts if part.name != target.name} if delete_sources else {}
                for part in doomed.values():
                    _require_no_hold(part)
                result = self._put(bucket, target.name, self._composed(parts, properties))
                for part in doomed.values():
                    bucket.remove(part)
                return result

    def _composed(self, parts: Sequence[ObjectVersion], properties: dict[str, Any]) -> Draft:
        classes = {part.storage_class for part in parts}
        if len(classes) > 1:
            raise ServiceError(400, "All source objects must have the same storage class.")
        return Draft(
            content=self._spool.joined(part.draft.content for part in parts),
            crc32c=combine_all([(part.draft.crc32c, part.draft.content.size) for part in parts])[0],
            md5=None,
            properties={"storageClass": classes.pop()} | properties,
            component_count=sum(part.draft.component_count or 1 for part in parts),
        )

    def copy(
        self,
        source: Source,
        target: Locator,
        conditions: Preconditions,
        properties: dict[str, Any],
        *,
        move: bool = False,
    ) -> ObjectVersion:
        """Write a copy with some properties replaced; `move` deletes the source in the same step."""
        with self._lock:
            with self.bucket(source.locator.bucket) as bucket:
                old = _get(bucket, source.locator, source.conditions)
            if move:
                _require_no_hold(old)
            self.check_insert(target, conditions)
            draft = replace(
                old.draft,
                properties=old.draft.properties | properties,
                component_count=old.draft.component_count and 1,
            )
            with self.bucket(target.bucket) as into:
                new = self._put(into, target.name, draft)
            if move:
                bucket.remove(old)
            return new

    def _put(self, bucket: Bucket, name: str, draft: Draft) -> ObjectVersion:
        properties = {"storageClass": bucket.properties["storageClass"]} | draft.properties
        _require_small_metadata(properties)
        old = bucket.live.get(name)
        if old:
            _require_no_hold(old)
            if bucket.versioned:
                bucket.add_noncurrent(replace(old, deleted=datetime.now(UTC)))
        generation = self._next_generation()
        new = ObjectVersion(
            bucket=bucket.name,
            name=name,
            generation=generation,
            metageneration=1,
            updated=datetime.fromtimestamp(generation / 1e6, UTC),
            draft=replace(draft, properties=properties),
        )
        bucket.set_live(new)
        return new


def _get(bucket: Bucket, locator: Locator, conditions: Preconditions) -> ObjectVersion:
    version = bucket.find(locator.name, locator.generation)
    if version is None:
        raise no_such_object(bucket.name, locator.name)
    conditions.check(version)
    return version


def _require_valid_name(name: str) -> None:
    length = len(name.encode("utf-8", "replace"))
    if not 1 <= length <= _MAX_NAME_BYTES or name in {".", ".."} or "\r" in name or "\n" in name:
        raise ServiceError(400, "Invalid object name.")


def _require_small_metadata(properties: dict[str, Any]) -> None:
    metadata = properties.get("metadata") or {}
    if sum(len(f"{key}{value}".encode()) for key, value in metadata.items()) > _MAX_METADATA_BYTES:
        raise ServiceError(400, "The metadata of the object is larger than 8192 bytes.")


def _require_no_hold(version: ObjectVersion) -> None:
    for key, kind in (("temporaryHold", "Temporary"), ("eventBasedHold", "Event-Based")):
        if version.draft.properties.get(key):
            message = (
                f"Object '{version.bucket}/{version.name}' is under active {kind} hold and cannot be deleted, "
                "overwritten or archived until hold is removed."
            )
            raise ServiceError(403, message)
