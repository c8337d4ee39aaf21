"""The body of a lock blob: who holds it, until when, and the intent that decides a commit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import MetadataError
from cloud_optimized_dicom.format.json_stream import dump_gzip
from cloud_optimized_dicom.format.metadata.document import Change, parse_json_object
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.uids import SeriesKey


@dataclass(frozen=True, slots=True)
class ObjectState:
    """An object as an intent found it: its version, and what tells its bytes where versions do not (a copied store).

    `crc32c` is None for metadata.json, whose version alone is compared in its own bucket.
    """

    version: str
    size: int
    crc32c: int | None

    def dump(self) -> dict[str, Any]:
        """Return the state as JSON."""
        crc = None if self.crc32c is None else checksum.encode(self.crc32c)
        return {"version": self.version, "size": self.size, "crc32c": crc}

    @classmethod
    def parse(cls, raw: Mapping[str, Any] | None) -> ObjectState | None:
        """Return the state that :meth:`dump` gave; None stands for an absent object."""
        if raw is None:
            return None
        crc = raw["crc32c"]
        return cls(raw["version"], raw["size"], None if crc is None else checksum.decode(crc))


@dataclass(frozen=True, slots=True)
class TarResult:
    """The tar that an intent makes: its size in bytes and its CRC32C, known before it exists; and its storage class."""

    size: int
    crc32c: int
    storage_class: str | None = None

    def dump(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {"size": self.size, "crc32c": checksum.encode(self.crc32c), "storage_class": self.storage_class}

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> TarResult:
        """Return the result that :meth:`dump` gave."""
        return cls(raw["size"], checksum.decode(raw["crc32c"]), raw["storage_class"])


@dataclass(frozen=True)
class Intent:
    """A decided commit, complete enough for anybody to finish it.

    Parameters
    ----------
    write_id
        Of the commit; it ends up in the document's ``cod.commits``.
    base_metadata, base_tar
        metadata.json and tar that the change was made for; None = absent.
    sources
        What the new tar is the concatenation of, in order; empty where the tar stays as it is.
    result
        The tar afterwards; None where it stays as it is.
    change
        What happens to the document.
    hashed_uids
        Whether a document that does not exist yet gets ``deid_`` keys.
    """

    write_id: str
    base_metadata: ObjectState | None
    base_tar: ObjectState | None
    sources: tuple[ConcatSource, ...]
    result: TarResult | None
    change: Change
    hashed_uids: bool = False

    def dump(self) -> dict[str, Any]:
        """Return the intent as JSON."""
        base = {name: state and state.dump() for name, state in (("M", self.base_metadata), ("T", self.base_tar))}
        sources = [{"name": source.name, "version": source.version} for source in self.sources]
        return {
            "write_id": self.write_id,
            "base": base,
            "sources": sources,
            "result": self.result and self.result.dump(),
            "change": self.change.dump(),
            "hashed_uids": self.hashed_uids,
        }

    @classmethod
    def parse(cls, raw: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> Intent:
        """Return the intent that :meth:`dump` gave, with the records that it adds."""
        return cls(
            write_id=raw["write_id"],
            base_metadata=ObjectState.parse(raw["base"]["M"]),
            base_tar=ObjectState.parse(raw["base"]["T"]),
            sources=tuple(ConcatSource(source["name"], source["version"]) for source in raw["sources"]),
            result=raw["result"] and TarResult.parse(raw["result"]),
            change=Change.parse(raw["change"], records),
            hashed_uids=raw["hashed_uids"],
        )


@dataclass(frozen=True)
class LockRecord:
    """What a lock blob says.

    Parameters
    ----------
    owner
        Host and process of the holder; None for an older writer's lock.
    write_id
        Of this acquisition.
    lease_seconds
        From the blob's last write, by the server's clock; None for an older writer's lock, which has no lease.
    intent
        A decided commit that is not finished.
    holds_instances
        Whether an older writer's lock carries the instances it was writing.
    """

    owner: str | None
    write_id: str | None
    acquired: str | None
    lease_seconds: float | None
    intent: Intent | None = None
    holds_instances: bool = False

    def expires(self, updated: datetime) -> datetime | None:
        """Return when the lease ends for a blob last written at `updated`."""
        return None if self.lease_seconds is None else updated + timedelta(seconds=self.lease_seconds)


def dump_lock(record: LockRecord, key: SeriesKey, *, hashed_uids: bool) -> BytesPayload:
    """Return the bytes of a lock blob.

    Notes
    -----
    The body looks like a series document, so that older writers can parse it.  Its instances are the intent's records:
    an older writer never overrides a lock that holds instances, hence never a decided commit.
    """
    prefix = "deid_" if hashed_uids else ""
    body = {
        f"{prefix}study_uid": key.study_uid,
        f"{prefix}series_uid": key.series_uid,
        "cod": {"instances": dict(record.intent.change.add) if record.intent else {}},
        "lock": {
            "owner": record.owner,
            "write_id": record.write_id,
            "acquired": record.acquired,
            "lease_seconds": record.lease_seconds,
            "intent": record.intent and record.intent.dump(),
        },
    }
    return BytesPayload(dump_gzip(body, level=1))


def parse_lock(uri: str, data: bytes) -> LockRecord:
    """Return what a lock blob says; a blob without a lease of ours is an older writer's.

    Raises
    ------
    MetadataError
        If a lock of ours is damaged: nobody may then guess what was decided.
    """
    try:
        raw = parse_json_object(uri, data)
    except MetadataError:
        return LockRecord(None, None, None, None, holds_instances=True)  # not ours; be careful with it
    lock = raw.get("lock")
    cod = raw.get("cod")
    instances = cod.get("instances") if isinstance(cod, dict) else None
    if not isinstance(lock, dict):
        return LockRecord(None, None, None, None, holds_instances=bool(instances))
    try:
        intent = lock["intent"] and Intent.parse(lock["intent"], raw["cod"]["instances"])
        return LockRecord(lock["owner"], lock["write_id"], lock["acquired"], float(lock["lease_seconds"]), intent)
    except (KeyError, TypeError, ValueError) as error:
        raise MetadataError(uri, ["the lock's record is damaged"]) from error
