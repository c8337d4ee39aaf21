"""Pages of a bucket's objects, in the order of the UTF-8 bytes of their names."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError
from cloud_optimized_dicom.testing.gcs_server.preconditions import parse_integer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloud_optimized_dicom.testing.gcs_server.model import Bucket, ObjectVersion

_MAX_PAGE = 1000
_LAST = "\U0010ffff"  # sorts after every continuation of a prefix

_UNSUPPORTED = {"includeTrailingDelimiter", "includeFoldersAsPrefixes", "softDeleted", "filter"}

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which objects; see ``objects.list`` of the JSON API."""

    prefix: str
    delimiter: str
    start: str
    end: str
    glob: re.Pattern[str] | None
    versions: bool
    limit: int
    after: _Key | None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> ListQuery:
        """Read the parameters of a request.

        Raises
        ------
        ServiceError
            400, where one is not what it should be; 501, where this server does not know it.
        """
        for name in _UNSUPPORTED & query.keys():
            raise ServiceError(501, f"This server does not know {name}.")
        limit = parse_integer(query.get("maxResults") or str(_MAX_PAGE), "maxResults")
        if limit <= 0:
            raise ServiceError(400, "Invalid unsigned integer value for maxResults")
        glob = query.get("matchGlob")
        token = query.get("pageToken")
        return cls(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            start=query.get("startOffset", ""),
            end=query.get("endOffset", ""),
            glob=re.compile(translate_glob(glob), re.DOTALL) if glob else None,
            versions=query.get("versions", "").lower() == "true",
            limit=min(limit, _MAX_PAGE),
            after=_parse_token(token) if token else None,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects and common prefixes, which count alike, and the token of the next page."""

    items: tuple[ObjectVersion, ...]
    prefixes: tuple[str, ...]
    next_token: str | None


def list_page(bucket: Bucket, query: ListQuery) -> Page:
    """Return one page of a bucket that nobody changes meanwhile."""
    items: list[ObjectVersion] = []
    prefixes: list[str] = []
    last: _Key = ("", 0)
    for key, version in _entries(bucket, query):
        if len(items) + len(prefixes) == query.limit:
            return Page(tuple(items), tuple(prefixes), _dump_token(last))
        last = key
        if version is not None:
            items.append(version)
        else:
            prefixes.append(key[0])
    return Page(tuple(items), tuple(prefixes), None)


def _entries(bucket: Bucket, query: ListQuery) -> Iterator[tuple[_Key, ObjectVersion | None]]:
    """Yield (key, version), or (key, None) for a common prefix."""
    start = max(query.prefix, query.start)
    if query.after:
        name, generation = query.after
        start = max(start, name + _LAST if generation == 0 else name)
    index = bucket.names_from(start)
    while (name := bucket.name_at(index) or "") and name.startswith(query.prefix):
        if query.end and name >= query.end:
            return
        folder = _folder(name, query)
        matches = query.glob is None or query.glob.fullmatch(name)
        if folder:
            if matches and bucket.versions(name, noncurrent=query.versions):
                yield (folder, 0), None
                index = bucket.names_from(folder + _LAST)
                continue
        elif matches:
            yield from _versions(bucket, name, query)
        index += 1


def _versions(bucket: Bucket, name: str, query: ListQuery) -> Iterator[tuple[_Key, ObjectVersion]]:
    for version in bucket.versions(name, noncurrent=query.versions):
        key = (name, version.generation)
        if query.after is None or key > query.after:
            yield key, version


def _folder(name: str, query: ListQuery) -> str | None:
    """Return the common prefix that hides `name`, if there is one."""
    if not query.delimiter:
        return None
    cut = name.find(query.delimiter, len(query.prefix))
    return name[: cut + len(query.delimiter)] if cut >= 0 else None


def _dump_token(key: _Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _parse_token(token: str) -> _Key:
    try:
        name, generation = json.loads(base64.urlsafe_b64decode(token))
        return str(name), int(generation)
    except (binascii.Error, ValueError, TypeError):
        raise ServiceError(400, "Invalid page token", location_type="parameter", location="pageToken") from None


_GLOB_TOKEN = re.compile(r"\*\*|\*|\?|\[!?[^\]]+\]|\\.|[{},]|.", re.DOTALL)
_GLOB_FIXED = {"**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")"}


def translate_glob(glob: str) -> str:
    """Return the regular expression of a ``matchGlob``.

    Notes
    -----
    ``*`` and ``?`` stop at slashes, ``**`` does not; ``[a-z]``, ``[!a]`` and ``{a,b}`` are as in a shell.
    """
    out = []
    depth = 0
    for symbol in _GLOB_TOKEN.findall(glob):
        depth += {"{": 1, "}": -1}.get(symbol, 0)
        if symbol in _GLOB_FIXED:
            out.append(_GLOB_FIXED[symbol])
        elif symbol == "," and depth:
            out.append("|")
        elif symbol.startswith("[") and len(symbol) > 1:
            out.append(
                "[" + ("^" if symbol[1] == "!" else "") + re.escape(symbol[1:-1].lstrip("!")).replace("\\-", "-") + "]"
            )
        else:
            out.append(re.escape(symbol[-1]))
    return "".join(out)
