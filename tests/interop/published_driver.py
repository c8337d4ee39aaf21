"""Runs inside the published library's environment: jobs from standard input, one JSON line each, answers likewise.

Imports nothing of this project, and of the published library the names that its documentation has.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
import zlib
from pathlib import Path
from typing import Any

os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from cloud_optimized_dicom.cod_object import CODObject
from cloud_optimized_dicom.instance import Instance

CLIENT = storage.Client(
    project="test-project",
    credentials=AnonymousCredentials(),
    client_options={"api_endpoint": os.environ["STORAGE_EMULATOR_HOST"]},
)
HELD = {}
Order = dict[str, Any]


def hashed(uid: str) -> str:
    """Return another UID for a UID, always the same one."""
    return "2.25." + str(int(hashlib.sha256(uid.encode()).hexdigest()[:30], 16))


def opened(order: Order, mode: str | None = None) -> CODObject:
    """Return the series that an order is about."""
    return CODObject(
        datastore_path=order["datastore"], client=CLIENT,
        study_uid=order["study_uid"], series_uid=order["series_uid"], mode=mode or order.get("mode", "r"),
        **order.get("options", {}),
    )  # fmt: skip


def instances(order: Order) -> list[Instance]:
    """Return the files of an order, hashed as the series is, or as the order says."""
    function = hashed if order.get("hash", order.get("options", {}).get("hashed_uids")) else None
    return [Instance(dicom_uri=path, uid_hash_func=function) for path in order["files"]]


def write(order: Order) -> Any:
    """Add files and fields, in the mode that the order names."""
    with opened(order) as cod:
        result = cod.append(instances(order), compress=order.get("compress", False))
        for name, value in order.get("fields", {}).items():
            cod.add_metadata_field(name, value)
        if order.get("thumbnail"):
            cod.get_thumbnail()
    return {name: len(getattr(result, name)) for name in ("new", "same", "conflict", "errors")} | {
        "why": [str(error[1])[:300] for error in result.errors]
    }


def read(order: Order) -> Any:
    """Return the CRC-32 of every instance that the library reads, by UID."""
    found = {}
    with opened(order, "r") as cod:
        for uid, instance in cod.get_instances(strict_sorting=False).items():
            with cod.open_instance(uid) as file:
                # Its file goes on for one byte of what lies behind an instance, in its own series too.
                found[uid] = zlib.crc32(file.read(instance.size()))
    return found


def headers(order: Order) -> Any:
    """Return the SOP Instance UID that every header holds, by UID."""
    with opened(order, "r") as cod:
        found = cod.get_instances(strict_sorting=False)
        return {uid: instance.metadata["00080018"]["Value"][0] for uid, instance in found.items()}


def check(order: Order) -> Any:
    """Pull the tar and check the series."""
    with opened(order, "r") as cod:
        cod.pull_tar()
        cod.integrity_check()
    return True


def edit(order: Order) -> Any:
    """Write one file anew, with other bytes, in edit mode."""
    with opened(order, "e") as cod:
        path = Path(cod.get_instance(order["uid"]).dicom_uri)
        path.write_bytes(path.read_bytes().replace(order["old"].encode(), order["new"].encode()))


def field(order: Order) -> Any:
    """Return a custom field."""
    with opened(order, "r") as cod:
        return cod.get_metadata_field(order["name"])


def thumbnail(order: Order) -> Any:
    """Return the shape of the thumbnail that the library shows, the stored one where it is right, and its mean grey."""
    with opened(order, "r") as cod:
        pictures = cod.get_thumbnail()
        return {"shape": list(pictures.shape), "mean": float(pictures.mean())}


def hold(order: Order) -> Any:
    """Take the lock, until told to let go."""
    HELD["cod"] = opened(order)
    HELD["cod"].__enter__()


def let_go(order: Order) -> Any:
    """Leave the block that `hold` entered."""
    HELD.pop("cod").__exit__(None, None, None)


JOBS = {job.__name__: job for job in (write, read, headers, check, edit, field, thumbnail, hold, let_go)}


def main() -> None:
    """Do jobs until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the library prints is no answer
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"answer": JOBS[order["job"]](order)}
        except Exception as error:  # noqa: BLE001 - whatever it raises is the answer
            traceback.print_exc()
            answer = {"error": type(error).__name__, "message": str(error)[:500]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
