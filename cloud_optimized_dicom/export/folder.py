"""The folder that an export fills: files that appear whole and verified, or not at all."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import crc32c_of_stream
from cloud_optimized_dicom.export.state import ExportState, Stamp
from cloud_optimized_dicom.uid_hashing import hash_instances, hash_key

if TYPE_CHECKING:
    from typing import Self

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.uid_hashing import UidHash
    from cloud_optimized_dicom.uids import SeriesKey

OWN_FOLDER = ".cod-export"
"""Below the destination: what earlier runs verified, and files on their way in."""

_REMOVALS = 10


class ExportFolder:
    """A local folder that is to hold ``STUDY_UID/SERIES_UID/SOP_UID.dcm``, used in a ``with`` block.

    Parameters
    ----------
    root
        Made where it is missing.
    recheck
        Read the files that are there already, whatever earlier runs remember of them.
    uid_hash_func
        What names are made of instead of the UIDs.

    Notes
    -----
    Threads and processes may share a folder.  What a killed export left on its way in is swept by the next one.
    """

    def __init__(self, root: Path, *, recheck: bool = False, uid_hash_func: UidHash | None = None) -> None:
        self._root, self._recheck, self._hash = root, recheck, uid_hash_func
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        own = self._root / OWN_FOLDER
        own.mkdir(parents=True, exist_ok=True)
        self._scratch, self._alive = _make_scratch(own)
        _sweep(own)
        self._state = ExportState(own / "verified.sqlite")
        return self

    def __exit__(self, *_: object) -> None:
        self._state.close()
        for _attempt in range(_REMOVALS):  # workers that were not waited for may be adding a last file
            shutil.rmtree(self._scratch, ignore_errors=True)
            if not self._scratch.exists():
                break
        os.close(self._alive)

    def split_present(
        self, key: SeriesKey, records: list[InstanceRecord]
    ) -> tuple[list[InstanceRecord], list[tuple[InstanceRecord, Path]]]:
        """Return the instances that are there already, and the others, each with the path that it is to have.

        Raises
        ------
        HashedUidsError, InvalidUidError
            If the function does not give each of them a name.

        Notes
        -----
        A file of the right size is there if its CRC32C is right: by what an earlier run verified, as long as the file
        has not changed since, else by reading it.
        """
        names = hash_instances(self._hash, [record.name_uid for record in records], key.folder)
        shown = hash_key(self._hash, key, key.folder)
        folder = self._root / shown.study_uid / shown.series_uid
        known = {} if self._recheck else self._state.known(folder)
        present: list[InstanceRecord] = []
        missing: list[tuple[InstanceRecord, Path]] = []
        for record in records:
            path = folder / f"{names[record.name_uid]}.dcm"
            if self._holds(path, record, known.get(path.name)):
                present.append(record)
            else:
                missing.append((record, path))
        return present, missing

    def new_part(self) -> Path:
        """Return a name for a file on its way in."""
        return self._scratch / str(next(self._numbers))

    def publish(self, part: Path, path: Path, record: InstanceRecord) -> None:
        """Give a finished and verified file its name; its bytes are on the disk before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            part.replace(path)
            self._state.remember(path, record.crc32c, Stamp.of(os.fstat(descriptor)))
        finally:
            os.close(descriptor)

    def _holds(self, path: Path, record: InstanceRecord, known: tuple[int, Stamp] | None) -> bool:
        if not path.is_file():
            return False
        stamp = Stamp.of(path.stat())
        if stamp.size != record.size:
            return False
        if known is not None and known[1] == stamp:
            return known[0] == record.crc32c
        with path.open("rb") as file:
            found = crc32c_of_stream(file)[0]
        self._state.remember(path, found, stamp)
        return found == record.crc32c


def _make_scratch(own: Path) -> tuple[Path, int]:
    """Make a folder for files on their way in, locked as long as its maker lives."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix="part-", dir=own))
        alive = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # a file system without locks: then nobody sweeps, either
            fcntl.flock(alive, fcntl.LOCK_SH)
        if scratch.is_dir():  # not taken for a dead one's between the two calls
            return scratch, alive
        os.close(alive)


def _sweep(own: Path) -> None:
    """Remove what killed exports left."""
    for scratch in own.glob("part-*"):
        with suppress(OSError):
            descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(scratch, ignore_errors=True)
            finally:
                os.close(descriptor)
