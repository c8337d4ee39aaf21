"""Checksums that clients send along with uploads."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cloud_optimized_dicom.checksum import encode
from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from cloud_optimized_dicom.testing.gcs_server.content import Digest


def claimed_checksums(headers: Mapping[str, str], body: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Return what a client says about its bytes, as (``"crc32c"`` or ``"md5"``, base64).

    Parameters
    ----------
    headers
        ``x-goog-hash`` and ``content-md5`` count.
    body
        An object resource: ``crc32c`` and ``md5Hash`` count.
    """
    claims = []
    for item in headers.get("x-goog-hash", "").split(","):
        kind, _, value = item.strip().partition("=")
        if kind in {"crc32c", "md5"}:
            claims.append((kind, value))
    if "content-md5" in headers:
        claims.append(("md5", headers["content-md5"]))
    for key, kind in (("crc32c", "crc32c"), ("md5Hash", "md5")):
        if body and body.get(key):
            claims.append((kind, str(body[key])))
    return claims


def require_checksums(claims: Iterable[tuple[str, str]], digest: Digest) -> None:
    """Refuse with 400 bytes that are not what the client says.

    Raises
    ------
    ServiceError
        400, with the message of the real service.
    """
    for kind, claimed in claims:
        found = encode(digest.crc32c) if kind == "crc32c" else base64.b64encode(digest.md5).decode()
        if _raw(claimed) != _raw(found):
            label = "CRC32C" if kind == "crc32c" else "MD5 hash"
            raise ServiceError(400, f'Provided {label} "{claimed}" doesn\'t match calculated {label} "{found}".')


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ServiceError(400, "Invalid checksum.") from None
