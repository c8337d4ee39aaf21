"""The server's own endpoint: faults, records, late operations.  Its requests are neither recorded nor delayed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloud_optimized_dicom.testing.gcs_server.call import Response
from cloud_optimized_dicom.testing.gcs_server.content import Content
from cloud_optimized_dicom.testing.gcs_server.faults import Fault

if TYPE_CHECKING:
    from cloud_optimized_dicom.testing.gcs_server.server import Server

PREFIX = "/_control/"
"""No bucket's name begins with an underscore."""


def answer(server: Server, method: str, path: str, body: bytes) -> Response:
    """Carry out a request to the endpoint.

    Notes
    -----
    ``POST faults`` arms one or a list, ``DELETE faults`` disarms all; ``GET counters`` lists the records, ``DELETE
    counters`` forgets them; ``POST late`` runs the late operations and lists their statuses, ``DELETE late`` drops
    them.
    """
    actions = {
        ("POST", "faults"): lambda: _arm(server, body),
        ("DELETE", "faults"): server.faults.clear,
        ("GET", "counters"): server.recorder.as_json,
        ("DELETE", "counters"): server.recorder.reset,
        ("POST", "late"): server.late.release,
        ("DELETE", "late"): server.late.discard,
    }
    action = actions.get((method, path.removeprefix(PREFIX)))
    if action is None:
        return _json(404, {"error": "no such control"})
    try:
        return _json(200, action())
    except (ValueError, TypeError) as error:
        return _json(400, {"error": str(error)})


def _arm(server: Server, body: bytes) -> None:
    document = json.loads(body)
    for item in document if isinstance(document, list) else [document]:
        server.faults.add(Fault.parse(item))


def _json(status: int, document: Any) -> Response:
    return Response(status, (("Content-Type", "application/json"),), Content.of(json.dumps(document).encode()))
