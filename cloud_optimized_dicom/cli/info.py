"""``cod info``: what a series is."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cloud_optimized_dicom.cli.files import output_path, write_output
from cloud_optimized_dicom.cli.header import header_of
from cloud_optimized_dicom.cli.info_page import InstanceRow, Page, make_page
from cloud_optimized_dicom.cli.options import JsonFlag, SeriesArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import open_series, series_target
from cloud_optimized_dicom.errors import LockAcquisitionError, ObjectNotFoundError
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.lock.lease import busy
from cloud_optimized_dicom.lock.record import parse_lock
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_optimized_dicom.cod_object import CODObject
    from cloud_optimized_dicom.instance import Instance

_TRANSFER_SYNTAX, _NUMBER_OF_FRAMES = "00020010", "00280008"
_SOP_CLASS, _MODALITY = "00080016", "00080060"
_COLUMNS, _ROWS, _BITS = "00280011", "00280010", "00280101"
_CODE = re.compile(r"[A-Z0-9_]{1,16}")
_NOT_RECORDED = "not recorded"
_UIDS = {"study_uid", "series_uid"}  # which the URI has

HtmlOption = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a page with the instances and up to 64 pictures, that needs no other file.",
    ),
]


@dataclass(frozen=True)
class _Look:
    """One instance: the version of its record, its syntax, its number of frames, and how a frame of it is reached."""

    version: str
    syntax: str
    frames: int
    access: str


def info(series: SeriesArgument, html: HtmlOption = None, as_json: JsonFlag = False) -> None:
    """Show what a series holds (instances, bytes, transfer syntaxes, frames), its lock and its quarantine."""
    output = Output(json=as_json)
    path = output_path(html) if html is not None else None
    with open_series(series_target(series)) as cod:
        instances = cod.get_instances(strict_sorting=False)
        looks = {uid: _look(instance) for uid, instance in instances.items()}
        document = _document(cod, instances, list(looks.values()))
        page = _page(cod, document, instances, looks) if path is not None else None
    lines = [(name.replace("_", " "), _text(name, value)) for name, value in document.items() if name not in _UIDS]
    if path is not None and page is not None:
        data = page.html.encode("utf-8")
        write_output(data, path)
        lines.append(("page", f"{html} ({size_text(len(data))}, {count_text(page.pictures, 'picture')})"))
        document["html"] = {"path": html, "size_bytes": len(data), "pictures": page.pictures}
    for name, text in lines:
        output.line(f"{name:<18} {text}")
    output.document(document)


def _document(cod: CODObject, instances: Mapping[str, Instance], looks: Sequence[_Look]) -> dict[str, Any]:
    tar = cod.store.find(cod.key.tar)
    return {
        "uri": cod.datastore_series_uri,
        "study_uid": cod.key.study_uid,
        "series_uid": cod.key.series_uid,
        "instances": len(instances),
        "instance_bytes": sum(instance.size() for instance in instances.values()),
        "tar_bytes": tar.size if tar else None,
        "record_versions": dict(Counter(look.version for look in looks)),
        "transfer_syntaxes": _transfer_syntaxes(Counter(look.syntax for look in looks)),
        "frames": sum(look.frames for look in looks),
        "frame_access": dict(Counter(look.access for look in looks)),
        "lock": _lock(cod),
        "quarantined": cod.store.find(cod.key.error_log) is not None,
    }


def _page(
    cod: CODObject, document: Mapping[str, Any], instances: Mapping[str, Instance], looks: Mapping[str, _Look]
) -> Page:
    metadata = cod.store.find(cod.key.metadata)
    facts = {name.replace("_", " "): _text(name, value) for name, value in document.items()}
    facts["metadata"] = "none" if metadata is None else size_text(metadata.size)
    return make_page(cod, facts, [_row(uid, instance, looks[uid]) for uid, instance in instances.items()])


def _row(uid: str, instance: Instance, look: _Look) -> InstanceRow:
    """Return what the page says of an instance: of its header nothing but UIDs, the modality's code and numbers."""
    header = header_of(instance)
    modality = str(first_value(header, _MODALITY))
    columns, rows, bits = (f"{number(header, tag) or 0:.0f}" for tag in (_COLUMNS, _ROWS, _BITS))
    return InstanceRow(
        uid=uid,
        kind=_name(str(first_value(header, _SOP_CLASS))),
        modality=modality if _CODE.fullmatch(modality) else _NOT_RECORDED,
        dimensions=f"{columns} x {rows}, {bits} bits" if instance.has_pixeldata else "",
        frames=look.frames,
        syntax=_name(look.syntax),
        size_bytes=instance.size(),
        access=look.access,
    )


def _name(uid: str) -> str:
    return UID(uid).name if is_uid(uid) else _NOT_RECORDED


def _look(instance: Instance) -> _Look:
    header = header_of(instance)
    found = str(first_value(header, _TRANSFER_SYNTAX) or "")
    syntax = found if is_uid(found) else _NOT_RECORDED  # an older writer's header may hold any text
    version = instance.record.version if instance.record else _NOT_RECORDED
    if not instance.has_pixeldata:
        return _Look(version, syntax, 0, "no pixel data")
    table = instance.record.frame_table if instance.record else None
    if table is None:
        return _Look(version, syntax, _declared_frames(header), "no frame table")
    if not table.trusted:
        return _Look(version, syntax, _declared_frames(header), "older frame table, rebuilt when read")
    if table.rangeable:
        return _Look(version, syntax, len(table), "one range per frame")
    deflated = "deflated, " if syntax == DeflatedExplicitVRLittleEndian else ""
    return _Look(version, syntax, len(table), f"{deflated}a frame needs the whole instance")


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
    if name in {"frame_access", "record_versions"}:
        return "; ".join(f"{what} ({count_text(count, 'instance')})" for what, count in value.items())
    if name == "lock":
        return "none" if value is None else f"held by {value['owner'] or 'an unknown writer'}"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
