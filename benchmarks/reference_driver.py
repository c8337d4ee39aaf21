"""Runs inside the reference's environment: one job from standard input, its figures as JSON to standard output.

Imports nothing of this project, and of the published library the names that its documentation has.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from pydicom.pixels.utils import iter_pixels

from cloud_optimized_dicom.cod_object import CODObject
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.instance import Instance

Order = dict[str, Any]


def new_client(order: Order) -> Any:
    """Return a client of the storage server."""
    return storage.Client(
        project="test-project",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": order["endpoint"]},
    )


def opened(order: Order, mode: Any) -> CODObject:
    """Return the series."""
    return CODObject(
        datastore_path=order["datastore"], client=new_client(order),
        study_uid=order["study_uid"], series_uid=order["series_uid"], mode=mode,
    )  # fmt: skip


def instances(order: Order) -> list[Instance]:
    """Return what is to be stored, with hints where the order has some."""
    client = new_client(order)
    hints = order.get("hints") or [{}] * len(order["uris"])
    return [
        Instance(dicom_uri=uri, hints=Hints(**claims), transport_params={"client": client})
        for uri, claims in zip(order["uris"], hints, strict=True)
    ]


def add(order: Order, mode: str) -> list[int]:
    """Append and commit; the counts of new, same, conflict and errors."""
    with opened(order, mode) as cod:
        result = cod.append(instances(order), compress=order.get("compress", False))
    return [len(part) for part in result]


def remove(order: Order) -> None:
    """Remove one instance; there is no call for it, so all others are written anew."""
    with opened(order, "r") as cod:
        cod.extract_locally()
        kept = [instance for uid, instance in cod.get_instances().items() if uid != order["uid"]]
        with opened(order, "w") as new:
            new.append([Instance(dicom_uri=instance.dicom_uri) for instance in kept], compress=False)


def edit(order: Order) -> None:
    """Rewrite one instance, but for its last byte as it was."""
    with opened(order, "e") as cod:
        path = Path(cod.get_instance(order["uid"]).dicom_uri)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def read_headers(order: Order) -> list[int]:
    """Read every header."""
    with opened(order, "r") as cod:
        return [len([instance.metadata for instance in cod.get_instances().values()])]


def read_instance(order: Order) -> list[int]:
    """Read one instance whole."""
    with opened(order, "r") as cod, cod.open_instance(order["uid"]) as file:
        return [len(file.read())]


def read_frame(order: Order) -> list[int]:
    """Read one frame."""
    with opened(order, "r") as cod, cod.open_instance(order["uid"]) as file:
        return [len(frame) for frame in iter_pixels(file, indices=[order["frame"]])]


JOBS = {
    "ingest": lambda order: add(order, "w"),
    "append": lambda order: add(order, "a"),
    "remove": remove,
    "edit": edit,
    "headers": read_headers,
    "instance": read_instance,
    "frame": read_frame,
}


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mib() -> float:
    """Return the peak resident memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Do the job."""
    order = json.load(sys.stdin)
    cpu, start = cpu_seconds(), time.perf_counter()
    found = JOBS[order["job"]](order)
    wall, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    print(json.dumps({"wall_seconds": wall, "cpu_seconds": cpu, "peak_mib": peak_mib(), "found": found}))


if __name__ == "__main__":
    main()
