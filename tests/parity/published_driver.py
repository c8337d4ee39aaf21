"""Runs inside the published library's environment: more jobs for the driver of the interop tests.

Imports nothing of this project but that driver, and of the published library the names that its documentation, or ours,
has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

import published_driver as driver

from cloud_optimized_dicom.dicomweb import handle_request
from cloud_optimized_dicom.instance import Instance
from cloud_optimized_dicom.query_parsing import query_result_to_codobjects

Order = dict[str, Any]


def append(order: Order) -> Any:
    """Append files; return how many were new, same, conflicting, wrong."""
    with driver.opened(order) as cod:
        files = [Instance(dicom_uri=uri, transport_params={"client": driver.CLIENT}) for uri in order["files"]]
        result = cod.append(files, compress=False, **order.get("how", {}))
    return [len(part) for part in result]


def duplicates(order: Order) -> Any:
    """Return the recorded URIs of differing duplicates, by UID."""
    with driver.opened(order, "r") as cod:
        instances = cod.get_metadata().to_dict()["cod"]["instances"]
    return {uid: record["diff_hash_dupe_paths"] for uid, record in instances.items()}


def quarantine(order: Order) -> Any:
    """Upload an error log."""
    with driver.opened(order, "a") as cod:
        cod.upload_error_log(order["message"])


def request(order: Order) -> Any:
    """Return the answer to a DICOMweb request; bytes as Latin-1 text."""
    answer = handle_request(order["request"], driver.CLIENT)
    if isinstance(answer, list):
        return [item.decode("latin-1") if isinstance(item, bytes) else item for item in answer]
    return answer


def query(order: Order) -> Any:
    """Return the series of a row of a query, and what their instances depend on and hint."""
    found = query_result_to_codobjects(driver.CLIENT, order["row"], order["datastore"], mode="r")
    return [
        [cod.datastore_series_uri, [[item.dependencies, item.hints.__dict__] for item in instances]]
        for cod, instances in found
    ]


if __name__ == "__main__":
    driver.JOBS |= {job.__name__: job for job in (append, duplicates, quarantine, request, query)}
    driver.main()
