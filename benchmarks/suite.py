"""The run of the benchmarks that are asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import beam, changes, headers, ingest, reading, real, recompression, slides
from benchmarks.data import Data
from benchmarks.registry import BENCHMARKS
from benchmarks.workbench import Workbench
from cloud_optimized_dicom.testing.gcs_server import GcsServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.data import Scale
    from benchmarks.figures import Row
    from benchmarks.reference import Reference

_REGISTERED = (ingest, real, recompression, changes, reading, slides, headers, beam)


def run(
    names: Iterable[str],
    scale: Scale,
    reference: Reference | None = None,
    *,
    directory: Path | None = None,
    real: Path | None = None,
) -> Iterator[list[Row]]:
    """Yield the rows of each benchmark as it ends.

    Parameters
    ----------
    directory
        Where the files go; None: the system's temporary folder.
    real
        A folder of real files to ingest, besides those that the installed packages ship.
    """
    with tempfile.TemporaryDirectory(prefix="cod-bench-", dir=directory) as data_folder:
        data = Data(Path(data_folder), scale, real)
        # At full size what each of them stores is gigabytes, which go before the next one comes.
        for group in [list(names)] if scale.is_quick else [[name] for name in names]:
            with tempfile.TemporaryDirectory(prefix="cod-bench-", dir=directory) as folder, GcsServer() as server:
                bench = Workbench(server, Path(folder), data, reference)
                for name in group:
                    yield list(BENCHMARKS[name].measure(bench))
