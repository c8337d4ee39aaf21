"""What of a URI may be recorded and printed: everything but user, password and signature."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

NESTED = re.compile(r"(?P<archive>.+?\.(?:zip|tar|tgz|tar\.gz))://(?P<member>.+)", re.IGNORECASE | re.DOTALL)
"""A member of an archive."""

CHAIN = re.compile(r"(?P<outer>[A-Za-z][A-Za-z0-9+.-]*(?:://.*?)?)::(?P<inner>.+)", re.DOTALL)
"""A chain of file systems as fsspec writes them."""

_PASSWORD = re.compile(r"://[^/@:]*:[^/]*@")
_SIGNATURE = "sig|Signature|GoogleAccessId|AWSAccessKeyId"
_SIGNED = re.compile(rf"(?<=[?&])(?:X-(?:Amz|Goog)-[^=&]*|{_SIGNATURE})=[^&#:]*&?", re.IGNORECASE)
_SECRET = re.compile(rf"X-(?:Amz|Goog)-.*|{_SIGNATURE}|token|access_token", re.IGNORECASE)
_WEB = ("http://", "https://")


def is_chained(text: str) -> bool:
    """Return whether this is a chain of file systems as fsspec writes them, ``zip://member::s3://bucket/key``."""
    return CHAIN.fullmatch(text) is not None and "://" in text


def public_uri(uri: str) -> str:
    """Return a URI without user, password and signature; paths, and URIs without any of these, as they are."""
    if is_chained(uri):
        return "::".join(map(public_uri, uri.split("::")))
    member = NESTED.fullmatch(uri)
    if member is not None:
        return f"{public_uri(member['archive'])}://{member['member']}"
    return _without_secrets(uri) if uri.lower().startswith(_WEB) else _PASSWORD.sub("://", uri)


def names_one_file(uri: str) -> bool:
    """Return whether the public form of a URI says which file it is.

    Notes
    -----
    Of what that leaves out, a signature is made for a file that the rest names.  A token may itself be the name, and
    each user of a server may have files of his own.
    """
    unsigned = _SIGNED.sub("", uri)
    return public_uri(unsigned) in {unsigned, unsigned.partition("#")[0]}


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # no host can be like that
        return _PASSWORD.sub("://", url.partition("?")[0])
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    public = [(name, value) for name, value in kept if not _SECRET.fullmatch(name)]
    if public == kept and "@" not in parts.netloc:
        return url.partition("#")[0]  # written otherwise it would be another URI
    query = parts.query if public == kept else urlencode(public)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
