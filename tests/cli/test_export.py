"""What cod export takes on its command line, and how it shows how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom.cli.output import Output, counts_text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cod


def exported(folder: Path) -> set[str]:
    """Return the UIDs of exported files."""
    return {path.stem for path in folder.rglob("*.dcm")}


def test_uids_come_from_the_command_line_and_from_files(
    one_series: str, tmp_path: Path, cod: Cod, monkeypatch: Any
) -> None:
    """--uids takes UIDs and files that list them, which add up."""
    uids = [line.split()[0] for line in cod("ls", one_series).out.splitlines()]
    (tmp_path / "list.txt").write_text(f"{uids[1]}\n", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    done = cod("export", tmp_path / "store", tmp_path / "out", "--uids", uids[0], "--uids", "list.txt", "--json")
    assert (done.code, done.document["written"]) == (0, 2)
    assert exported(tmp_path / "out") == set(uids[:2])


def test_the_uri_of_an_instance_exports_it_alone(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """What names one instance exports that one, and not its series."""
    uid = cod("ls", one_series).out.split()[0]
    assert cod("export", f"{one_series}.tar://instances/{uid}.dcm", tmp_path / "out").code == 0
    assert exported(tmp_path / "out") == {uid}


@pytest.mark.parametrize(
    "options", [["--uids", "missing.txt"], ["--uids", "../x"], ["--where", "Modalty=CT"], ["--workers", "0"]]
)
def test_what_selects_nothing_sensible_is_a_usage_error(
    options: list[str], one_series: str, tmp_path: Path, cod: Cod
) -> None:
    """A list that is not there, an unknown keyword and no workers exit with 2, and nothing is made."""
    assert cod("export", one_series, tmp_path / "out", *options).code == 2
    assert not (tmp_path / "out").exists()


def test_lists_with_errors_are_usage_errors(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """A list without UIDs, and one with a line that is none, exit with 2."""
    for text in ("# none\n", "1.2\nnonsense\n"):
        (tmp_path / "list.txt").write_text(text, encoding="ascii")
        assert cod("export", one_series, tmp_path / "out", "--uids", tmp_path / "list.txt").code == 2


def test_uids_that_nothing_has_exit_with_3(one_series: str, tmp_path: Path, cod: Cod) -> None:
    """They are listed, by --json too, and the others are exported."""
    uid = cod("ls", one_series).out.split()[0]
    done = cod("export", one_series, tmp_path / "out", "--uids", uid, "--uids", "1.2.3", "--json")
    assert (done.code, done.document["not_found"], done.document["written"]) == (3, ["1.2.3"], 1)


def test_progress_in_words() -> None:
    """Steps, series, bytes, rate and the time left, as far as they are known."""
    assert counts_text((3, None)) == "3/?"
    assert counts_text((3, 10), (0, 0)) == "3/10"
    assert counts_text((3, None), series=1) == "3/?, 1 series"
    shown = counts_text((3, 10), (1 << 20, 5 << 30), 2 << 20, 3725.4, series=2)
    assert shown == "3/10, 2 series, 1 MiB of 5 GiB, 2 MiB/s, 1:02:05 left"


def test_a_bar_of_bytes_and_one_of_steps(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """On a terminal the bar counts steps until bytes are known, and then both."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with Output(json=False).meter("working") as meter:
        meter.expect(4)
        meter.advance()
        meter.say("one done")
    assert "1/4" in capsys.readouterr().err
    with Output(json=False).meter("working") as meter:
        meter.expect(4, 8 << 20)
        meter.advance(0, 1 << 20)
        meter.advance(2, 1 << 20)
        meter.say("two done")
    shown = capsys.readouterr().err
    assert "2/4, 2 MiB of 8 MiB" in shown
    assert "two done" in shown
