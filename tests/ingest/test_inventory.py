"""Inventories in the shapes that people have them name files, with what they claim of each."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import tracemalloc
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloud_optimized_dicom.checksum import crc32c, encode
from cloud_optimized_dicom.errors import InventoryError
from cloud_optimized_dicom.hints import Hints
from cloud_optimized_dicom.ingest.inventory import InventoryRow, iter_inventory, iter_row_sources, parse_columns
from cloud_optimized_dicom.ingest.sources import SourceFailure
from cloud_optimized_dicom.storage.base import new_write_id
from cloud_optimized_dicom.storage.payload import BytesPayload
from cloud_optimized_dicom.storage.urls import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from cloud_optimized_dicom.storage.base import ObjectStore

CRC = crc32c(b"123456789")  # 0xE3069283, the check value of CRC-32C
BASE64 = encode(CRC)


def rows(path: object, columns: str = "") -> list[InventoryRow | SourceFailure]:
    return list(iter_inventory(str(path), parse_columns(columns) if columns else None))


def write_csv(path: Path, table: list[list[Any]], delimiter: str = ",") -> Path:
    target = io.StringIO()
    csv.writer(target, delimiter=delimiter).writerows(table)
    path.write_text(target.getvalue(), encoding="utf-8")
    return path


def good(items: list[InventoryRow | SourceFailure]) -> list[tuple[str, Hints]]:
    assert not [item for item in items if isinstance(item, SourceFailure)], items
    return [(item.uri, item.hints) for item in items if isinstance(item, InventoryRow)]


def test_the_imaging_data_commons_shape(tmp_path: Path) -> None:
    """A BigQuery export of DICOM headers gives URI, size and the three UIDs."""
    header = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "gcs_url", "aws_url"]
    table = [[*header, "instance_size", "crc32c"], ["p", "1.2", "1.2.3", "1.2.3.4", "gs://b/1", "s3://c/1", 7, BASE64]]
    expected = [("gs://b/1", Hints(7, BASE64, "1.2.3.4", "1.2.3", "1.2"))]
    assert good(rows(write_csv(tmp_path / "rows.csv", table))) == expected
    lines = json.dumps(dict(zip(table[0], table[1], strict=True)))
    (tmp_path / "rows.jsonl").write_text(f"{lines}\n\n", encoding="utf-8")
    assert good(rows(tmp_path / "rows.jsonl")) == expected
    (tmp_path / "rows.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    assert good(rows(tmp_path / "rows.ndjson.gz")) == expected


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_storage_insights_shape(delimiter: str, tmp_path: Path) -> None:
    """A report of bucket and name names live objects; folders and noncurrent versions are passed over."""
    header = ["project", "bucket", "name", "size", "timeDeleted", "crc32c", "md5Hash", "contentEncoding", "generation"]
    table = [
        header,
        ["1", "b", "a, b;c.dcm", "9", "", BASE64, "x", "", "1700000000000000"],
        ["1", "b", "folder/", "0", "", "AAAAAA==", "x", "", "1700000000000000"],
        ["1", "b", "old.dcm", "9", "2024-01-01T00:00:00Z", BASE64, "x", "", "1700000000000000"],
        ["1", "b", "packed.dcm", "5", "", BASE64, "x", "gzip", "1700000000000000"],
    ]
    expected = [("gs://b/a, b;c.dcm", Hints(9, BASE64)), ("gs://b/packed.dcm", Hints())]
    assert good(rows(write_csv(tmp_path / "report.csv", table, delimiter))) == expected


def test_the_shapes_of_gcloud(tmp_path: Path) -> None:
    """Listings of gcloud, one JSON array with generations in the URLs, are read an element at a time."""
    listing = [
        {"storage_url": "gs://b/1#1700000000000001", "bucket": "b", "name": "1", "size": 9, "crc32c_hash": BASE64},
        {"storage_url": "gs://b/2#1700000000000001", "bucket": "b", "name": "2", "size": 9, "crc32c_hash": BASE64},
    ]
    (tmp_path / "objects.json").write_text(json.dumps(listing, indent=2), encoding="utf-8")
    expected = [("gs://b/1", Hints(9, BASE64)), ("gs://b/2", Hints(9, BASE64))]
    assert good(rows(tmp_path / "objects.json")) == expected
    metadata = {"bucket": "b", "name": "1", "size": "9", "crc32c": BASE64, "generation": "17"}
    listing = [
        {"url": "gs://b/folder/", "type": "prefix"},
        {"url": "gs://b/1#17", "type": "cloud_object", "metadata": metadata},
    ]
    (tmp_path / "ls.json").write_text(json.dumps(listing), encoding="utf-8")
    assert good(rows(tmp_path / "ls.json")) == expected[:1]
    (tmp_path / "none.json").write_text("[]\n", encoding="utf-8")
    assert rows(tmp_path / "none.json") == []


def test_the_inventories_of_s3(tmp_path: Path) -> None:
    """Bucket and key name an object, the key unescaped in CSV; old versions and delete markers are passed over."""
    header = ["Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size"]
    table = [
        ["b", "a%20b/1%2B1.dcm", "v", "true", "false", "7"],
        ["b", "old.dcm", "v", "false", "false", "7"],
        ["b", "gone.dcm", "v", "true", "true", ""],
    ]
    expected = [("s3://b/a b/1+1.dcm", Hints(7))]
    assert good(rows(write_csv(tmp_path / "named.csv", [header, *table]))) == expected
    bare = write_csv(tmp_path / "bare.csv", table[:1])
    assert good(rows(bare, "bucket=1,key=2,size=6")) == expected
    columns = {name.lower(): [row[number] for row in table[:1]] for number, name in enumerate(header)}
    columns["key"] = ["a b/1+1.dcm"]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert good(rows(tmp_path / "x.parquet")) == expected


def test_parquet_with_numbers_gaps_and_bytes(tmp_path: Path) -> None:
    """Parquet gives the same as text does: integers, floats with gaps, and CRC32Cs as four bytes or a number."""
    table = {
        "gcs_url": ["gs://b/1", "gs://b/2"],
        "instance_size": [7.0, math.nan],
        "crc32c": pa.array([CRC.to_bytes(4, "big"), None], pa.binary()),
        "unused": ["x" * 100, "y"],
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    assert good(rows(tmp_path / "rows.parquet")) == [("gs://b/1", Hints(7, BASE64)), ("gs://b/2", Hints())]
    pq.write_table(pa.table({"url": ["gs://b/1"], "crc32c": [CRC]}), tmp_path / "number.parquet")
    assert good(rows(tmp_path / "number.parquet")) == [("gs://b/1", Hints(crc32c=BASE64))]
    data = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(InventoryError, match="damaged Parquet"):
        rows(tmp_path / "cut.parquet")


@pytest.mark.parametrize("written", [BASE64, "e3069283", "E3069283", "0xe3069283", "3808858755"])
def test_a_crc32c_in_every_form_that_is_written(written: str, tmp_path: Path) -> None:
    """Base64, hexadecimal and decimal are told apart by themselves."""
    path = write_csv(tmp_path / "rows.csv", [["uri", "crc32c"], ["gs://b/1", written]])
    assert good(rows(path)) == [("gs://b/1", Hints(crc32c=BASE64))]


def test_a_crc32c_that_could_be_two_is_settled_by_its_neighbours_or_by_the_caller(tmp_path: Path) -> None:
    """Eight decimal digits are an error of the row, unless other rows or the mapping say what they are."""
    head, row = ["uri", "crc32c"], ["gs://b/1", "12345678"]
    (failure,) = rows(write_csv(tmp_path / "alone.csv", [head, row]))
    assert isinstance(failure, SourceFailure)
    assert "could be hexadecimal or decimal" in failure.reason
    (as_hex, as_integer) = Hints(crc32c=encode(0x12345678)), Hints(crc32c=encode(12345678))
    assert good(rows(tmp_path / "alone.csv", "crc32c:hex=crc32c"))[0][1] == as_hex
    assert good(rows(tmp_path / "alone.csv", "crc32c:integer=crc32c"))[0][1] == as_integer
    for other, expected in (("e3069283", as_hex), ("3808858755", as_integer)):
        path = write_csv(tmp_path / "both.csv", [head, row, ["gs://b/2", other]])
        assert good(rows(path))[0][1] == expected


def test_bad_rows_are_values_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A row that cannot be used says where it is and why, shows no cell but its URI, and stops nothing."""
    header = ["uri", "size", "crc32c", "SOPInstanceUID"]
    table = [
        header,
        ["gs://b/1", "many-secret", "", ""],
        ["", "1", "", ""],
        ["gs://b/2", "1", "secret!", ""],
        ["gs://b/3", "1", "", "secret^name"],
        ["gs://b/4", "1", "", "", "one", "more"],
        ["gs://b/good"],
    ]
    path = write_csv(tmp_path / "rows.csv", table)
    found = rows(path)
    failures = [item for item in found if isinstance(item, SourceFailure)]
    assert found[-1] == InventoryRow("gs://b/good", Hints())
    assert [item.uri for item in failures] == ["gs://b/1", f"{path} line 3", "gs://b/2", "gs://b/3", f"{path} line 6"]
    assert all(f"{path} line {number}" in item.reason for number, item in enumerate(failures, 2))
    assert "secret" not in str(failures)
    lines = b'{"uri": "gs://b/1"}\n{"uri": \n[1]\n{"uri": "gs://b/\xff"}\n{"size": 3}\n{"uri": "gs://b/2"}\n'
    (tmp_path / "rows.jsonl").write_bytes(lines + b'{"uri": "' + b"x" * (2 << 20) + b'"}\n{"uri": "gs://b/3"}\n')
    found = rows(tmp_path / "rows.jsonl")
    assert [item.uri for item in found if isinstance(item, InventoryRow)] == [
        f"gs://b/{number}" for number in (1, 2, 3)
    ]
    assert [item.reason.rpartition("line ")[2][:1] for item in found if isinstance(item, SourceFailure)] == list(
        "23457"
    )


def test_damage_in_the_middle_is_told_and_what_came_before_is_used(tmp_path: Path) -> None:
    """A gzip or an array that ends too early gives the rows before the damage and then a failure."""
    lines = "".join(f'{{"uri": "gs://b/{number}"}}\n' for number in range(50_000)).encode()
    packed = gzip.compress(lines)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    found = rows(tmp_path / "cut.jsonl.gz")
    assert len(found) > 10_000
    assert isinstance(found[-1], SourceFailure)
    assert "rest of the inventory was not read" in found[-1].reason
    (tmp_path / "cut.json").write_text('[{"uri": "gs://b/1"}, {"uri": "gs://b', encoding="utf-8")
    first, last = rows(tmp_path / "cut.json")
    assert (first, type(last)) == (InventoryRow("gs://b/1", Hints()), SourceFailure)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "no column that says where a file is"),
        (b"name,size\nx,2\n", "no column that says where a file is"),
        (b'{"a": 1}\n', "no column that says where a file is"),
        (b"\x1f\x8bnot gzip", "gzip|unpack|compress"),
        (bytes(range(128, 256)), "no column that says where a file is"),
    ],
)
def test_what_is_no_inventory_is_an_error_before_anything_starts(data: bytes, reason: str, tmp_path: Path) -> None:
    """A table without a usable column, or one that cannot be read, raises at once and names the file."""
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    with pytest.raises(InventoryError, match=reason) as caught:
        iter_inventory(path)
    assert caught.value.uri == str(path)
    with pytest.raises(InventoryError, match="no such file"):
        iter_inventory(tmp_path / "none.csv")


def test_columns_may_be_given_and_are_then_not_guessed(tmp_path: Path) -> None:
    """A given column wins over a known name; one that is missing, or a meaning nobody knows, is an error."""
    path = write_csv(tmp_path / "rows.csv", [["uri", "where", "n"], ["gs://wrong/1", "gs://right/1", "5"]])
    assert good(rows(path, "uri=where,size=n")) == [("gs://right/1", Hints(5))]
    with pytest.raises(InventoryError, match="no column 'elsewhere'"):
        rows(path, "uri=elsewhere")
    for text in ("uri", "uri=", "colour=x", "size:hex=n"):
        with pytest.raises(ValueError, match=r"MEANING=COLUMN|is none of"):
            parse_columns(text)


def test_an_inventory_lies_in_any_store_and_may_be_many_files(store: ObjectStore, gcs_client: Any) -> None:
    """The shards of an export below a prefix are one inventory, in the order of their names."""
    for number in (1, 0):
        text = f"gcs_url\ngs://b/{number}a\ngs://b/{number}b\n"
        packed = gzip.compress(text.encode()) if number else text.encode()
        store.create(f"export/rows-{number}.csv", BytesPayload(packed), write_id=new_write_id())
    found = list(iter_inventory(f"{store.url}/export/rows-*.csv", client=gcs_client))
    assert [uri for uri, _ in good(found)] == ["gs://b/0a", "gs://b/0b", "gs://b/1a", "gs://b/1b"]


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Twice the rows take no more memory, as CSV, JSON Lines, a JSON array and Parquet."""
    peaks: dict[str, list[int]] = {}
    for count in (10_000, 20_000):
        uris = [f"gs://bucket/{number:0300}" for number in range(count)]
        write_csv(tmp_path / "x.csv", [["uri"], *([uri] for uri in uris)])
        (tmp_path / "x.jsonl").write_text("".join(f'{{"uri": "{uri}"}}\n' for uri in uris), encoding="utf-8")
        (tmp_path / "x.json").write_text(json.dumps([{"uri": uri} for uri in uris]), encoding="utf-8")
        pq.write_table(pa.table({"uri": uris}), tmp_path / "x.parquet", row_group_size=10_000)
        del uris
        for path in sorted(tmp_path.iterdir()):
            tracemalloc.start()
            assert sum(1 for _ in iter_inventory(path)) == count
            peaks.setdefault(path.suffix, []).append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    for small, large in peaks.values():
        assert large < 1.3 * small + (1 << 20)


def test_rows_become_sources_that_share_their_store(tmp_path: Path) -> None:
    """A thousand rows of one bucket open one store; an archive's members come without claims; bad ones are values."""
    stores: dict[str, ObjectStore] = {}
    uris = [f"memory://bucket/folder{number}/x.dcm" for number in range(1000)]
    found = [item for uri in uris for item in iter_row_sources(InventoryRow(uri, Hints(size=3)), None, stores)]
    assert [item[0].uri for item in found if not isinstance(item, SourceFailure)] == uris
    assert {item[1].size for item in found if not isinstance(item, SourceFailure)} == {3}
    assert list(stores) == ["memory://bucket"]
    assert open_store("memory://bucket").url == stores["memory://bucket"].url
    (failure,) = iter_row_sources(InventoryRow("gopher://x/y", Hints()), None, stores)
    assert isinstance(failure, SourceFailure)
    (failure,) = iter_row_sources(InventoryRow(f"{tmp_path}/none.zip", Hints()), None, stores)
    assert isinstance(failure, SourceFailure)
