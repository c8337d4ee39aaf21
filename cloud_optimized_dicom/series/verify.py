"""Metadata against tar: what is wrong with a series, and what is merely odd."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    CODError,
    FormatError,
    HashMismatchError,
    ObjectNotFoundError,
    StaleReadError,
    TarMissingInstanceError,
    TarValidationError,
    TransientStorageError,
)
from cloud_optimized_dicom.series.findings import VerifyReport
from cloud_optimized_dicom.series.legacy_index import find_fault
from cloud_optimized_dicom.series.maintenance import find_lock
from cloud_optimized_dicom.series.reader import read_document
from cloud_optimized_dicom.series.snapshot import take_snapshot
from cloud_optimized_dicom.series.tar_check import Findings, TarCheck, VerifyOptions

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_DEFAULT = VerifyOptions()


def verify_series(
    store: ObjectStore, key: SeriesKey, options: VerifyOptions = _DEFAULT, known: SeriesReader | None = None
) -> VerifyReport:
    """Check a series: every object of it, every record, every byte of the tar.

    Parameters
    ----------
    known
        A reader of the series; its document is used, rather than read again, if it is still the present one.

    Raises
    ------
    TransientStorageError
        If the series is rewritten again and again while it is being read.

    Notes
    -----
    Reads the tar once, front to back.  Nothing is changed.  A commit that is decided but not finished counts as done as
    far as its bytes are in place.  End-of-archive blocks behind the last member are what older writers leave, and no
    finding; blocks between members hide instances from other tools, and are one.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _verify(store, key, options, known)
        except (ObjectNotFoundError, StaleReadError) as error:
            _log.info("verifying %s again: %s", store.url_of(key.folder), type(error).__name__)
    raise TransientStorageError(store.url_of(key.tar), "it kept changing while it was being verified")


def _verify(store: ObjectStore, key: SeriesKey, options: VerifyOptions, known: SeriesReader | None) -> VerifyReport:
    findings = Findings()
    uri = store.url_of(key.folder)
    others = _check_folder(store, key, findings)
    try:
        reader, tar, coming = take_snapshot(store, key, known)
    except FormatError as error:
        findings.damage("metadata-damaged", key.metadata, str(error))
        return VerifyReport(uri, 0, 0, tuple(findings.found))
    if reader is None:
        if tar is not None and tar.size == 0:  # a first commit was given up
            findings.odd("no-instances", key.tar, "the series holds no instance")
        elif not coming and (tar is not None or others or not findings.found):
            findings.damage("metadata-missing", key.metadata, "there is no metadata.json")
        return VerifyReport(uri, 0, 0, tuple(findings.found))
    checked = 0
    records = records_in_tar_order(reader.document, findings)
    if tar is not None:
        checked = TarCheck(reader, tar, records, findings).run(options)
    elif records:
        findings.damage("tar-missing", key.tar, f"there is no tar for {len(records)} instances")
    if tar is not None and (others or reader.document.legacy_index):
        _check_index(store, reader, tar.size, findings)
    if not reader.document.instances:
        findings.odd("no-instances", key.metadata, "the series holds no instance")
    return VerifyReport(uri, len(reader.document.instances), checked, tuple(findings.found))


def _check_index(store: ObjectStore, reader: SeriesReader, tar_bytes: int, findings: Findings) -> None:
    fault = find_fault(store, reader.key, reader.document, tar_bytes)
    if fault is None:
        return
    now = read_document(store, reader.key)[0]
    if now.commits != reader.document.commits or now.tar != reader.document.tar:
        raise StaleReadError(store.url_of(reader.key.metadata), "", "the series was changed")
    findings.odd("legacy-index", reader.key.index, fault)


def _check_folder(store: ObjectStore, key: SeriesKey, findings: Findings) -> bool:
    """Note what is odd about the objects of the folder; return whether there are others besides metadata.json."""
    others = False
    for info in store.list(f"{key.folder}/"):
        if info.name == key.lock:
            findings.odd("lock-present", info.name, _describe_lock(store, key))
        elif info.name == key.error_log:
            findings.odd("error-log", info.name, "the series is quarantined")
        elif info.name.startswith(key.pending):
            findings.odd("pending-leftover", info.name, f"{info.size} bytes on their way in, or left by a dead writer")
        elif info.name != key.metadata:
            others = True
    return others


def _describe_lock(store: ObjectStore, key: SeriesKey) -> str:
    try:
        state = find_lock(store, key)
    except CODError as error:
        return f"the lock cannot be read: {type(error).__name__}"
    if state is None:
        return "a writer has just let go of it"
    if state.expires is None:
        return "an older writer's lock: it is at work, or died"
    ended = "its lease has run out: the next writer takes over" if state.expired else "a writer is at work"
    decided = f", and finishes commit {state.decided}" if state.decided else ""
    return f"{state.owner}, {state.age_seconds:.0f} s: {ended}{decided}"


def records_in_tar_order(document: SeriesDocument, findings: Findings) -> list[InstanceRecord]:
    """Return the records that can be understood, in the order of the tar; the others are findings."""
    records = []
    for uid in document.instances:
        try:
            records.append(document.get(uid))
        except FormatError as error:
            findings.damage("metadata-damaged", uid, str(error))
    return sorted(records, key=lambda record: record.start)


def raise_first_damage(report: VerifyReport, tar_uri: str) -> None:
    """Raise the error that fits the first damage of a report, if there is any.

    Raises
    ------
    HashMismatchError, TarMissingInstanceError, TarValidationError
        By what is damaged.
    """
    for finding in report.findings:
        if not finding.damage:
            continue
        if finding.kind == "checksum-mismatch":
            raise HashMismatchError(tar_uri, finding.subject, "recorded", "another")
        if finding.kind in {"member-mismatch", "tar-too-short", "tar-missing"}:
            raise TarMissingInstanceError(tar_uri, finding.subject, finding.detail)
        raise TarValidationError(tar_uri, finding.detail)
