"""``catalogue.json``: which files the tables consist of.  Who goes by it sees every partition whole."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.checksum import crc32c
from cloud_optimized_dicom.errors import MetadataError, ObjectNotFoundError
from cloud_optimized_dicom.format.metadata.document import parse_json_object
from cloud_optimized_dicom.storage.base import Attributes
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.put import put

if TYPE_CHECKING:
    from cloud_optimized_dicom.storage.base import ObjectStore

MANIFEST = "catalogue.json"
VERSION = 1
TABLES = ("series", "instances")
_FILE = re.compile(r"(?:series|instances)/\d{5}-[0-9a-f]{32}\.parquet")
_JSON = Attributes(content_type="application/json")
_TEXT = Attributes(content_type="text/plain")


class PartitionFiles(NamedTuple):
    """The files of one partition, and how many rows they have."""

    series: str
    instances: str
    series_rows: int
    instance_rows: int


def partition_of(study_uid: str, partitions: int) -> int:
    """Return the partition that a study is in, the same everywhere and for ever."""
    return crc32c(study_uid.encode("ascii")) % partitions


def file_name(table: str, partition: int, write_id: str) -> str:
    """Return the name of a file of a table."""
    return f"{table}/{partition:05d}-{write_id}.parquet"


def is_table_file(name: str) -> bool:
    """Return whether an object has the name of a table's file."""
    return bool(_FILE.fullmatch(name))


@dataclass(frozen=True)
class Manifest:
    """What a catalogue consists of.

    Parameters
    ----------
    datastore
        The URL of the datastore that it is of.
    partitions
        How many there may be; those without series have no files.
    files
        By the number of the partition.
    """

    datastore: str
    partitions: int
    files: dict[int, PartitionFiles]

    def changed(self, results: dict[int, PartitionFiles | None]) -> Manifest:
        """Return the manifest with other files of some partitions; None: it has become empty."""
        files = {number: found for number, found in (self.files | results).items() if found is not None}
        return replace(self, files=dict(sorted(files.items())))

    def names_of(self, table: str) -> list[str]:
        """Return the names of the files of one table."""
        return [files.series if table == TABLES[0] else files.instances for files in self.files.values()]

    @property
    def names(self) -> set[str]:
        """The names of all files."""
        return {name for table in TABLES for name in self.names_of(table)}

    def dump(self) -> bytes:
        """Return the stored bytes."""
        document = {
            "version": VERSION,
            "datastore": self.datastore,
            "partitions": self.partitions,
            "files": [{"partition": number, **files._asdict()} for number, files in self.files.items()],
        }
        return json.dumps(document, indent=1).encode("utf-8")


def parse_manifest(uri: str, data: bytes) -> Manifest:
    """Return the manifest in its stored bytes.

    Raises
    ------
    MetadataError
        If it is damaged, or of a later version.
    """
    raw = parse_json_object(uri, data)
    if raw.get("version") != VERSION:
        raise MetadataError(uri, [f"version: not {VERSION}"])
    try:
        files = dict(_parse_files(entry) for entry in raw["files"])
        return Manifest(str(raw["datastore"]), int(raw["partitions"]), files)
    except (KeyError, TypeError, ValueError):
        raise MetadataError(uri, ["datastore, partitions or files are missing or of another type"]) from None


def _parse_files(entry: dict[str, Any]) -> tuple[int, PartitionFiles]:
    names = entry["series"], entry["instances"]
    if not all(is_table_file(name) for name in names):
        raise ValueError("a name that is no table's")
    return int(entry["partition"]), PartitionFiles(*names, int(entry["series_rows"]), int(entry["instance_rows"]))


class Found(NamedTuple):
    """A manifest, and the version that it was found at; None for none yet."""

    manifest: Manifest | None
    version: str | None


def find_manifest(store: ObjectStore) -> Found:
    """Return the present manifest of a catalogue, if there is one."""
    try:
        found = store.read_object(MANIFEST)
    except ObjectNotFoundError:
        return Found(None, None)
    return Found(parse_manifest(store.url_of(MANIFEST), found.data), found.info.version)


def publish(store: ObjectStore, base: Found, manifest: Manifest, write_id: str) -> Found:
    """Write a manifest in place of the one that was found, in one step.

    Raises
    ------
    PreconditionFailedError
        If another run has published since; nothing has changed.
    """
    payload = BytesPayload(manifest.dump())
    if base.version is None:
        info = store.create(MANIFEST, payload, write_id=write_id, attributes=_JSON)
    else:
        info = store.replace(MANIFEST, payload, version=base.version, write_id=write_id, attributes=_JSON)
    return Found(manifest, info.version)


def write_lists(store: ObjectStore, manifest: Manifest) -> None:
    """Write ``series.txt`` and ``instances.txt``: the URLs of each table's files, for who takes such lists."""
    for table in TABLES:
        urls = "".join(f"{store.url_of(name)}\n" for name in manifest.names_of(table))
        put(store, f"{table}.txt", BytesPayload(urls.encode("utf-8")), _TEXT)
