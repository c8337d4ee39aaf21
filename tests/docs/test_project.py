"""What a newcomer meets first: the README, the verbs, the scripts."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def text_of(name: str) -> str:
    """Return the text of a file of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def project_files() -> list[Path]:
    """Return every file that is tracked, or would be."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in done.stdout.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def test_the_readme_is_short_and_shows_an_example_early() -> None:
    """The README has under 120 lines, and by line 25 an example of at most 12 lines."""
    lines = text_of("README.md").splitlines()
    assert len(lines) < 120
    start = lines.index("```python")
    end = lines.index("```", start)
    assert end - start - 1 <= 12
    assert end < 25


def test_every_make_verb_that_is_written_about_exists() -> None:
    """Pages and scripts name only verbs of the Makefile, and the README names demo and test."""
    verbs = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    pages = [path for path in project_files() if path.suffix == ".md" and "golden" not in path.parts]
    for path in pages:
        written = set(re.findall(r"`make ([a-z-]+)`", path.read_text(encoding="utf-8")))
        assert written <= verbs, path
    assert set(re.findall(r"^ *make ([a-z-]+)", text_of(".ci/run"), re.MULTILINE)) <= verbs
    assert {"demo", "test"} <= set(re.findall(r"`make ([a-z-]+)`", text_of("README.md")))


def test_the_ci_script_can_be_run_and_checks_before_it_tests() -> None:
    """The script is executable, stops at the first failure, and ends with the slow tests."""
    assert os.access(ROOT / ".ci/run", os.X_OK)
    lines = [line for line in text_of(".ci/run").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail"
    assert [line for line in lines if line.startswith("make")] == ["make check", "make test", "make test-slow"]
    assert lines[-1] == "make test-slow"


def test_pre_commit_needs_nothing_from_the_network() -> None:
    """Every hook is local and runs a tool of the development environment."""
    config = text_of(".pre-commit-config.yaml")
    assert set(re.findall(r"repo: (\S+)", config)) == {"local"}
    assert set(re.findall(r"language: (\S+)", config)) == {"system"}
    assert re.findall(r"entry: \.venv/bin/(\S+)", config) == ["ruff", "ruff", "mypy", "lint-imports"]


def test_no_file_names_a_path_of_one_machine() -> None:
    """No file of the project holds a path below somebody's home or working directory."""
    machine = re.compile(rb"(?<![\w.})*~-])(?<!:/)/(?:home|root|Users|work|tmp)/[\w.]")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:80]!r}"
        for path in project_files()
        for line in path.read_bytes().splitlines()
        if b"\0" not in line and machine.search(line)
    ]
    assert found == []
