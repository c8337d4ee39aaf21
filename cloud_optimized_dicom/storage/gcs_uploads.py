"""A payload on its way to Google Cloud Storage: in one request if all goes well, resumable once it did not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.errors import ObjectNotFoundError, StorageError
from cloud_optimized_dicom.storage.gcs_errors import sdk_errors
from cloud_optimized_dicom.storage.gcs_resources import info_of_resource, resource_of

if TYPE_CHECKING:
    from typing import Any

    from cloud_optimized_dicom.storage.base import Attributes, ObjectInfo
    from cloud_optimized_dicom.storage.gcs_media import Media
    from cloud_optimized_dicom.storage.gcs_settle import PendingWrite
    from cloud_optimized_dicom.storage.payload import Payload
    from cloud_optimized_dicom.storage.retry import RetryBudget

_ALWAYS_WHOLE_BYTES = 8 << 20
"""Up to here every attempt is one request: to send it again costs no more than to ask how far the last one got."""

WHOLE_UPLOAD_BYTES = 512 << 20
"""Up to here the first attempt is one request: that saves the round trip which opens a session, and seldom fails."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object goes.

    Parameters
    ----------
    bucket, name
        The whole name of the object, prefix included.
    generation
        What the object must be at; 0: it must not exist.
    """

    bucket: str
    name: str
    generation: int


class Upload:
    """One conditional write of one payload, attempted until its outcome is known.

    Parameters
    ----------
    whole_bytes
        Up to which size the first attempt is one request.
    """

    def __init__(
        self,
        media: Media,
        place: Place,
        write: PendingWrite,
        payload: Payload,
        attributes: Attributes,
        whole_bytes: int = WHOLE_UPLOAD_BYTES,
    ) -> None:
        self._media, self._place, self._write, self._payload = media, place, write, payload
        self._attributes = attributes
        self._whole_bytes = max(whole_bytes, _ALWAYS_WHOLE_BYTES)

    def attempt(self, budget: RetryBudget) -> ObjectInfo:
        """Send the payload; the server refuses other bytes than those of its CRC32C.

        Raises
        ------
        ObjectNotFoundError
            If an object that the payload is read from is gone.
        StorageError
            As the server says; the bucket's absence is one.
        """
        whole = self._payload.size <= self._whole_bytes
        self._whole_bytes = _ALWAYS_WHOLE_BYTES
        resource = resource_of(self._write.write_id, self._attributes)
        resource |= {"name": self._place.name, "crc32c": encode(self._payload.crc32c)}
        try:
            sent = self._insert(resource) if whole else self._resumable(resource, budget)
        except ObjectNotFoundError as error:
            if error.name != self._write.url:
                raise
            raise StorageError(self._write.url, "no such bucket") from error
        return info_of_resource(self._write.name, sent)

    def _insert(self, resource: dict[str, Any]) -> dict[str, Any]:
        with sdk_errors(self._write.url):
            return self._media.insert(self._write.url, self._place, resource, self._payload)

    def _resumable(self, resource: dict[str, Any], budget: RetryBudget) -> dict[str, Any]:
        with sdk_errors(self._write.url):
            session_url = self._media.begin_session(self._place, resource, self._payload.size)
        return self._media.upload(self._write.url, session_url, self._payload, budget)
