"""The shape of the code base: ceilings, imports, public names, errors that travel."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cloud_optimized_dicom
from cloud_optimized_dicom import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cloud_optimized_dicom"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))

WIDE_FACES = {
    # fixed by the format's first library, whose programs must run unchanged
    ("cloud_optimized_dicom/cod_object.py", "__init__"),
    ("cloud_optimized_dicom/cod_object.py", "append"),
    ("cloud_optimized_dicom/instance.py", "__init__"),
    # the front door: every option but the first is given by name
    ("cloud_optimized_dicom/datastore.py", "ingest"),
    ("cloud_optimized_dicom/export/run.py", "export_dicom"),
}
RIMS = {"cli"}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's length in lines, its docstring left out."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_keep_their_ceilings(path: Path) -> None:
    """A module has at most 400 lines, a function 40 and 6 parameters."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in functions(path):
        assert code_lines(node) <= 40, f"{node.name} has {code_lines(node)} lines"
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        parameters = [argument for argument in parameters if argument.arg not in {"self", "cls"}]
        if (path.relative_to(ROOT).as_posix(), node.name) not in WIDE_FACES:
            assert len(parameters) <= 6, f"{node.name} takes {len(parameters)} parameters"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_asserts_and_no_catch_all_outside_the_rims(path: Path) -> None:
    """Shipped code states errors by raising them, and only the rims catch everything."""
    room = path.relative_to(PACKAGE).parts[0] if path.is_relative_to(PACKAGE) else path.parts[-2]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if room != "testing":
            assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        if isinstance(node, ast.ExceptHandler) and room not in RIMS:
            assert node.type is not None, f"bare except in line {node.lineno}"
            assert ast.unparse(node.type) != "Exception", f"except Exception in line {node.lineno}"
            if ast.unparse(node.type) == "BaseException":
                assert isinstance(node.body[-1], ast.Raise), f"line {node.lineno} swallows everything"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_say_what_they_show_and_fake_nothing(path: Path) -> None:
    """Every test has a one-sentence docstring, and no module mocks, patches or skips."""
    if path.parts[-2:] == ("acceptance", "gcs_conformance.py"):
        return  # handed to us as it is
    text = path.read_text(encoding="utf-8")
    banned = (
        "unittest" + ".mock",
        "from unittest " + "import mock",
        "monkeypatch." + "setattr",
        "monkeypatch." + "delattr",
        "monkeypatch." + "setitem",
        "importor" + "skip",
        "pytest." + "skip(",
        "mark." + "skip",
        "mark." + "xfail",
    )
    for word in banned:
        assert word not in text, word
    for node in functions(path):
        if node.name.startswith("test_"):
            docstring = ast.get_docstring(node) or ""
            assert docstring.endswith("."), node.name
            assert not re.search(r"[.!?]\s+[A-Z]|\n\n", docstring), f"{node.name} says more than a sentence"


def test_importing_the_package_has_no_side_effects() -> None:
    """Importing loads no cloud SDK, Beam, codec or terminal library, and changes no global state."""
    script = """
import logging, sys, warnings
import pydicom
before = {name: repr(value) for name, value in vars(pydicom.config).items() if not name.startswith("_")}
filters, handlers = list(warnings.filters), list(logging.getLogger().handlers)
loaded = set(sys.modules)  # pydicom itself imports the decoders that it finds
import cloud_optimized_dicom
after = {name: repr(value) for name, value in vars(pydicom.config).items() if not name.startswith("_")}
heavy = {"google.cloud.storage", "google.auth", "apache_beam", "boto3", "gdcm", "imagecodecs", "PIL", "typer", "rich"}
heavy |= {"jinja2", "av", "pyarrow", "fsspec"}
print(sorted(heavy & set(sys.modules) - loaded))
print(before == after, filters == warnings.filters, handlers == logging.getLogger().handlers)
print(logging.getLogger("cloud_optimized_dicom").handlers)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True True True", "[]"]


def test_public_names_are_pinned() -> None:
    """The names that people write are there, and no others slip in unnoticed."""
    assert cloud_optimized_dicom.__all__ == [
        "AppendResult",
        "BoundingBox",
        "CODObject",
        "Datastore",
        "FileResult",
        "Finding",
        "Hints",
        "IngestReport",
        "Instance",
        "PixelRedaction",
        "VerifyReport",
    ]
    for name in cloud_optimized_dicom.__all__:
        assert getattr(cloud_optimized_dicom, name).__doc__
    for module, name in (
        ("cod_object", "CODObject"),
        ("instance", "Instance"),
        ("hints", "Hints"),
        ("append", "AppendResult"),
        ("errors", "CleanOpOnUnlockedCODObjectError"),
    ):
        assert hasattr(importlib.import_module(f"cloud_optimized_dicom.{module}"), name)


def error_classes() -> list[type[errors.CODError]]:
    """Return every error class."""
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.CODError)]
    return sorted(set(found), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", error_classes(), ids=lambda cls: cls.__name__)
def test_errors_pickle_with_their_fields(cls: type[errors.CODError]) -> None:
    """Every error crosses a process boundary with its text and its fields."""
    own = next(base for base in cls.__mro__ if "__init__" in vars(base))
    named = list(inspect.signature(own).parameters.values()) if own.__module__.startswith(f"{errors.__name__}.") else []
    samples = {"problems": ("a",), "added": ("1.2",), "removed": (), "expires": None, "frame": 3, "frames": 2}
    samples |= {"age_seconds": 1.5, "length": 70}
    error = cls(**{p.name: samples.get(p.name, p.name) for p in named}) if named else cls("text")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_the_error_tree_is_drawn_in_full() -> None:
    """The tree in the module's docstring names every class below its parent, and nothing else."""
    drawn: dict[str, str | None] = {}
    stack: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4 + (1 if "──" in line else 0)
            del stack[depth:]
            drawn[match[2]] = stack[-1] if stack else None
            stack.append(match[2])
    actual = {cls.__name__: None if cls is errors.CODError else cls.__bases__[0].__name__ for cls in error_classes()}
    assert drawn == actual
