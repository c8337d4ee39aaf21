"""``cod info``: what a series is."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cloud_optimized_dicom.cli.files import output_path, write_output
from cloud_optimized_dicom.cli.info_page import NOT_RECORDED, InstanceRow, Page, make_page, uid_name
from cloud_optimized_dicom.cli.options import JsonFlag, SeriesArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, count_text, size_text
from cloud_optimized_dicom.cli.targets import open_reader, series_target
from cloud_optimized_dicom.errors import LockAcquisitionError, ObjectNotFoundError
from cloud_optimized_dicom.format.dicom_json import first_value, number
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.lock.lease import busy
from cloud_optimized_dicom.lock.record import parse_lock
from cloud_optimized_dicom.series.order import in_reading_order
from cloud_optimized_dicom.uids import is_uid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

_TRANSFER_SYNTAX, _NUMBER_OF_FRAMES = "00020010", "00280008"
_SOP_CLASS, _MODALITY = "00080016", "00080060"
_COLUMNS, _ROWS, _BITS = "00280011", "00280010", "00280101"
_CODE = re.compile(r"[A-Z0-9_]{1,16}")
_UIDS = {"study_uid", "series_uid"}  # which the URI has

HtmlOption = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a page with the instances and up to 64 pictures, that needs no other file.",
    ),
]


def info(series: SeriesArgument, html: HtmlOption = None, as_json: JsonFlag = False) -> None:
    """Show what a series holds (instances, bytes, transfer syntaxes, frames), its lock and its quarantine."""
    output = Output(json=as_json)
    path = output_path(html) if html is not None else None
    reader = open_reader(series_target(series))
    uri = reader.document.uri
    rows = [_row(uri, record) for record in in_reading_order(reader.document.iter_records(), strict=False)]
    document = _document(reader, rows)
    page = _page(reader, document, rows) if path is not None else None
    lines = [(name.replace("_", " "), _text(name, value)) for name, value in document.items() if name not in _UIDS]
    if path is not None and page is not None:
        data = page.html.encode("utf-8")
        write_output(data, path)
        lines.append(("page", f"{html} ({size_text(len(data))}, {count_text(page.pictures, 'picture')})"))
        document["html"] = {"path": html, "size_bytes": len(data), "pictures": page.pictures}
    for name, text in lines:
        output.line(f"{name:<18} {text}")
    output.document(document)


def _document(reader: SeriesReader, rows: Sequence[InstanceRow]) -> dict[str, Any]:
    store, key = reader.store, reader.key
    tar = store.find(key.tar)
    return {
        "uri": store.url_of(key.folder),
        "study_uid": key.study_uid,
        "series_uid": key.series_uid,
        "instances": len(rows),
        "instance_bytes": sum(row.size_bytes for row in rows),
        "tar_bytes": tar.size if tar else None,
        "record_versions": dict(Counter(row.version for row in rows)),
        "transfer_syntaxes": _transfer_syntaxes(Counter(row.syntax_uid for row in rows)),
        "frames": sum(row.frames for row in rows),
        "frame_access": dict(Counter(row.access for row in rows)),
        "lock": _lock(store, key),
        "quarantined": store.find(key.error_log) is not None,
    }


def _page(reader: SeriesReader, document: Mapping[str, Any], rows: Sequence[InstanceRow]) -> Page:
    metadata = reader.store.find(reader.key.metadata)
    facts = {name.replace("_", " "): _text(name, value) for name, value in document.items()}
    facts["metadata"] = "none" if metadata is None else size_text(metadata.size)
    return make_page(reader, facts, rows)


def _row(uri: str, record: InstanceRecord) -> InstanceRow:
    """Return what is said of an instance: of its header nothing but UIDs, the modality's code and numbers."""
    header = header_of(uri, record)
    modality = str(first_value(header, _MODALITY))
    columns, rows, bits = (f"{number(header, tag) or 0:.0f}" for tag in (_COLUMNS, _ROWS, _BITS))
    syntax = str(first_value(header, _TRANSFER_SYNTAX) or "")
    syntax = syntax if is_uid(syntax) else NOT_RECORDED  # an older writer's header may hold any text
    frames, access = _frames(record, header, syntax)
    return InstanceRow(
        uid=record.name_uid,
        version=record.version,
        kind=uid_name(str(first_value(header, _SOP_CLASS))),
        modality=modality if _CODE.fullmatch(modality) else NOT_RECORDED,
        dimensions=f"{columns} x {rows}, {bits} bits" if record.has_pixeldata else "",
        frames=frames,
        syntax_uid=syntax,
        size_bytes=record.size,
        access=access,
    )


def _frames(record: InstanceRecord, header: Mapping[str, Any], syntax: str) -> tuple[int, str]:
    """Return how many frames an instance has, and how one of them is reached."""
    if not record.has_pixeldata:
        return 0, "no pixel data"
    table = record.frame_table
    if table is None:
        return _declared_frames(header), "no frame table"
    if not table.trusted:
        return _declared_frames(header), "older frame table, rebuilt when read"
    if table.rangeable:
        return len(table), "one range per frame"
    deflated = "deflated, " if syntax == DeflatedExplicitVRLittleEndian else ""
    return len(table), f"{deflated}a frame needs the whole instance"


def _declared_frames(header: Mapping[str, Any]) -> int:
    return int(number(header, _NUMBER_OF_FRAMES) or 1)


def _transfer_syntaxes(counts: Counter[str]) -> list[dict[str, Any]]:
    return [
        {"uid": uid, "name": None if uid == NOT_RECORDED else uid_name(uid), "instances": count}
        for uid, count in sorted(counts.items())
    ]


def _lock(store: ObjectStore, key: SeriesKey) -> dict[str, Any] | None:
    uri = store.url_of(key.lock)
    try:
        found = store.read_object(key.lock)
    except ObjectNotFoundError:
        return None
    record = parse_lock(uri, found.data)
    error: LockAcquisitionError = busy(uri, record, found)
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
