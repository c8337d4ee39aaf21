"""A strict Google Cloud Storage server for tests: own process, loopback, standard library only.

It speaks the JSON API as ``google-cloud-storage`` uses it (and the part of the XML API that its transfer manager uses),
enforces every condition on every operation, injects faults and counts requests::

    with GcsServer() as server:
        server.create_bucket("bucket")
        server.inject(Fault(FaultKind.LOST_RESPONSE, "objects.compose"))
        client = server.client()

From a shell: ``python -m cloud_optimized_dicom.testing.gcs_server --port 0``.
"""

from cloud_optimized_dicom.testing.gcs_server.control import GcsControl, GcsServer
from cloud_optimized_dicom.testing.gcs_server.faults import Fault, FaultKind
from cloud_optimized_dicom.testing.gcs_server.records import RequestRecord

__all__ = ["Fault", "FaultKind", "GcsControl", "GcsServer", "RequestRecord"]
