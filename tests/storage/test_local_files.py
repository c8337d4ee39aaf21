"""Steps of the local store on the file system, where the system itself refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloud_optimized_dicom.storage.local_files import exclusive_lock


def test_a_lock_that_cannot_be_let_go_leaks_no_descriptor(tmp_path: Path) -> None:
    """What the system says about unlocking is raised, and the lock file is closed all the same."""
    path = tmp_path / "lock"
    held = exclusive_lock(path)
    held.__enter__()
    links = ((int(link.name), link) for link in Path("/proc/self/fd").iterdir())
    (descriptor,) = (number for number, link in links if link.exists() and link.samefile(path))
    unlockable = os.open(path, os.O_PATH)
    os.dup2(unlockable, descriptor)
    os.close(unlockable)
    with pytest.raises(OSError, match="Bad file descriptor"):
        held.__exit__(None, None, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
