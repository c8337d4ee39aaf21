"""Metadata against tar: what is wrong with a series, and what is merely odd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.errors import (
    CODError,
    CODObjectNotFoundError,
    FormatError,
    HashMismatchError,
    TarMissingInstanceError,
    TarValidationError,
)
from cloud_optimized_dicom.series.findings import VerifyReport
from cloud_optimized_dicom.series.maintenance import find_lock
from cloud_optimized_dicom.series.reader import SeriesReader
from cloud_optimized_dicom.series.tar_check import Findings, TarCheck, VerifyOptions

if TYPE_CHECKING:
    from cloud_optimized_dicom.format.metadata.document import SeriesDocument
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_DEFAULT = VerifyOptions()


def verify_series(
    store: ObjectStore, key: SeriesKey, options: VerifyOptions = _DEFAULT, known: SeriesReader | None = None
) -> VerifyReport:
    """Check a series: every object of it, every record, every byte of the tar.

    Parameters
    ----------
    known
        A reader of the series; its document is used, rather than read again, if it is still the present one.

    Notes
    -----
    Reads the tar once, front to back.  Nothing is changed.  End-of-archive blocks behind the last member are what older
    writers leave, and no finding; blocks between members hide instances from other tools, and are one.
    """
    findings = Findings()
    uri = store.url_of(key.folder)
    _check_folder(store, key, findings)
    try:
        reader = _present_reader(store, key, known)
    except CODObjectNotFoundError:
        findings.damage("metadata-missing", key.metadata, "there is no metadata.json")
        return VerifyReport(uri, 0, 0, tuple(findings.found))
    except FormatError as error:
        findings.damage("metadata-damaged", key.metadata, str(error))
        return VerifyReport(uri, 0, 0, tuple(findings.found))
    checked = 0
    records = records_in_tar_order(reader.document, findings)
    tar = store.find(key.tar)
    if tar is not None:
        checked = TarCheck(reader, tar, records, findings).run(options)
    elif records:
        findings.damage("tar-missing", key.tar, f"there is no tar for {len(records)} instances")
    if not reader.document.instances:
        findings.odd("no-instances", key.metadata, "the series holds no instance")
    return VerifyReport(uri, len(reader.document.instances), checked, tuple(findings.found))


def _present_reader(store: ObjectStore, key: SeriesKey, known: SeriesReader | None) -> SeriesReader:
    if known is not None:
        present = store.find(key.metadata)
        if present is not None and present.version == known.metadata_version:
            return SeriesReader(store, key, known.document, known.metadata_version)
    return SeriesReader.open(store, key)


def _check_folder(store: ObjectStore, key: SeriesKey, findings: Findings) -> None:
    for info in store.list(f"{key.folder}/"):
        if info.name == key.lock:
            findings.odd("lock-present", info.name, _describe_lock(store, key))
        elif info.name == key.error_log:
            findings.odd("error-log", info.name, "the series is quarantined")
        elif info.name.startswith(key.pending):
            findings.odd("pending-leftover", info.name, f"{info.size} bytes on their way in, or left by a dead writer")


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
