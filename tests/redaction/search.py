"""The search for pixels that are to be gone: in every object of a store, and in what a document has packed."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.format.dicom_json import unpack_header
from cloud_optimized_dicom.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.storage.base import ObjectStore

RUN_BYTES = 12
"""No run of as many bytes of the hidden pixels may be found anywhere."""


def runs_of(data: bytes) -> set[bytes]:
    """Return every run of `RUN_BYTES` bytes in `data`."""
    return {data[start : start + RUN_BYTES] for start in range(len(data) - RUN_BYTES + 1)}


def leaks(data: bytes, runs: set[bytes]) -> bool:
    """Tell whether any of the runs is in `data`."""
    return any(data[start : start + RUN_BYTES] in runs for start in range(len(data) - RUN_BYTES + 1))


def everything(store: ObjectStore) -> dict[str, bytes]:
    """Return the bytes of every object of a store; of a local one, of every file below it, hidden ones too."""
    found = {info.name: store.read_object(info.name).data for info in store.list()}
    if isinstance(store, LocalStore):
        root = Path(store.url)
        assert root.is_dir()
        found |= {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in list(found):
        if name.endswith("metadata.json"):
            found[f"{name}, unpacked"] = unpacked(found[name])
    return found


def unpacked(data: bytes) -> bytes:
    """Return every binary value of every header in a document."""
    document = json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    headers = [unpack_header(record["metadata"]) for record in document["cod"]["instances"].values()]
    return b"|".join(binary(headers))


def binary(value: Any) -> Iterator[bytes]:
    """Yield the binary values in a piece of a header, and whatever is in base64 like one."""
    if isinstance(value, list):
        for item in value:
            yield from binary(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in {"InlineBinary", "head"}:
                yield base64.b64decode(item)
            else:
                yield from binary(item)
