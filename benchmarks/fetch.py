"""Real files that packages of the Python package index carry, larger than those of the tests."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("deid-data", "dicompyler-core")
_SOURCE_ONLY = "dicompyler-core"  # wheels of it leave the files out
_PREAMBLE_BYTES = 128


def fetch_real_files(folder: Path) -> Path:
    """Download the packages with pip, once, and return the folder of the DICOM files that they carry.

    Raises
    ------
    subprocess.CalledProcessError
        If pip fails; what it says is on stderr.
    """
    files = folder / "fetched"
    if not files.is_dir():
        packages, unpacked = folder / "packages", folder / "unpacked"
        command = ["pip", "download", "--quiet", "--no-deps", "--no-binary", _SOURCE_ONLY, "--dest", str(packages)]
        subprocess.run([sys.executable, "-m", *command, *PACKAGES], check=True)
        shutil.rmtree(unpacked, ignore_errors=True)
        for archive in sorted(packages.iterdir()):
            unpack_dicom(archive, unpacked / archive.name)
        unpacked.rename(files)
    return files


def unpack_dicom(archive: Path, target: Path) -> list[Path]:
    """Unpack those files of a wheel or an sdist that are DICOM (PS3.10 section 7.1), and return where they are."""
    target.mkdir(parents=True)
    written: list[Path] = []
    for name, data in _members(archive):
        if data[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
            written.append(target / f"{len(written):04d}-{Path(name).name}")
            written[-1].write_bytes(data)
    return written


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                yield info.filename, wheel.read(info)
        return
    with tarfile.open(archive) as sdist:
        for member in sdist:
            file = sdist.extractfile(member)
            yield member.name, (file or io.BytesIO()).read()
