"""Partial responses: the ``fields=`` parameter, e.g. ``items(name,generation),nextPageToken`` or ``items/name``."""

from __future__ import annotations

import re
from typing import Any

from cloud_optimized_dicom.testing.gcs_server.errors import ServiceError

_Tree = dict[str, Any]
_TOKEN = re.compile(r"[(),/]|[^(),/\s]+")


def project(document: Any, selection: str | None) -> Any:
    """Return the selected part of a JSON document, all of it where nothing (or ``*``) is selected.

    Raises
    ------
    ServiceError
        400, if the selection cannot be parsed.
    """
    if not selection or selection == "*":
        return document
    tokens = _TOKEN.findall(selection)
    tree = _parse(tokens)
    if tokens:
        raise _invalid()
    return _apply(document, tree)


def _parse(tokens: list[str]) -> _Tree:
    tree: _Tree = {}
    while True:
        _parse_path(tokens, tree)
        if not tokens or tokens[0] != ",":
            return tree
        tokens.pop(0)


def _parse_path(tokens: list[str], tree: _Tree) -> None:
    if not tokens or tokens[0] in "(),/":
        raise _invalid()
    node = tree.setdefault(tokens.pop(0), {})
    if tokens and tokens[0] == "/":
        tokens.pop(0)
        _parse_path(tokens, node)
    elif tokens and tokens[0] == "(":
        tokens.pop(0)
        node.update(_parse(tokens))
        if not tokens or tokens.pop(0) != ")":
            raise _invalid()


def _invalid() -> ServiceError:
    return ServiceError(400, "Invalid field selection", location_type="parameter", location="fields")


def _apply(value: Any, tree: _Tree) -> Any:
    if not tree or "*" in tree:
        return value
    if isinstance(value, list):
        return [_apply(item, tree) for item in value]
    if isinstance(value, dict):
        return {key: _apply(value[key], sub) for key, sub in tree.items() if key in value}
    return value
