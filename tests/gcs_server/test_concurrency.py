"""Conditions are atomic, whoever comes at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloud_optimized_dicom.testing.gcs_server import GcsServer

_THREADS = 50


def _at_once(action: Callable[[int, requests.Session], int]) -> list[int]:
    barrier = threading.Barrier(_THREADS)

    def one(index: int) -> int:
        with requests.Session() as session:
            barrier.wait()
            return action(index, session)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(one, range(_THREADS)))


def test_one_of_fifty_creators_wins(server: GcsServer, bucket: Any) -> None:
    """Of fifty creators of one name, one is answered 200, the others 412, and its bytes are stored."""
    url = f"{server.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x&ifGenerationMatch=0"
    statuses = _at_once(lambda index, session: session.post(url, data=b"%d" % index, timeout=60).status_code)
    assert sorted(statuses) == [200] + [412] * (_THREADS - 1)
    assert bucket.blob("x").download_as_bytes() == b"%d" % statuses.index(200)


def test_fifty_compare_and_swap_writers_lose_no_update(server: GcsServer, bucket: Any) -> None:
    """Fifty writers that each append a byte by conditional writes leave fifty different bytes."""
    bucket.blob("x").upload_from_string(b"")
    read = f"{server.url}/storage/v1/b/{bucket.name}/o/x?alt=media"
    write = f"{server.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x&ifGenerationMatch="

    def append(index: int, session: requests.Session) -> int:
        for attempt in range(10_000):
            seen = session.get(read, timeout=60)
            data = seen.content + bytes([index])
            if session.post(write + seen.headers["x-goog-generation"], data=data, timeout=60).ok:
                return attempt
        return -1

    assert -1 not in _at_once(append)
    assert sorted(bucket.blob("x").download_as_bytes()) == list(range(_THREADS))


def test_fifty_compositions_onto_one_object_lose_no_update(server: GcsServer, bucket: Any) -> None:
    """Fifty writers that each append an object by conditional composition onto itself lose none."""
    bucket.blob("x").upload_from_string(b"")
    bucket.blob("part").upload_from_string(b"+")
    path = f"{server.url}/storage/v1/b/{bucket.name}/o/x"
    body = {"sourceObjects": [{"name": "x"}, {"name": "part"}], "destination": {}}

    def append(_index: int, session: requests.Session) -> int:
        for attempt in range(10_000):
            generation = session.get(path + "?fields=generation", timeout=60).json()["generation"]
            if session.post(f"{path}/compose?ifGenerationMatch={generation}", json=body, timeout=60).ok:
                return attempt
        return -1

    assert -1 not in _at_once(append)
    assert bucket.blob("x").download_as_bytes(checksum="crc32c") == b"+" * _THREADS


def test_one_of_fifty_deleters_wins(server: GcsServer, bucket: Any) -> None:
    """Of fifty conditional deletions one succeeds and the others find nothing."""
    blob = bucket.blob("x")
    blob.upload_from_string(b"x")
    url = f"{server.url}/storage/v1/b/{bucket.name}/o/x?ifGenerationMatch={blob.generation}"
    statuses = _at_once(lambda _index, session: session.delete(url, timeout=60).status_code)
    assert sorted(statuses) == [204] + [404] * (_THREADS - 1)


def test_generations_never_repeat(server: GcsServer, bucket: Any) -> None:
    """Writes of fifty threads to two names get as many different generations."""
    url = f"{server.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name="

    def write(index: int, session: requests.Session) -> int:
        return int(session.post(url + str(index % 2), data=b"x", timeout=60).json()["generation"])

    assert len(set(_at_once(write))) == _THREADS
