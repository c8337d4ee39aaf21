"""``cod locks``: who writes, or has died writing."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import typer

from cloud_optimized_dicom.cli.exit_codes import exit_code_of, worst
from cloud_optimized_dicom.cli.options import JsonFlag, TargetArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output
from cloud_optimized_dicom.cli.targets import Target, existing_keys
from cloud_optimized_dicom.errors import CODError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.series.maintenance import LockState

_TITLES = ("OWNER", "AGE", "LEASE ENDS", "EXPIRED", "DECIDED COMMIT", "SERIES")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def locks(target: TargetArgument, as_json: JsonFlag = False) -> None:
    """List the locks of a series, or of all series of a datastore; what is not locked is not listed.

    The next writer takes an expired lock over by itself, and first finishes the commit that it holds decided.  An older
    writer's lock has no lease: see cod unlock.
    """
    output = Output(json=as_json)
    parsed = Target.parse(target)
    keys = existing_keys(parsed)
    datastore = parsed.datastore
    found: list[LockState] = []
    failures: list[tuple[str, CODError]] = []
    with output.meter("looking") as meter:
        meter.expect(len(keys))
        for key in keys:
            try:
                found += datastore.locks([key])
            except CODError as error:
                failures.append((datastore.store.url_of(key.folder), error))
            meter.advance()
    if found or not failures:
        _print_table(output, datastore.store.url, found)
    for uri, failure in failures:
        output.line(f"error  {uri}: {failure}")
    failed = [{"uri": uri, "error": type(failure).__name__, "reason": str(failure)} for uri, failure in failures]
    output.document({"locks": [lock_document(state, datastore.store.url) for state in found], "failed": failed})
    if failures:
        raise typer.Exit(worst(exit_code_of(failure) for _, failure in failures))


def _print_table(output: Output, store_url: str, found: Sequence[LockState]) -> None:
    if not found:
        output.line("no locks")
        return
    rows = [_TITLES, *(_row(state, store_url) for state in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        output.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(state: LockState, store_url: str) -> tuple[str, ...]:
    return (
        state.owner or "an older writer",
        age_text(state.age_seconds),
        lease_text(state),
        "no lease" if state.expires is None else "yes" if state.expired else "no",
        state.decided or "-",
        f"{store_url}/{state.key.folder}",
    )


def age_text(seconds: float) -> str:
    """Return an age for people, in its largest unit and the next."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def lease_text(state: LockState) -> str:
    """Return when a lease ends, for people."""
    return "-" if state.expires is None else f"{state.expires.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def lock_document(state: LockState, store_url: str) -> dict[str, Any]:
    """Return a lock as JSON."""
    return {
        "series": f"{store_url}/{state.key.folder}",
        "lock": state.uri,
        "owner": state.owner,
        "age_seconds": round(state.age_seconds, 3),
        "expires": state.expires.isoformat() if state.expires else None,
        "expired": state.expired,
        "decided_commit": state.decided,
        "holds_instances": state.holds_instances,
    }
