"""Every way to fail has its exit code, one line on stderr, and leaves nothing half-done."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import typer

from cloud_optimized_dicom import CODObject, errors
from cloud_optimized_dicom.cli.exit_codes import ExitCode, exit_code_of, worst
from cloud_optimized_dicom.cli.main import main
from cloud_optimized_dicom.cli.output import printable
from tests.realfiles import real_file

if TYPE_CHECKING:
    from tests.cli.conftest import Cod, Done

VERBS = ("ingest", "ls", "info", "header", "get", "export", "verify", "locks", "recover", "unlock", "remove")
MISSING_SERIES = "studies/1.2.3/series/4.5.6"


def one_line(done: Done) -> str:
    """Return the single line that stderr is, stdout being empty."""
    assert done.out == ""
    (line,) = done.err.splitlines()
    return line


def damage(series: str) -> bytes:
    """Flip a byte in the pixel data of the first instance of a local series; return the tar as it was."""
    tar = Path(f"{series}.tar")
    before = tar.read_bytes()
    data = bytearray(before)
    data[3500] ^= 0xFF
    tar.write_bytes(data)
    return before


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, cod: Cod) -> None:
    """-h prints the usage of each verb and exits with 0."""
    done = cod(verb, "-h")
    assert (done.code, done.err) == (0, "")
    assert f"cod {verb}" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-verb"],
        ["ls"],
        ["ls", "store", "--no-such-option"],
        ["info", "store"],
        ["header", "elsewhere/studies/1.2.3"],
        ["get", MISSING_SERIES, "-o", "x.dcm"],
        ["get", MISSING_SERIES, "1.2", "-o", "no/such/folder/x.dcm"],
        ["get", MISSING_SERIES, "1.2", "--json"],
        ["remove", MISSING_SERIES, "1.2"],
        ["ls", "studies/../series/1.2"],
        ["ls", "s3://bucket/prefix"],
        ["ingest", "a", "gopher://host"],
        ["get", f"{MISSING_SERIES}", "../../secret", "-o", "x.dcm"],
        ["ingest", "a", "b", "--report", "no/such/folder/report.jsonl"],
        ["ingest", "a", "b", "--wait", "-1"],
        ["verify", "store", "--sample", "0"],
        ["recover", "store", "--discard-intent"],
        ["unlock", "store"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], cod: Cod, tmp_path: Path, monkeypatch: Any) -> None:
    """Unknown verbs and options, arguments that name nothing, and UIDs that are none exit with 2 and do nothing."""
    (tmp_path / "series").mkdir()
    series = tmp_path / MISSING_SERIES
    series.mkdir(parents=True)
    shutil.copytree(tmp_path / "studies", tmp_path / "before")
    monkeypatch.chdir(tmp_path)
    if arguments[-3:-1] == ["../../secret", "-o"]:
        cod("ingest", real_file("CT_small.dcm").path, tmp_path)
        arguments = [arguments[0], cod("ls", tmp_path).out.splitlines()[0], *arguments[2:]]
    done = cod(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err


def test_a_file_in_the_place_of_the_datastore_is_a_usage_error(inbox: Path, cod: Cod) -> None:
    """Forgetting the datastore behind a list of files does not turn the last file into one."""
    before = sorted(inbox.iterdir())
    done = cod("ingest", *before)
    assert done.code == 2
    assert "the last argument is the datastore" in " ".join(done.err.split())
    assert sorted(inbox.iterdir()) == before


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "{store}"],
        ["verify", "{store}"],
        ["export", "{store}", "{out}"],
        ["ls", "{store}/studies/1.2.3"],
        ["ls", "{store}/" + MISSING_SERIES],
        ["info", "{store}/" + MISSING_SERIES],
        ["header", "{store}/" + MISSING_SERIES],
        ["get", "{store}/" + MISSING_SERIES, "1.2", "-o", "{out}"],
        ["export", "{store}/" + MISSING_SERIES, "{out}"],
        ["verify", "{store}/" + MISSING_SERIES],
        ["locks", "{store}"],
        ["locks", "{store}/" + MISSING_SERIES],
        ["recover", "{store}"],
        ["recover", "{store}/" + MISSING_SERIES],
        ["recover", "{store}/" + MISSING_SERIES, "--discard-intent", "--yes"],
        ["unlock", "{store}/" + MISSING_SERIES, "--yes"],
        ["remove", "{store}/" + MISSING_SERIES, "1.2", "--yes"],
    ],
    ids=lambda arguments: " ".join(arguments) if isinstance(arguments, list) else None,
)
def test_what_is_not_there_exits_with_3(
    arguments: list[str], as_json: bool, store_url: str, tmp_path: Path, cod: Cod
) -> None:
    """A missing store, study or series is one line on stderr and 3, on every store; --json says it on stdout."""
    given = [text.format(store=store_url, out=tmp_path / "out") for text in arguments]
    done = cod(*given, *(["--json"] if as_json else []))
    assert done.code == 3
    assert "no series at" in done.err
    assert len(done.err.splitlines()) == 1
    if as_json:
        assert done.document["error"]["type"] == "CODObjectNotFoundError"
        assert done.document["exit_code"] == 3
    else:
        assert done.out == ""
    assert not (tmp_path / "out").is_file()


def test_a_missing_instance_exits_with_3(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """An instance that the series does not hold is not found; what was named beside it is not removed either."""
    uid = cod("ls", one_series).out.split()[0]
    assert "no instance 1.2.3" in one_line(cod("get", one_series, "1.2.3", "-o", tmp_path / "x.dcm"))
    for arguments in (["get", one_series, "1.2.3"], ["header", one_series, "1.2.3"]):
        assert cod(*arguments).code == 3
    assert cod("remove", one_series, uid, "1.2.3", "--yes").code == 3
    assert len(cod("ls", one_series).out.splitlines()) == 5
    assert not (tmp_path / "x.dcm").exists()


def test_a_locked_series_exits_with_4(one_series: str, cod: Cod) -> None:
    """A series that somebody else writes is not touched; the line says whose lock it is."""
    uid = cod("ls", one_series).out.split()[0]
    with CODObject.from_uri(one_series, mode="a"):
        done = cod("remove", one_series, uid, "--yes")
        assert done.code == 4
        assert ".gradient.lock is held by" in one_line(done)
    assert cod("remove", one_series, uid, "--yes").code == 0


def test_ingest_goes_on_past_a_locked_series(one_series: str, inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """What is new for a locked series is listed with that reason; what is stored is said to be, and others go on."""
    with CODObject.from_uri(one_series, mode="a") as cod_object:
        cod_object.remove(min(cod_object.get_instances()))
    with CODObject.from_uri(one_series, mode="a"):
        done = cod("ingest", inbox, tmp_path / "store")
    assert done.code == 1
    assert done.out.count(".gradient.lock is held by") == 1
    assert "1 new, 4 same, 0 conflict, 2 error" in done.out


def test_a_damaged_tar_exits_with_5_and_says_which_instance(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A flipped byte is found by verify, and names the one instance that has it."""
    damage(one_series)
    done = cod("verify", tmp_path / "store", "--json")
    assert done.code == 5
    (report,) = done.document["series"]
    assert report["damaged"] is True
    mismatches = [finding for finding in report["findings"] if finding["kind"] == "checksum-mismatch"]
    assert len(mismatches) == 1
    text = cod("verify", one_series)
    assert text.code == 5
    assert text.out.startswith("damaged ")
    assert mismatches[0]["subject"] in text.out


def test_nothing_is_written_of_a_damaged_instance(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """Get and export write no byte that is not right, keep the file that was there, and exit with 5."""
    uid = next(iter(CODObject.from_uri(one_series).get_metadata()["cod"]["instances"]))
    target = tmp_path / "one.dcm"
    target.write_bytes(b"an older file")
    whole = damage(one_series)
    assert cod("get", one_series, uid, "-o", target).code == 5
    assert target.read_bytes() == b"an older file"
    done = cod("export", one_series, tmp_path / "out", "--json")
    assert done.code == 5
    assert done.document["failed"]
    exported = {path.stem: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    assert uid not in exported
    assert all(data in whole for data in exported.values())
    assert [path.name for path in tmp_path.rglob(".cod-*")] == [".cod-export"]
    assert [path.name for path in (tmp_path / "out/.cod-export").iterdir()] == ["verified.sqlite"]


def test_a_cut_tar_exits_with_5(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A tar that ends too early, and one that is gone, are damage."""
    tar = Path(f"{one_series}.tar")
    tar.write_bytes(tar.read_bytes()[:9000])
    assert cod("verify", one_series).code == 5
    assert cod("export", one_series, tmp_path / "out").code == 5
    tar.unlink()
    assert cod("verify", one_series).code == 5
    assert cod("export", one_series, tmp_path / "out").code == 5


def test_export_goes_on_past_a_damaged_instance_of_an_older_store(tmp_path: Path, cod: Cod) -> None:
    """Where no generation is on record, the damaged instance is refused and the others are written."""
    golden = Path(__file__).resolve().parents[1] / "golden/v2-series"
    store = Path(shutil.copytree(golden, tmp_path / "store"))
    (tar,) = store.glob("studies/*/series/*.tar")
    data = bytearray(tar.read_bytes())
    data[3500] ^= 0xFF
    tar.write_bytes(data)
    done = cod("export", store, tmp_path / "out", "--json")
    assert done.code == 5
    assert [failure["error"] for failure in done.document["failed"]] == ["HashMismatchError"]
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == done.document["written"] > 0


def test_damaged_metadata_exits_with_5_and_the_other_series_go_on(inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """A metadata.json that cannot be read is damage of its series; the others are exported and verified."""
    cod("ingest", inbox, tmp_path / "store")
    broken, _ = cod("ls", tmp_path / "store").out.splitlines()
    for sidecar in Path(broken).iterdir():
        if sidecar.name == "metadata.json":
            sidecar.write_bytes(sidecar.read_bytes()[:100])
    assert cod("info", broken).code == 5
    exported = cod("export", tmp_path / "store", tmp_path / "out", "--json")
    assert exported.code == 5
    assert [failure["uri"] for failure in exported.document["failed"]] == [broken]
    assert exported.document["written"] > 0
    verified = cod("verify", tmp_path / "store", "--json")
    assert verified.code == 5
    assert [report["damaged"] for report in verified.document["series"]] == [True, False]


def test_hostile_uids_in_metadata_never_become_paths(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A record under a name like ../../x in a metadata.json is refused by export, and the others are written."""
    from cloud_optimized_dicom.format.metadata.document import parse_document  # noqa: PLC0415

    path = Path(one_series) / "metadata.json"
    document = parse_document("", path.read_bytes())
    instances = dict(document.instances)
    first = next(iter(instances))
    instances["../../../escaped"] = instances.pop(first)
    changed = type(document)("", {**document.raw, "cod": {**document.raw["cod"], "instances": instances}})
    path.write_bytes(changed.dump())
    done = cod("export", one_series, tmp_path / "deep/out", "--json")
    assert done.code != 0
    assert done.document["written"] == 4
    assert not list(tmp_path.rglob("escaped*"))


def test_the_reason_of_an_operating_system_error_is_one_line(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A destination that cannot be a folder is told in one line, with 1."""
    (tmp_path / "file").write_bytes(b"")
    done = cod("export", one_series, tmp_path / "file")
    assert done.code == 1
    assert "file" in one_line(done)


def test_an_unexpected_error_shows_its_type_only(capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody foresaw exits with 70 and names the type of the error, and nothing that it may hold."""
    verbs = typer.Typer()

    @verbs.command()
    def fail(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
        raise RuntimeError("Doe^Jane")

    assert main([], verbs) == 70
    printed = capsys.readouterr()
    assert printed.err == "cod: unexpected error: RuntimeError (COD_TRACEBACK=1 shows where)\n"
    assert printed.out == ""
    assert main(["--json"], verbs) == 70
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "RuntimeError"


def test_names_cannot_steer_the_terminal(tmp_path: Path, cod: Cod) -> None:
    """Escape sequences and line ends in the name of an archive's member are shown as escapes."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("\x1b[2Jgone\nerror  fine: \u202e.dcm", b"not DICOM")
    done = cod("ingest", tmp_path / "x.zip", tmp_path / "store")
    assert len(done.out.splitlines()) == 2
    assert "\\x1b[2Jgone\\nerror" in done.out
    assert "\x1b" not in done.out
    assert printable("Zürich 放射") == "Zürich 放射"


def test_file_names_need_not_be_text(tmp_path: Path, cod: Cod) -> None:
    """A file whose name is not UTF-8 is stored like any other."""
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe4ntgen.dcm"))
    name.write_bytes(real_file("CT_small.dcm").read())
    done = cod("ingest", name.parent, tmp_path / "store", "--json")
    assert (done.code, done.document["counts"]["new"]) == (0, 1)


def test_the_table_gives_every_error_its_code() -> None:
    """The gravest code wins among several, and errors without an entry are failures of some files."""
    assert exit_code_of(errors.TransientStorageError("x", "y")) == ExitCode.SOME_FAILED
    assert exit_code_of(errors.MetadataError("x", ["y"])) == ExitCode.DAMAGED
    assert exit_code_of(errors.ObjectNotFoundError("x")) == ExitCode.NOT_FOUND
    assert worst([ExitCode.SOME_FAILED, ExitCode.DAMAGED, ExitCode.NOT_FOUND]) == ExitCode.DAMAGED
    assert worst([]) == ExitCode.OK
