"""The real files that the tests run on: what the installed packages ship, nothing committed (set (a))."""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SUFFIXES_OF_OTHERS = frozenset({".py", ".pyc", ".json", ".txt", ".md", ".icc", ".dump", ".bin"})
_FOLDERS = (
    ("pydicom", "data/test_files"),
    ("pydicom", "data/charset_files"),
    ("pydicom", "data/palettes"),
    ("data_store", "data"),
    ("pynetdicom", "tests/dicom_files"),
    ("nibabel", "nicom/tests/data"),
)


@dataclass(frozen=True)
class RealFile:
    """A file of set (a), by a name that is unique in the set."""

    name: str
    path: Path

    def read(self) -> bytes:
        """Return the DICOM file's bytes."""
        data = self.path.read_bytes()
        return gzip.decompress(data) if self.path.suffix == ".gz" else data

    def path_in(self, folder: Path) -> Path:
        """Return a path to the DICOM file; a compressed one is unpacked into `folder`."""
        if self.path.suffix != ".gz":
            return self.path
        target = folder / self.path.stem
        target.write_bytes(self.read())
        return target


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the test dependency {package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _is_candidate(path: Path) -> bool:
    if not path.is_file() or path.name.endswith(".bin.gz") or path.name.startswith("README"):
        return False
    return path.suffix not in _SUFFIXES_OF_OTHERS and "__pycache__" not in path.parts


@cache
def real_files() -> tuple[RealFile, ...]:
    """Return every DICOM file of set (a), each distinct content once, in a stable order."""
    found: list[RealFile] = []
    seen: set[bytes] = set()
    for package, folder in _FOLDERS:
        root = _package_folder(package) / folder
        for path in sorted(root.rglob("*")):
            if not _is_candidate(path):
                continue
            data = path.read_bytes()
            if data not in seen:
                seen.add(data)
                found.append(RealFile(f"{package}/{path.relative_to(root).as_posix()}", path))
    return tuple(found)


def real_file(name: str) -> RealFile:
    """Return the file whose name ends in `name`.

    Raises
    ------
    LookupError
        If there is none.
    """
    for file in real_files():
        if file.name.endswith(f"/{name}"):
            return file
    raise LookupError(f"no file {name} in set (a)")
