"""``cod unlock``: let go of a lock that nobody holds any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.cli.asking import YesFlag, ask
from cloud_optimized_dicom.cli.locks import age_text, lease_text, lock_document
from cloud_optimized_dicom.cli.options import JsonFlag, SeriesArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output
from cloud_optimized_dicom.cli.targets import existing_keys, series_target
from cloud_optimized_dicom.errors import LockAcquisitionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_optimized_dicom.series.maintenance import LockState

_OUTCOMES = {
    "finished": "unlocked, and the decided commit was finished",
    "swept": "unlocked",
    "nothing": "there is no lock any more",
}


def unlock(series: SeriesArgument, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Let go of the lock of a series whose writer is dead; a commit that it had decided is finished first.

    Says what it will do, and asks; --yes does not.  Needed for the locks of older writers only: any other lock is taken
    over by the next writer when its lease has run out.  A lease that has not run out is respected (exit code 4).
    """
    output = Output(json=as_json)
    target = series_target(series)
    (key,) = existing_keys(target)
    datastore = target.datastore
    uri = datastore.store.url_of(key.folder)
    state = next(datastore.locks([key]), None)
    if state is None:
        output.line(f"{uri} has no lock")
        output.document({"series": uri, "outcome": "nothing", "lock": None})
        return
    if state.expires is not None and not state.expired:
        raise LockAcquisitionError(state.uri, state.owner, state.age_seconds, state.expires)
    for line in _explained(state):
        output.line(line)
    ask(output, f"Unlock {uri}?", "nothing was unlocked", yes=yes)
    outcome = datastore.unlock(key).outcome
    output.line(f"{uri}: {_OUTCOMES[outcome]}")
    output.document({"series": uri, "outcome": outcome, "lock": lock_document(state, datastore.store.url)})


def _explained(state: LockState) -> Iterator[str]:
    if state.expires is None:
        yield f"{state.uri} is an older writer's lock, written {age_text(state.age_seconds)} ago"
        yield "it has no lease, so nobody can tell whether its writer is alive: make sure that it is not"
        if state.holds_instances:
            yield "it names instances that its writer was storing; what was not finished stays so: verify afterwards"
        return
    yield f"{state.uri} was held by {state.owner}, who last wrote it {age_text(state.age_seconds)} ago"
    yield f"its lease ended {lease_text(state)}"
    if state.decided is not None:
        yield f"it holds the decided commit {state.decided}, which is finished first"
    else:
        yield "no commit was decided: what its writer had staged is swept, and nothing that was stored changes"
