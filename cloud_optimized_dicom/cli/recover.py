"""``cod recover``: finish what dead writers decided, and sweep what they left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_optimized_dicom.cli.asking import YesFlag, ask
from cloud_optimized_dicom.cli.exit_codes import ExitCode, worst
from cloud_optimized_dicom.cli.options import (  # noqa: TC001 - typer reads the annotations
    JsonFlag,
    TargetArgument,
    WaitOption,
)
from cloud_optimized_dicom.cli.output import Output, count_text
from cloud_optimized_dicom.cli.targets import Target, existing_keys, series_target
from cloud_optimized_dicom.errors import CODError
from cloud_optimized_dicom.series.maintenance import RecoveryResult

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES = {"busy": ExitCode.LOCKED, "failed": ExitCode.SOME_FAILED}

DiscardFlag = Annotated[
    bool,
    typer.Option("--discard-intent", help="Give up the decided commit of SERIES whose staged segments have vanished."),
]


def recover(
    target: TargetArgument,
    discard: DiscardFlag = False,
    yes: YesFlag = False,
    wait: WaitOption = 0,
    as_json: JsonFlag = False,
) -> None:
    """Finish what dead writers had decided and sweep what they left, in one series or in all of a datastore.

    No writer needs this: the next one does the same for its own series.  A series that a living writer holds is left
    alone and called busy (exit code 4).

    --discard-intent is for a commit that can no longer be finished because its staged bytes were deleted by somebody
    else.  One that can be finished is finished.  Asks first; --yes does not.
    """
    output = Output(json=as_json)
    results = [_discard(output, target, wait, yes=yes)] if discard else _recover(output, target, wait)
    counts = Counter(result.outcome for result in results)
    something = [result for result in results if result.outcome != "nothing"]
    for result in something:
        reason = f": {result.reason}" if result.reason else ""
        output.line(f"{result.outcome:<8} {result.series_uri}{reason}")
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("finished", "swept", "busy", "failed"))
    output.line(f"{count_text(len(results), 'series')}: {told}")
    output.document({"series": [_document(result) for result in something], "looked_at": len(results)})
    code = _code(results)
    if code:
        raise typer.Exit(code)


def _recover(output: Output, target: str, wait: float) -> list[RecoveryResult]:
    parsed = Target.parse(target)
    keys = existing_keys(parsed)
    datastore = parsed.datastore
    results: list[RecoveryResult] = []
    with output.meter("recovering") as meter:
        meter.expect(len(keys))
        for key in keys:
            try:
                results += datastore.recover([key], wait_seconds=wait)
            except CODError as error:  # one series that cannot be listed does not stop the others
                results.append(RecoveryResult(datastore.store.url_of(key.folder), "failed", str(error)))
            meter.advance()
    return results


def _discard(output: Output, target: str, wait: float, *, yes: bool) -> RecoveryResult:
    parsed = series_target(target)
    (key,) = existing_keys(parsed)
    datastore = parsed.datastore
    state = next(datastore.locks([key]), None)
    uri = datastore.store.url_of(key.folder)
    if state is None or state.decided is None:
        return RecoveryResult(uri, "nothing")
    output.line(f"commit {state.decided} of {uri} is decided but not finished; {state.owner} decided it")
    output.line("if all its staged bytes are there, it is finished now")
    output.line("if not, it is given up for good: the series stays as it was before, and what it added is not stored")
    ask(output, f"Give up commit {state.decided}?", "nothing was given up", yes=yes)
    return datastore.discard_intent(key, wait_seconds=wait)


def _document(result: RecoveryResult) -> dict[str, str | None]:
    return {"series": result.series_uri, "outcome": result.outcome, "reason": result.reason}


def _code(results: Sequence[RecoveryResult]) -> ExitCode:
    return worst(_CODES.get(result.outcome, ExitCode.OK) for result in results)
