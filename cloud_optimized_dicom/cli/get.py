"""``cod get``: one instance as a file."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cloud_optimized_dicom.cli.files import move_whole, staging
from cloud_optimized_dicom.cli.options import (  # noqa: TC001 - typer reads the annotations
    InstanceArgument,
    JsonFlag,
    SeriesArgument,
)
from cloud_optimized_dicom.cli.output import Output, size_text
from cloud_optimized_dicom.cli.targets import instance_target, open_series


def get(
    series: SeriesArgument,
    uid: InstanceArgument = None,
    out: Annotated[str, typer.Option("--output", "-o", metavar="FILE|-", help="Where to; - is stdout.")] = "-",
    as_json: JsonFlag = False,
) -> None:
    """Fetch one instance, exactly as it was ingested; nothing is written unless its CRC32C is right."""
    target, wanted = instance_target(series, uid)
    to_stdout = out == "-"
    path = Path(out)
    if to_stdout and (as_json or sys.stdout.isatty()):
        raise typer.BadParameter("stdout gets no DICOM file together with --json, nor on a terminal: use -o FILE")
    if not to_stdout and (path.is_dir() or not path.parent.is_dir()):
        raise typer.BadParameter(f"{out} is not a file in an existing folder")
    with open_series(target) as cod:
        instance = cod.get_instance(wanted)
        size, crc = instance.size(), instance.crc32c()
        if to_stdout:
            with tempfile.TemporaryDirectory(prefix="cod-") as folder, instance.fetch(Path(folder)).open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            return
        with staging(path.parent) as folder_path:
            move_whole(instance.fetch(folder_path), path)
    output = Output(json=as_json)
    output.line(f"{out}: {size_text(size)}, CRC32C {crc}")
    output.document({"uid": wanted, "path": out, "size_bytes": size, "crc32c": crc})
