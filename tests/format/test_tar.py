"""Our tars, read by other programs; other programs' tars, read by us."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore, Instance
from cloud_optimized_dicom.format.tar import (
    end_of_members,
    is_zero_block,
    member_header,
    padded,
    padding_bytes,
    parse_member_header,
)
from cloud_optimized_dicom.testing.datasets.series import CtSeries

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.ranges import ByteRange


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8 * 2**30 - 1, 8 * 2**30, 2**40])
def test_headers_round_trip(size: int) -> None:
    """A header block is 512 bytes, always the same, and says name and size, beyond ustar's 8 GiB too."""
    block = member_header("instances/1.2.3.dcm", size)
    assert len(block) == 512
    assert block == member_header("instances/1.2.3.dcm", size)
    assert parse_member_header(block) == ("instances/1.2.3.dcm", size, False)
    assert (padded(size) - size, padded(size) % 512) == (padding_bytes(size), 0)


def test_what_is_no_header() -> None:
    """Zeros, noise and a header with a flipped bit are no headers."""
    block = bytearray(member_header("instances/1.2.dcm", 10))
    block[3] ^= 1
    for other in (bytes(512), b"x" * 512, bytes(block)):
        assert parse_member_header(other) is None
    assert is_zero_block(bytes(512))


@pytest.fixture
def tar(tmp_path: Path) -> tuple[Path, CtSeries]:
    """Return the tar of a series that was made by three commits."""
    series = CtSeries(3, rows=8, columns=8)
    datastore = Datastore(tmp_path / "store")
    for index, data in enumerate(series):
        path = tmp_path / f"{index}.dcm"
        path.write_bytes(data)
        datastore.ingest([Instance(path)])
    (key,) = datastore.series()
    return tmp_path / "store" / key.tar, series


def test_gnu_tar_lists_and_extracts_it(tar: tuple[Path, CtSeries], tmp_path: Path) -> None:
    """GNU tar reads a tar without end-of-archive blocks in full and silently."""
    path, series = tar
    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert listed.stdout.split() == [f"instances/{series.instance_uid(index)}.dcm" for index in range(3)]
    subprocess.run(["tar", "xf", path, "-C", tmp_path], capture_output=True, check=True)
    for index in range(3):
        assert (tmp_path / "instances" / f"{series.instance_uid(index)}.dcm").read_bytes() == series.instance(index)


def test_python_reads_it(tar: tuple[Path, CtSeries]) -> None:
    """Python's tarfile reads every member, and refuses to append, which would destroy nothing."""
    path, series = tar
    before = path.read_bytes()
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert len(members) == 3
        for index, member in enumerate(members):
            stream = archive.extractfile(member)
            assert stream is not None
            assert stream.read() == series.instance(index)
    with pytest.raises(tarfile.ReadError):
        tarfile.open(path, "a")  # noqa: SIM115 - it must not open
    assert path.read_bytes() == before


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_the_end_of_other_writers_tars(form: int) -> None:
    """Whatever wrote a tar, its members end before its end-of-archive blocks."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"instances/1.{number}.dcm")
            info.size, info.mtime = 700, 1.5  # a fraction makes pax write its own header
            archive.addfile(info, io.BytesIO(bytes(700)))
        end = target.tell()
    data = target.getvalue()

    def read(span: ByteRange) -> bytes:
        return data[span.start : span.stop]

    assert len(data) > end
    assert end_of_members(read, 0, len(data)) == end
    assert end_of_members(read, end, len(data)) == end
    assert end_of_members(read, 0, end) == end
    assert end_of_members(read, 0, end - 512) < end - 512  # a member that is cut off is none
