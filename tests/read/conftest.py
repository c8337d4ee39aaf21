"""Fixtures of the tests that read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from cloud_optimized_dicom import Instance
from cloud_optimized_dicom.testing.gcs_server import GcsServer
from tests.read.beside import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["local", "gcs"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return the series on a file system, and on a strict server."""
    folder = tmp_path / "files"
    folder.mkdir()
    with GcsServer() as server:
        place = Place(str(tmp_path / "store"), None, folder, {})
        if request.param == "gcs":
            server.create_bucket("beside")
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)  # for the command line, in this process
            environment = {"STORAGE_EMULATOR_HOST": server.url}
            place = Place("gs://beside/store", server.client(), folder, environment)
        with place.open("w") as cod:
            assert len(cod.append([Instance(place.file(index)) for index in range(5)]).new) == 5
        for index in range(5, 8):
            place.file(index)
        yield place


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep highdicom from saying of every frame that a synthetic slide has no ICC profile."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)
