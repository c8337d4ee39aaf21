"""What an ingest may be asked beyond storing: recompression, a storage class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.testing.datasets.series import CtSeries
from pipelines.ingest import main, make_options, parse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.beam.conftest import Bucket

HTJ2K = "1.2.840.10008.1.2.4.201"


def test_instances_are_recompressed_and_tars_get_their_class(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the flags, what is stored has the syntax and the tar the class that were asked for; the counters say so."""
    for index, data in enumerate(CtSeries(2, rows=64, columns=64)):
        (tmp_path / f"{index}.dcm").write_bytes(data)
    flags = ["--compress", "htj2k", "--storage_class", "NEARLINE"]
    assert main(["--store", bucket.store, "--source", str(tmp_path / "*.dcm"), *flags]) == 0
    said = capsys.readouterr().out
    assert '"files_recompressed": 2' in said
    assert '"bytes_saved": ' in said
    datastore = Datastore(bucket.store)
    (key,) = datastore.series()
    with datastore.open(key.study_uid, key.series_uid, "r") as cod:
        syntaxes = {instance.metadata["00020010"]["Value"][0] for instance in cod.get_instances().values()}
    assert syntaxes == {HTJ2K}
    client = bucket.server.client()
    classes = {blob.name.rpartition("/")[2]: blob.storage_class for blob in client.list_blobs(bucket.name)}
    client.close()
    assert classes == {f"{key.series_uid}.tar": "NEARLINE", "metadata.json": "STANDARD"}


def test_flags_that_contradict_or_name_nothing_are_refused() -> None:
    """An unknown codec, two questions at BigQuery, and no source at all end with the code of a wrong command line."""
    store = ["--store", "somewhere"]
    asked = ["--bigquery_sql", "SELECT 1"]
    for wrong in ([*asked, "--compress", "zip"], [*asked, "--bigquery_table", "p:d.t"], []):
        with pytest.raises(SystemExit) as ended:
            parse([*store, *wrong])
        assert ended.value.code == 2
    known, flags = parse([*store, *asked, "--runner=DataflowRunner"])
    assert (known.bigquery_sql, known.compress, flags) == ("SELECT 1", None, ["--runner=DataflowRunner"])
    assert make_options().parse_args(store).storage_class is None


def test_a_launcher_of_a_template_does_not_wait_for_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Beam is told to write a template, there is no job to ask for counters, and nothing of it has failed."""
    (tmp_path / "a.dcm").write_text("not DICOM", encoding="ascii")
    arguments = ["--store", str(tmp_path / "store"), "--source", str(tmp_path / "*.dcm")]
    assert main([*arguments, "--template_location=gs://bucket/job"]) == 0
    assert capsys.readouterr().out == ""
    assert main(arguments) == 1
