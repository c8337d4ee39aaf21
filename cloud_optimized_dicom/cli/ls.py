"""``cod ls``: the series of a datastore, or the instances of a series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.cli.options import JsonFlag, TargetArgument  # noqa: TC001 - typer reads the annotations
from cloud_optimized_dicom.cli.output import Output, size_text
from cloud_optimized_dicom.cli.targets import Target, open_series, series_keys

if TYPE_CHECKING:
    from cloud_optimized_dicom.instance import Instance


def ls(target: TargetArgument, as_json: JsonFlag = False) -> None:
    """List the series of a datastore or study by URI, or the instances of a series in reading order."""
    output = Output(json=as_json)
    parsed = Target.parse(target)
    if parsed.key is None:
        _list_series(output, parsed)
    else:
        _list_instances(output, parsed)


def _list_series(output: Output, target: Target) -> None:
    store = target.datastore.store
    series = []
    for key in series_keys(target):
        output.line(store.url_of(key.folder))
        series.append({"study_uid": key.study_uid, "series_uid": key.series_uid, "uri": store.url_of(key.folder)})
    output.document({"store": store.url, "series": series})


def _list_instances(output: Output, target: Target) -> None:
    with open_series(target) as cod:
        instances = cod.get_instances(strict_sorting=False)
        for uid, instance in instances.items():
            output.line(f"{uid}  {size_text(instance.size())}")
        listed = [_instance(uid, instance) for uid, instance in instances.items()]
        output.document({"series": cod.datastore_series_uri, "instances": listed})


def _instance(uid: str, instance: Instance) -> dict[str, Any]:
    return {
        "uid": uid,
        "uri": instance.dicom_uri,
        "size_bytes": instance.size(),
        "crc32c": instance.crc32c(),
        "has_pixeldata": instance.has_pixeldata,
    }
