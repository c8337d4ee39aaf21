"""URIs in few bytes, to tell whether one has been met before."""

from __future__ import annotations

from hashlib import blake2b

DIGEST_BYTES = 16
"""So long that no two of any number of URIs will have one digest."""


def digest_of(uri: str) -> bytes:
    """Return what stands for a URI, or any text, where many are remembered: `DIGEST_BYTES`."""
    return blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
