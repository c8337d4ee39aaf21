"""``cod info``: what a series is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cloud_optimized_dicom.cli.header import header_of
from cloud_optimized_dicom.cli.options import JsonFlag, SeriesArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import open_series, series_target
from cloud_optimized_dicom.errors import LockAcquisitionError, ObjectNotFoundError
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.lock.lease import busy
from cloud_optimized_dicom.lock.record import parse_lock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_optimized_dicom.cod_object import CODObject
    from cloud_optimized_dicom.instance import Instance

_TRANSFER_SYNTAX, _NUMBER_OF_FRAMES = "00020010", "00280008"
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class _Look:
    """One instance: its syntax, its number of frames, and how a frame of it is reached."""

    syntax: str
    frames: int
    access: str


def info(series: SeriesArgument, as_json: JsonFlag = False) -> None:
    """Show what a series holds (instances, bytes, transfer syntaxes, frames), its lock and its quarantine."""
    output = Output(json=as_json)
    with open_series(series_target(series)) as cod:
        document = _document(cod)
    for name, value in document.items():
        if name not in {"study_uid", "series_uid"}:
            output.line(f"{name.replace('_', ' '):<18} {_text(name, value)}")
    output.document(document)


def _document(cod: CODObject) -> dict[str, Any]:
    instances = cod.get_instances(strict_sorting=False)
    looks = [_look(instance) for instance in instances.values()]
    tar = cod.store.find(cod.key.tar)
    return {
        "uri": cod.datastore_series_uri,
        "study_uid": cod.key.study_uid,
        "series_uid": cod.key.series_uid,
        "instances": len(instances),
        "instance_bytes": sum(instance.size() for instance in instances.values()),
        "tar_bytes": tar.size if tar else None,
        "transfer_syntaxes": _transfer_syntaxes(Counter(look.syntax for look in looks)),
        "frames": sum(look.frames for look in looks),
        "frame_access": dict(Counter(look.access for look in looks)),
        "lock": _lock(cod),
        "quarantined": cod.store.find(cod.key.error_log) is not None,
    }


def _look(instance: Instance) -> _Look:
    header = header_of(instance)
    syntax = str(first_value(header, _TRANSFER_SYNTAX) or _NOT_RECORDED)
    if not instance.has_pixeldata:
        return _Look(syntax, 0, "no pixel data")
    table = instance.record.frame_table if instance.record else None
    if table is None:
        return _Look(syntax, _declared_frames(header), "no frame table")
    if not table.trusted:
        return _Look(syntax, _declared_frames(header), "older frame table, rebuilt when read")
    if table.rangeable:
        return _Look(syntax, len(table), "one range per frame")
    deflated = "deflated, " if syntax == DeflatedExplicitVRLittleEndian else ""
    return _Look(syntax, len(table), f"{deflated}a frame needs the whole instance")


def _declared_frames(header: Mapping[str, Any]) -> int:
    return int(number(header, _NUMBER_OF_FRAMES) or 1)


def _transfer_syntaxes(counts: Counter[str]) -> list[dict[str, Any]]:
    return [
        {"uid": uid, "name": None if uid == _NOT_RECORDED else UID(uid).name, "instances": count}
        for uid, count in sorted(counts.items())
    ]


def _lock(cod: CODObject) -> dict[str, Any] | None:
    try:
        found = cod.store.read_object(cod.key.lock)
    except ObjectNotFoundError:
        return None
    record = parse_lock(cod.store.url_of(cod.key.lock), found.data)
    error: LockAcquisitionError = busy(cod.store.url_of(cod.key.lock), record, found)
    return {
        "owner": error.owner,
        "age_seconds": round(error.age_seconds, 3),
        "expires": error.expires.isoformat() if error.expires else None,
        "commit_decided": record.intent is not None,
    }


def _text(name: str, value: Any) -> str:
    if name in {"instance_bytes", "tar_bytes"}:
        return "no tar" if value is None else f"{size_text(value)} ({value} bytes)"
    if name == "transfer_syntaxes":
        return "; ".join(f"{item['name'] or item['uid']} ({item['instances']})" for item in value)
    if name == "frame_access":
        return "; ".join(f"{how} ({count_text(count, 'instance')})" for how, count in value.items())
    if name == "lock":
        return "none" if value is None else f"held by {value['owner'] or 'an unknown writer'}"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
