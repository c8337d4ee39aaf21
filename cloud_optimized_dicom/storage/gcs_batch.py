"""Several questions to Google Cloud Storage in one batch request."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as api_exceptions
from google.cloud.storage.batch import Batch

from cloud_optimized_dicom.storage.gcs_resources import info_of_resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_optimized_dicom.storage.base import ObjectInfo

BATCH_OBJECTS = 100
"""What one batch request may hold."""


def find_in_one_request(client: Any, bucket: Any, prefix: str, names: Sequence[str]) -> list[ObjectInfo | None]:
    """Return the present states of objects, in one request; None for an object that does not exist.

    Raises
    ------
    GoogleAPICallError, RequestException
        If the batch fails, or an answer in it is neither a state nor a 404.
    """
    batch = Batch(client, raise_exception=False)
    with batch:
        for name in names:
            bucket.blob(prefix + name).reload(retry=None)
    found: list[ObjectInfo | None] = []
    for name, answer in zip(names, batch._responses, strict=True):  # noqa: SLF001 - `with` leaves them nowhere else
        if answer.status_code == http.client.NOT_FOUND:
            found.append(None)
        elif answer.status_code == http.client.OK:
            found.append(info_of_resource(name, answer.json()))
        else:
            raise api_exceptions.from_http_response(answer)  # type: ignore[no-untyped-call]
    return found
