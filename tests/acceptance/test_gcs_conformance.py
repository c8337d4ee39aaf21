"""The shared conformance tool, run against our server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from cloud_optimized_dicom.testing.gcs_server import GcsServer

_TOOL = Path(__file__).with_name("gcs_conformance.py")

_CHECKS_OK = 107
_INFORMATION = {"multi_range_json", "multi_range_xml"}
_EXCUSED = {
    "open_wb": "google-cloud-storage 3's BlobWriter reports any server's 412 as InvalidResponse, never as "
    "PreconditionFailed; tests/gcs_server/test_preconditions.py holds the 412 itself",
}


class _Check(NamedTuple):
    status: str
    detail: str


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Check]:
    """Run the tool once and give each check's outcome."""
    out = tmp_path_factory.mktemp("conformance") / "out.json"
    with GcsServer() as server:
        command = [sys.executable, str(_TOOL), server.url, "ours", "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
    lines = json.loads(out.read_text(encoding="utf-8"))
    return {line["test"]: _Check(line["status"], line["detail"]) for line in lines}


def test_every_check_is_ok_or_excused(checks: dict[str, _Check]) -> None:
    """No check differs from the real service, but those excused by name."""
    failing = {name: check for name, check in checks.items() if check.status not in {"OK", "INFO"}}
    assert failing.keys() == _EXCUSED.keys(), failing


def test_the_excused_check_fails_for_the_stated_reason(checks: dict[str, _Check]) -> None:
    """The one excused check saw the 412 that it wants, in another exception."""
    assert "InvalidResponse: ('Request failed with status code', 412" in checks["open_wb"].detail


def test_no_check_was_left_out(checks: dict[str, _Check]) -> None:
    """As many checks were made as the tool has."""
    assert sum(check.status == "OK" for check in checks.values()) == _CHECKS_OK
    assert {name for name, check in checks.items() if check.status == "INFO"} == _INFORMATION
