"""What the reference pages list is what the code has."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import cloud_optimized_dicom
from cloud_optimized_dicom import errors, events
from cloud_optimized_dicom.cli.exit_codes import ExitCode, exit_code_of
from cloud_optimized_dicom.cli.main import app
from cloud_optimized_dicom.format.metadata.document import Change, SeriesDocument, parse_json_object
from cloud_optimized_dicom.format.metadata.record import dump_record
from cloud_optimized_dicom.format.offsets.codec import dump_offset_tables
from cloud_optimized_dicom.lock.record import Intent, LockRecord, ObjectState, TarResult, dump_lock
from cloud_optimized_dicom.model import FrameTable, InstanceRecord, TarState
from cloud_optimized_dicom.series.findings import Kind
from cloud_optimized_dicom.storage.base import ConcatSource
from cloud_optimized_dicom.uids import SeriesKey

DOCS = Path(__file__).resolve().parents[2] / "docs"


def page(name: str) -> str:
    """Return a page's text."""
    return (DOCS / name).read_text(encoding="utf-8")


def names_in(text: str) -> set[str]:
    """Return every identifier that a page sets in code style."""
    return set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`]+)`", text))))


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of every table row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("name", cloud_optimized_dicom.__all__)
def test_every_public_name_and_member_is_in_the_api_page(name: str) -> None:
    """The page has each public class with all its public methods, properties and fields."""
    cls = getattr(cloud_optimized_dicom, name)
    own = {
        member for base in cls.__mro__ if base.__module__.startswith("cloud_optimized_dicom") for member in vars(base)
    }
    members = {member for member in own if not member.startswith("_")}
    assert {name} | members <= names_in(page("reference/api.md"))


def test_every_error_is_listed_with_its_exit_code() -> None:
    """The table of errors has each class once, with the code that the command line gives it."""
    actual = {
        cls.__name__: int(exit_code_of(cls.__new__(cls)))
        for cls in vars(errors).values()
        if inspect.isclass(cls) and issubclass(cls, errors.CODError)
    }
    rows = [row for row in rows_of(page("reference/errors.md")) if row[0].startswith("`")]
    assert len(rows) == len(actual)
    assert {row[0].strip("`"): int(row[1]) for row in rows} == actual
    assert "CleanOpOnUnlockedCODObjectError" in page("reference/errors.md")


def test_every_exit_code_is_listed_with_its_name() -> None:
    """The table of exit codes is the enumeration."""
    listed = {row[1].strip("`"): int(row[0]) for row in rows_of(page("reference/cli.md")) if row[0].isdigit()}
    assert listed == {code.name: int(code) for code in ExitCode}


def test_every_verb_is_listed_with_its_options() -> None:
    """The table of verbs names exactly the verbs of the command and all options of each."""
    group: Any = typer.main.get_command(app)
    rows = {row[0].split()[1]: row[2] for row in rows_of(page("reference/cli.md")) if row[0].startswith("`cod ")}
    assert set(rows) == set(group.commands)
    for verb, command in group.commands.items():
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
        assert options <= set(re.findall(r"(?<!\w)--?[a-z][a-z-]*", rows[verb])), verb


def test_every_event_is_listed_with_its_fields() -> None:
    """The table of events is the union of event types."""
    rows = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows_of(page("reference/events.md"))[2:]}
    actual = {cls.__name__: [field.name for field in dataclasses.fields(cls)] for cls in get_args(events.Event)}
    assert rows == actual


def test_every_kind_of_finding_is_explained() -> None:
    """The page on verification explains each kind once."""
    explained = [row[0].strip("`") for row in rows_of(page("how-to/verify.md")) if row[0].startswith("`")]
    assert sorted(explained) == sorted(get_args(Kind))


def record() -> InstanceRecord:
    """Return a record with every field set."""
    table = FrameTable((700, 900), (100, 50), fragment_counts=(1, 2), crc32cs=(1, 2), pixel_data_offset=600)
    return InstanceRecord(
        name_uid="1.3",
        instance_uid="1.3",
        series_uid="1.2",
        study_uid="1.1",
        has_pixeldata=True,
        start=512,
        size=1000,
        crc32c=5,
        uri="x",
        packed_header="",
        frame_table=table,
        version="2.0",
        source_size=9,
        source_crc32c=9,
    )


def keys_of(value: Any) -> set[str]:
    """Return the keys of a JSON value at every level, but for UIDs."""
    if isinstance(value, dict):
        own = {key for key in value if not key[0].isdigit()}
        return own.union(*(keys_of(item) for item in value.values()))
    return set().union(*(keys_of(item) for item in value)) if isinstance(value, list) else set()


def test_every_key_on_disk_is_in_the_format() -> None:
    """The specification names each key of a document, a record, a frame table and a lock blob."""
    key, raw = SeriesKey("1.1", "1.2"), dump_record(record())
    change = Change({"1.3": raw}, ("1.4",), {}, ())
    document = SeriesDocument.empty("x", key, hashed_uids=False).applied(change, TarState("1", 2, 3), "w")
    deflated = dataclasses.replace(record().frame_table or FrameTable((), ()), rangeable=False)
    state = ObjectState("1", 2, 3)
    intent = Intent("w", state, state, (ConcatSource("a", "1"),), TarResult(2, 3), change)
    lock = dump_lock(LockRecord("host:1", "w", "now", 120, intent), key, hashed_uids=True)
    written = keys_of(dict(document.raw)) | keys_of(dump_offset_tables(deflated))
    written |= keys_of(parse_json_object("x", lock.data))
    assert {"deid_study_uid", "FrameCrc32c", "InflatedOffsetTable", "source_size", "lease_seconds"} <= written
    assert written <= names_in(page("spec/format.md"))


def test_every_design_note_has_its_parts_and_its_place_in_the_index() -> None:
    """Notes are numbered without gaps, say context, decision and consequences, and are listed by title."""
    notes = sorted((DOCS / "design").glob("[0-9]*.md"))
    assert [int(note.name[:3]) for note in notes] == list(range(1, len(notes) + 1))
    index = page("design/index.md")
    for note in notes:
        text = note.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], note.name
        title = text.splitlines()[0].removeprefix(f"# {note.name[:3]}: ")
        assert f"[{note.name[:3]}]({note.name}) | {title}" in index
