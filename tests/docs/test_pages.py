"""Every page of the documentation: its blocks run, and its links lead somewhere.

A ``text`` block right behind a ``python`` or ``sh`` block is what that block prints; ``...`` in it stands for anything.
The blocks of a page share a folder, and its ``python`` blocks their names.  A page that names ``gs://`` buckets in its
blocks finds them, empty, on a strict Google Cloud Storage server of its own.  Pages that need the dependency group
``training`` run with the slow tests.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from markdown_it import MarkdownIt

from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "pipelines/README.md", *(ROOT / "docs").rglob("*.md")]
)
SLOW_PAGES = {ROOT / "docs/how-to/train.md"}
LANGUAGES = {"python", "sh", "text", "json", "sql"}  # `sql` is for engines that are not here: it is shown, not run
BUCKET = re.compile(r"gs://([a-z0-9-]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `expected` is what it prints, where the page says so."""

    language: str
    code: str
    line: int
    expected: str | None = None


@cache
def tokens_of(page: Path) -> list[Token]:
    """Return the Markdown tokens of a page."""
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    tokens = tokens_of(page)
    blocks = []
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "fence":
            is_output = following is not None and following.type == "fence" and following.info == "text"
            expected = following.content if following is not None and is_output else None
            blocks.append(Block(token.info, token.content, (token.map or [0])[0] + 1, expected))
    return blocks


def links_of(page: Path) -> list[str]:
    """Return what a page links to."""
    inline = [child for token in tokens_of(page) for child in token.children or ()]
    return [str(token.attrs["href"]) for token in inline if token.type == "link_open"]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings make."""
    tokens = tokens_of(page)
    headings = [tokens[number + 1].content for number, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run_python(block: Block, page: Path, names: dict[str, Any]) -> str:
    """Run a block among the names of its page; its lines are numbered as in the page."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * block.line + block.code, str(page), "exec"), names)
    return printed.getvalue()


def run_shell(block: Block) -> str:
    """Run a block in bash, which stops at the first command that fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def page_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder that a page's blocks run in, away from the home and the settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page in SLOW_PAGES else ()) for page in PAGES],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_the_blocks_of_a_page_run_and_print_what_it_says(
    page: Path, page_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block of a page runs, in order, and prints what the page shows."""
    blocks = blocks_of(page)
    assert {block.language for block in blocks} <= LANGUAGES
    buckets = {name for block in blocks if block.language != "text" for name in BUCKET.findall(block.code)}
    names: dict[str, Any] = {"__name__": "page"}
    with contextlib.ExitStack() as stack:
        if buckets:
            server = stack.enter_context(GcsServer())
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
            for name in sorted(buckets):
                server.create_bucket(name)
        for block in blocks:
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.language == "json":
                json.loads(block.code)
            elif block.language in {"python", "sh"}:
                printed = run_shell(block) if block.language == "sh" else run_python(block, page, names)
                check_output(where, block.expected, printed.replace(str(page_folder), "."))


def check_output(where: str, expected: str | None, printed: str) -> None:
    """Compare what a block printed with what its page says."""
    if expected is not None and not doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS):
        pytest.fail(f"{where} prints\n{printed}\ninstead of\n{expected}", pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the project, and every anchor a heading of it."""
    for link in links_of(page):
        if link.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    """No page is left where no link leads."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = [link.partition("#")[0] for link in links_of(page) if "://" not in link]
        waiting += [(page.parent / name).resolve() for name in links if name]
    assert reached >= set(PAGES)
