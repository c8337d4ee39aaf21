"""Bytes that have gone bad in a store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cloud_optimized_dicom.format.metadata.document import parse_json_object
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload

if TYPE_CHECKING:
    from cloud_optimized_dicom import CODObject


def damage(cod: CODObject, position: int) -> None:
    """Change a byte of the tar, and let the document say nothing of the tar, as one of an older writer does."""
    store, key = cod.store, cod.key
    tar, document = (bytearray(store.read_object(name).data) for name in (key.tar, key.metadata))
    tar[position] ^= 1
    raw = parse_json_object(key.metadata, bytes(document))
    del raw["cod"]["tar"]
    for name, data in ((key.tar, bytes(tar)), (key.metadata, json.dumps(raw).encode())):
        store.replace(name, BytesPayload(data), version=store.stat(name).version, write_id=new_write_id())
