"""Changing a series that is there: appending an instance, ingesting the same again, removing and editing one."""

from __future__ import annotations

from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Goal, Row, Spent, at_least, at_most, requests_at_most, times_floor
from benchmarks.reference import beside, new_files, without_peak
from benchmarks.registry import benchmark
from benchmarks.workbench import BUCKET, ingest
from cloud_optimized_dicom import Hints, Instance
from cloud_optimized_dicom.checksum import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.workbench import Workbench
    from cloud_optimized_dicom import CODObject, Datastore

_ENVELOPE_BYTES = 12_000
"""JSON bodies of requests and answers, and what a tar adds to a file."""


@benchmark("append", "one instance more in a series, beside the upload of its bytes as an object")
def measure_append(bench: Workbench) -> Iterator[Row]:
    """Yield a row for each way to append."""
    later = bench.data.later_ct
    for how in ("CODObject", "Datastore.ingest"):
        store, series = bench.stored(bench.data.ct)
        before = _metadata_bytes(store, series)

        def work(number: int, store: Datastore = store, series: CODObject = series, how: str = how) -> None:
            path = str(later.paths[number])
            if how == "Datastore.ingest":
                ingest(store, [path], 1)
                return
            with bench.reopened(store, series.key, "a") as cod:
                _expect(cod.append([Instance(path)]).new, 1)

        def floor(number: int) -> None:
            bench.blob().upload_from_filename(str(later.paths[number]))

        ours, least = bench.compare(work, floor, is_warm=True)
        goals = _append_goals(bench, ours, before, _metadata_bytes(store, series))
        reference, note = None, ""
        if how == "CODObject":
            last = new_files([later.paths[-1]])
            reference, note = beside(bench, "append", series.key, stored=bench.data.ct, **last)
        what = f"1 to {bench.data.ct.name}, {how}"
        yield Row(*("append", what, ours, least, "the file uploaded", goals), without_peak(reference), note=note)


def _append_goals(bench: Workbench, ours: Spent, before: int, after: int) -> tuple[Goal, ...]:
    """Return the goals; the records of one instance are told by how much the metadata grew."""
    new_bytes = bench.data.later_ct.paths[0].stat().st_size
    record = (after - before) // (bench.scale.rounds + 1)
    traffic = ours.traffic
    up, down = (traffic.bytes_up, traffic.bytes_down) if traffic else (0, 0)
    return (
        requests_at_most(ours, 9),
        # The record goes up twice more: in the intent and in the lock.
        at_most("bytes", "bytes up", up, new_bytes + after + 2 * record + _ENVELOPE_BYTES),
        at_most("bytes", "bytes down", down, after + _ENVELOPE_BYTES),
    )


def _metadata_bytes(store: Datastore, series: CODObject) -> int:
    info = store.store.stat(series.key.metadata)
    return info.size if info else 0


def _expect(found: list[Any], count: int) -> None:
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} instances ended as they should")


@benchmark("reingest", "the same files again, their size, CRC32C and UIDs known, beside one read of the metadata")
def measure_reingest(bench: Workbench) -> Iterator[Row]:
    """Yield a row for a series as it was given, one for a recompressed one, and one for a writer that locks."""
    files = bench.data.ct
    sources = bench.uploaded(files)
    plain, recompressed = bench.stored(files), bench.stored(files, compress="htj2k")
    claims = _claims(plain[1], sources)
    reference, note = beside(bench, "append", plain[1].key, stored=files, **claims, expect=[0, len(files.paths), 0, 0])
    for what, (store, series) in ((files.name, plain), (f"{files.name}, recompressed before", recompressed)):

        def work(_: int, store: Datastore = store) -> None:
            ingest(store, _claimed(claims), len(files.paths), "same")

        ours, least = _against_metadata(bench, series, work)
        bench.server.reset_counters()
        report = ingest(store, _claimed(claims), len(files.paths), "same")
        source_bytes = sum(
            record.bytes_out for record in bench.server.counters() if record.object_name.startswith("inbox/")
        )
        locks = sum(series.key.lock == record.object_name for record in bench.server.counters())
        goals: tuple[Goal, ...] = (
            requests_at_most(ours, 2),
            at_most("bytes", "source bytes", source_bytes, 0),
            at_most("count", "locks", locks, 0),
            at_least("count", "same", report.count("same"), len(files.paths)),
        )
        yield Row("reingest", what, ours, least, "the metadata downloaded", goals, without_peak(reference), note=note)
        reference, note = None, ""
    store, series = plain

    def lock(_: int) -> None:
        with bench.reopened(store, series.key, "a") as cod:
            _expect(cod.append(_claimed(claims)).same, len(files.paths))

    ours, least = _against_metadata(bench, series, lock)
    goals = (requests_at_most(ours, 4),)
    yield Row("reingest", f"{files.name}, CODObject", ours, least, "the metadata downloaded", goals)


def _against_metadata(bench: Workbench, series: CODObject, work: Any) -> list[Spent]:
    name = series.metadata_uri.removeprefix(f"gs://{BUCKET}/")
    return bench.compare(work, lambda _: bench.blob(name).download_as_bytes(), is_warm=True)


def _claims(series: CODObject, sources: str) -> dict[str, Any]:
    """Return the URIs of the sources, and what an inventory would say of each."""
    records = [instance.record for instance in series.get_instances().values()]
    hints = [
        {
            "size": record.size,
            "crc32c": encode(record.crc32c),
            "instance_uid": record.instance_uid,
            "series_uid": record.series_uid,
            "study_uid": record.study_uid,
        }
        for record in records
        if record is not None
    ]
    return {"uris": [f"{sources}{number:05d}.dcm" for number in range(len(hints))], "hints": hints}


def _claimed(claims: dict[str, Any]) -> list[Instance]:
    return [Instance(uri, hints=Hints(**hints)) for uri, hints in zip(claims["uris"], claims["hints"], strict=True)]


@benchmark("remove", "one instance out of a series, beside one download and one upload of the tar")
def measure_remove(bench: Workbench) -> Iterator[Row]:
    """Yield one row."""
    yield _rewritten(bench, "remove", lambda cod, uid: cod.remove(uid))


@benchmark("edit", "one instance rewritten as a local file, beside one download and one upload of the tar")
def measure_edit(bench: Workbench) -> Iterator[Row]:
    """Yield one row."""

    def edit(cod: CODObject, uid: str) -> None:
        with Path(cod.get_instance(uid).dicom_uri).open("r+b") as file:
            file.seek(-1, SEEK_END)  # in the pixels
            last = file.read(1)[0]
            file.seek(-1, SEEK_END)
            file.write(bytes([last ^ 1]))

    yield _rewritten(bench, "edit", edit)


def _rewritten(bench: Workbench, name: str, change: Callable[[CODObject, str], None]) -> Row:
    """Return what it takes to change one instance of a series, another one in each round."""
    files = bench.data.ct
    store, series = bench.stored(files)
    uids = list(series.get_instances())
    copy, _ = bench.copy_to("gcs", files)

    def work(number: int) -> None:
        with bench.reopened(store, series.key, "e" if name == "edit" else "a") as cod:
            change(cod, uids[number])

    def floor(number: int) -> None:
        bench.download_parts(bench.object_of(series.tar_uri))
        copy(number)

    ours, least = bench.compare(work, floor, min(bench.scale.rounds, len(uids) - 2), is_warm=True)
    theirs = uids[-1 if name == "edit" else 0]  # what one job removed from its store, the next cannot edit
    reference, note = beside(bench, name, series.key, stored=files, uid=theirs)
    if reference and name == "remove":
        note = "the reference has no call for it: it stores the others anew"
    floor_is = "the tar downloaded in parallel parts, its files uploaded as one object"
    goals = (times_floor(ours, least, 1.3),)
    return Row(name, f"1 of {files.name}", ours, least, floor_is, goals, without_peak(reference), note=note)
