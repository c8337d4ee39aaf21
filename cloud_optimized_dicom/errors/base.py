"""What all errors are made of."""

from __future__ import annotations

from typing import Any


def _rebuild(cls: type[CODError], args: tuple[Any, ...], fields: dict[str, Any]) -> CODError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


class CODError(Exception):
    """Base of every error of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ replays args through __init__, which fits no constructor that takes fields.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ReasonedError(Exception):
    """What several errors are made of: where, and why."""

    _text = "{uri}: {reason}"

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(self._text.format(uri=uri, reason=reason))
        self.uri = uri
        self.reason = reason


class MissingDependencyError(CODError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'cloud-optimized-dicom[{extra}]'")
        self.feature = feature
        self.extra = extra
