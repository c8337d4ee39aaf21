"""The command as a process: signals, pipes, terminals, a missing extra, and a bucket found by the environment."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import CODObject, Datastore
from cloud_optimized_dicom.cli.output import PLAIN_SECONDS
from cloud_optimized_dicom.storage.urls import open_store
from cloud_optimized_dicom.testing.gcs_server import Fault, FaultKind, GcsServer
from tests.cli.conftest import start
from tests.cli.test_verbs import GOLDEN
from tests.core.test_verify import LaterStore
from tests.realfiles import real_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Cod


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    """Return a server of our own, whose faults hurt nobody else."""
    with GcsServer() as running:
        running.create_bucket("bucket")
        yield running
        running.clear_faults()


def wait_for_fault(server: GcsServer, kind: FaultKind) -> None:
    """Wait until a request of another process has met its fault."""
    deadline = time.monotonic() + 60
    while not any(record.fault == kind for record in server.counters()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for a process; return its code, stdout and stderr."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_the_command_is_a_process_like_any_other(tmp_path: Path) -> None:
    """The module runs, stores a file, says so on stdout, and exits with 0."""
    code, out, _ = ended(start("ingest", real_file("CT_small.dcm").path, tmp_path / "store"))
    assert (code, out) == (0, b"1 new, 0 same, 0 conflict, 0 error; 1 series\n")
    code, out, err = ended(start("--version"))
    assert (code, err) == (0, b"")
    assert out.startswith(b"cod ")


def test_a_bucket_is_found_by_the_environment(server: GcsServer, tmp_path: Path) -> None:
    """With no client at hand, gs:// goes where the environment says; the bytes come back on stdout."""
    path = real_file("CT_small.dcm").path
    environment = {"STORAGE_EMULATOR_HOST": server.url}
    assert ended(start("ingest", path, "gs://bucket/p", **environment))[0] == 0
    store = Datastore("gs://bucket/p", server.client())
    (key,) = store.series()
    with store.open(key.study_uid, key.series_uid) as cod:
        (instance,) = cod.get_instances().values()
    code, out, err = ended(start("get", instance.dicom_uri, **environment))
    assert (code, err) == (0, b"")
    assert out == path.read_bytes()
    assert ended(start("export", "gs://bucket/p", tmp_path / "out", **environment))[0] == 0
    assert [file.read_bytes() for file in (tmp_path / "out").rglob("*.dcm")] == [path.read_bytes()]


def wait_for_commit(store: Path, *, series: int) -> None:
    """Wait until so many series are committed and one lock, of somebody else's, is left."""
    for _ in range(600):
        locks, documents = (len(list(store.rglob(name))) for name in (".gradient.lock", "metadata.json"))
        if (locks, documents) == (1, series):
            return
        time.sleep(0.05)
    raise AssertionError(f"{documents} series committed, {locks} locks")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_ingest_stores_whole_series_or_nothing(
    number: signal.Signals, code: int, one_series: str, tmp_path: Path, cod: Cod
) -> None:
    """Ctrl-C while a series is waited for keeps what was committed and tells it; no lock, no temporary file is left."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/1.dcm").write_bytes(real_file("CT_small.dcm").read())
    (tmp_path / "inbox/2.dcm").write_bytes(real_file("98892001/CT5N/2062").read())
    (tmp_path / "temporary").mkdir()
    with CODObject.from_uri(one_series, mode="a") as cod_object:
        cod_object.truncate(max(cod_object.get_instances()))
    with CODObject.from_uri(one_series, mode="a") as held:
        process = start(
            *("ingest", tmp_path / "inbox", tmp_path / "store", "--wait", "100"), TMPDIR=str(tmp_path / "temporary")
        )
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"stored ")
        wait_for_commit(tmp_path / "store", series=2)
        process.send_signal(number)
        ended_code, out, err = ended(process)
        assert held.lock
    assert ended_code == code
    assert out == b""
    assert err.splitlines()[0] == b"interrupted; until then 1 new, 0 same, 0 conflict, 0 error"
    assert b"Traceback" not in err
    assert not list((tmp_path / "temporary").iterdir())
    assert len(cod("ls", tmp_path / "store").out.splitlines()) == 2
    assert cod("verify", tmp_path / "store").out.count("ok ") == 2


def test_an_interrupted_ingest_releases_its_lock(server: GcsServer, inbox: Path) -> None:
    """Ctrl-C while bytes go up stores nothing of the series, says so, and lets the next writer in at once."""
    server.reset_counters()
    server.inject(Fault(FaultKind.STALL_BEFORE, "*", object_name=r"\.pending/", seconds=30))
    environment = {"STORAGE_EMULATOR_HOST": server.url}
    process = start("ingest", inbox / "cine.dcm", "gs://bucket/interrupted", **environment)
    wait_for_fault(server, FaultKind.STALL_BEFORE)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, out) == (130, b"")
    assert err.splitlines()[0] == b"interrupted; until then 0 new, 0 same, 0 conflict, 0 error"
    assert b"Traceback" not in err
    server.clear_faults()
    store = Datastore("gs://bucket/interrupted", server.client())
    assert not [info.name for info in store.store.list() if info.name.endswith((".lock", "metadata.json", ".tar"))]
    assert store.ingest([inbox / "cine.dcm"]).count("new") == 1


STEPS = {
    "staging": Fault(FaultKind.STALL_BEFORE, "*", object_name=r"\.pending/", seconds=30),
    "deciding": Fault(FaultKind.STALL_BEFORE, "*", object_name=r"\.gradient\.lock$", skip=1, seconds=30),
    "the tar": Fault(FaultKind.STALL_BEFORE, "objects.compose", seconds=30),
    "the metadata": Fault(FaultKind.STALL_BEFORE, "objects.insert", object_name=r"metadata\.json$", seconds=30),
    "tidying": Fault(FaultKind.STALL_BEFORE, "batch", seconds=30),
}


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("staging", signal.SIGTERM),
        ("the tar", signal.SIGTERM),
        ("the metadata", signal.SIGINT),
        pytest.param("deciding", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("deciding", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("the tar", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("the metadata", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("tidying", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("tidying", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_commit_that_is_interrupted_is_released_or_recoverable(
    step: str, number: signal.Signals, server: GcsServer, cod: Cod, monkeypatch: Any
) -> None:
    """Stopped at any step, a commit is not there or, decided, finished by whoever comes next; its lock tells which."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    url = f"gs://bucket/{uuid.uuid4().hex}"
    slices = sorted(real_file("98892001/CT5N/2062").path.parent.iterdir())
    assert cod("ingest", slices[0], url).code == 0
    server.reset_counters()
    server.inject(STEPS[step])
    process = start("ingest", slices[1], url)
    wait_for_fault(server, FaultKind.STALL_BEFORE)
    process.send_signal(number)
    code, out, err = ended(process)
    server.clear_faults()
    assert (code, out) == (128 + number, b"")
    assert b"Traceback" not in err
    locks = cod("locks", url, "--json").document["locks"]
    assert [bool(lock["decided_commit"]) for lock in locks] == {"staging": [], "deciding": [False]}.get(step, [True])
    assert cod("verify", url).code == 0
    store = open_store(url, server.client())
    (recovered,) = Datastore(LaterStore(store)).recover()
    decided = step not in {"staging", "deciding"}
    assert recovered.outcome == ("finished" if decided else "nothing" if step == "staging" else "swept")
    assert not [info.name for info in store.list() if ".pending/" in info.name or info.name.endswith(".lock")]
    again = cod("ingest", *slices[:2], url, "--json").document["counts"]
    assert (again["same"], again["new"]) == ((2, 0) if decided else (1, 1))
    assert cod("verify", url).out.startswith("ok ")


def wait_for_a_file(folder: Path) -> None:
    """Wait until a first DICOM file is exported."""
    for _ in range(1200):
        if any(path.parent.name != ".cod-export" for path in folder.rglob("*.dcm")):
            return
        time.sleep(0.05)
    raise AssertionError("no file was exported")


def test_an_interrupted_export_leaves_whole_files_only(server: GcsServer, inbox: Path, tmp_path: Path) -> None:
    """Ctrl-C while bytes come down leaves neither a part of a file nor a temporary one."""
    Datastore("gs://bucket/export", server.client()).ingest([inbox])
    server.reset_counters()
    server.inject(Fault(FaultKind.STALL_BEFORE, "*", object_name=r"\.tar$", skip=1, seconds=30))
    process = start("export", "gs://bucket/export", tmp_path / "out", STORAGE_EMULATOR_HOST=server.url)
    wait_for_fault(server, FaultKind.STALL_BEFORE)
    wait_for_a_file(tmp_path / "out")
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    server.clear_faults()
    assert (code, out) == (130, b"")
    assert b"Traceback" not in err
    originals = {path.read_bytes() for path in inbox.glob("*.dcm")}
    own = tmp_path / "out/.cod-export"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.parent != own]
    assert files
    assert all(path.read_bytes() in originals for path in files)
    assert [path.name for path in own.iterdir()] == ["verified.sqlite"]
    assert f"{len(files)} file".encode() in err


def test_a_closed_pipe_ends_the_command_quietly(tmp_path: Path, cod: Cod) -> None:
    """A reader that has seen enough is no error to tell about."""
    cod("ingest", real_file("SE000000/IM000000").path.parent, tmp_path / "store")  # 50 instances
    series = cod("ls", tmp_path / "store").out.strip()
    assert len(cod("header", series).out) > 80_000, "more than a pipe and a buffer hold"
    for arguments, taken in ((["header", series], 10), (["ls", series], 0)):
        process = start(*arguments)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(taken)
        process.stdout.close()
        with process.stderr as stderr:
            assert stderr.read() == b""
        process.wait(timeout=60)


def read_terminal(primary: int) -> bytes:
    """Return everything that was written to a terminal whose other end is closed."""
    shown = b""
    while True:
        try:
            chunk = os.read(primary, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return shown
        if not chunk:
            return shown
        shown += chunk


@pytest.mark.parametrize("as_json", [True, False])
def test_a_terminal_gets_a_bar_and_stdout_only_results(as_json: bool, inbox: Path, tmp_path: Path) -> None:
    """With a terminal on stderr the bar goes there, and a file on stdout gets the results, whole and alone."""
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "cloud_optimized_dicom.cli", "ingest", str(inbox), str(tmp_path / "store")]
    process = subprocess.Popen(
        [*command, *(["--json"] if as_json else [])],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=secondary,
    )
    os.close(secondary)
    shown = read_terminal(primary)
    os.close(primary)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"ingesting" in shown
    assert b"7/7, 2 series, " in shown
    assert b"\x1b[" in shown
    assert b"\x1b" not in out
    assert b"notes.txt" not in shown
    if as_json:
        assert out.startswith(b'{"store"')
        assert out.count(b"\n") == 1
    else:
        assert out.decode().splitlines()[-1] == "6 new, 0 same, 0 conflict, 1 error; 2 series"


@pytest.mark.slow
def test_without_a_terminal_there_is_a_line_now_and_then(server: GcsServer, tmp_path: Path) -> None:
    """A long ingest tells a log once in a while what a bar would show; a short one, nothing of the kind."""
    (tmp_path / "inbox").mkdir()
    for number, name in enumerate(("CT_small.dcm", "98892001/CT5N/2062")):
        (tmp_path / "inbox" / f"{number}.dcm").write_bytes(real_file(name).read())
    environment = {"STORAGE_EMULATOR_HOST": server.url}
    lines = {}
    for store in ("gs://bucket/short", "gs://bucket/long"):
        if store.endswith("long"):
            seconds = PLAIN_SECONDS + 1
            server.inject(Fault(FaultKind.LATENCY, "objects.insert", object_name=r"metadata\.json$", seconds=seconds))
        code, _, err = ended(start("ingest", tmp_path / "inbox", store, **environment))
        assert code == 0
        lines[store] = [line for line in err.decode().splitlines() if line.startswith("ingesting")]
    assert lines["gs://bucket/short"] == []
    size = r"[0-9.]+ [KM]iB"
    told = rf"ingesting: [12]/2, [12] series, {size} of {size}, [0-9.]+ [KM]?i?B/s, 0:00:\d\d left"
    assert lines["gs://bucket/long"]
    assert all(re.fullmatch(told, line) for line in lines["gs://bucket/long"]), lines


def test_results_appear_above_the_bar_on_one_terminal(inbox: Path, tmp_path: Path, cod: Cod) -> None:
    """With stdout on the terminal too, each line of verify is shown there once."""
    cod("ingest", inbox, tmp_path / "store")
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cloud_optimized_dicom.cli", "verify", str(tmp_path / "store")],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=secondary,
        stderr=secondary,
    )
    os.close(secondary)
    shown = read_terminal(primary).decode()
    os.close(primary)
    assert process.wait(timeout=60) == 0
    assert shown.count("ok  ") == 2
    assert "2 series, 0 damaged, 0 not verified" in shown


def test_without_the_extra_the_command_names_it() -> None:
    """Where typer or rich is not installed, the command says what to install and exits with 2."""
    script = "import sys; sys.modules[sys.argv.pop(1)] = None\nfrom cloud_optimized_dicom.cli import run; run()"
    for missing in ("typer", "rich"):
        done = subprocess.run([sys.executable, "-c", script, missing], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == (
            "the cod command needs an optional dependency: pip install 'cloud-optimized-dicom[cli]'\n"
        )
        assert done.stdout == ""


def answer(text: bytes, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal and answer its question; return its code and what was shown."""
    primary, secondary = pty.openpty()
    process: Any = subprocess.Popen(
        [sys.executable, "-m", "cloud_optimized_dicom.cli", *arguments],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
    )
    os.close(secondary)
    os.write(primary, text)
    shown = read_terminal(primary).decode()
    os.close(primary)
    return process.wait(timeout=60), shown


def test_remove_asks_on_a_terminal(one_series: str, cod: Cod) -> None:
    """Remove says how many it would take from where, and does nothing unless the answer is yes."""
    uids = [line.split()[0] for line in cod("ls", one_series).out.splitlines()]
    code, shown = answer(b"n\n", "remove", one_series, *uids[:2])
    assert code == 1
    assert "Remove 2 instances from" in shown
    assert "nothing was removed" in shown
    assert len(cod("ls", one_series).out.splitlines()) == 5
    assert answer(b"y\n", "remove", one_series, *uids[:2])[0] == 0
    assert len(cod("ls", one_series).out.splitlines()) == 3


def test_unlock_asks_on_a_terminal(tmp_path: Path, cod: Cod) -> None:
    """Unlock says whose lock it is, and lets go of it only if the answer is yes."""
    shutil.copytree(GOLDEN / "v2-hanging-lock", tmp_path / "store")
    series = cod("ls", tmp_path / "store").out.strip()
    code, shown = answer(b"n\n", "unlock", series)
    assert code == 1
    assert shown.index("is an older writer's lock") < shown.index("Unlock ")
    assert "nothing was unlocked" in shown
    assert len(cod("locks", series, "--json").document["locks"]) == 1
    assert answer(b"y\n", "unlock", series)[0] == 0
    assert cod("locks", series).out == "no locks\n"
