"""``cod seal``: tars that end as other tools expect them to."""

from __future__ import annotations

from typing import Annotated

import typer

from cloud_optimized_dicom.cli.exit_codes import exit_code_of, worst
from cloud_optimized_dicom.cli.options import (  # noqa: TC001 - typer reads the annotations
    JsonFlag,
    TargetArgument,
    WaitOption,
)
from cloud_optimized_dicom.cli.output import Output, count_text
from cloud_optimized_dicom.cli.targets import Target, series_keys
from cloud_optimized_dicom.errors import CODError

IndexFlag = Annotated[
    bool, typer.Option("--legacy-index", help="Also give each series the index.sqlite that older readers need.")
]


def seal(
    target: TargetArgument,
    legacy_index: IndexFlag = False,
    wait: WaitOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """End tars in end-of-archive blocks, so that programs append to them that refuse a tar without.

    Every reader copes with tars that have none, as ours do; Python's tarfile and the library of this format before this
    one do not append to them.  The next append of ours writes such a tar anew, once, without the blocks.
    """
    output = Output(json=as_json)
    parsed = Target.parse(target)
    keys = series_keys(parsed)
    done: list[dict[str, str | None]] = []
    failures: list[CODError] = []
    with output.meter("sealing") as meter:
        meter.expect(len(keys))
        for key in keys:
            uri = parsed.datastore.store.url_of(key.folder)
            options = {"create_if_missing": False, "wait_seconds": wait, "legacy_index": legacy_index or None}
            try:
                with parsed.datastore.open(key.study_uid, key.series_uid, "a", **options) as cod:
                    cod.seal()
            except CODError as error:
                failures.append(error)
                output.line(f"left {uri}: {error}")
                done.append({"series": uri, "reason": str(error)})
            else:
                done.append({"series": uri, "reason": None})
            meter.advance()
    output.line(f"{count_text(len(keys), 'series')}: {len(keys) - len(failures)} sealed, {len(failures)} left alone")
    output.document({"series": done})
    if failures:
        raise typer.Exit(worst(exit_code_of(error) for error in failures))
