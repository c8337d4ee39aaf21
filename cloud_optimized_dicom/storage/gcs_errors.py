"""From what the Google client library and its HTTP stack raise to the errors of this package."""

from __future__ import annotations

import http.client
from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests
import urllib3
from google.api_core import exceptions as api_exceptions
from google.auth import exceptions as auth_exceptions
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from cloud_optimized_dicom.errors import (
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    StorageError,
    TransientStorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECTION_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    DataCorruption,
)
_SDK_ERRORS = (
    api_exceptions.GoogleAPICallError,
    auth_exceptions.GoogleAuthError,
    InvalidResponse,
    *_CONNECTION_ERRORS,
)
_LONGEST_REASON = 300


@contextmanager
def sdk_errors(url: str) -> Iterator[None]:
    """Map what the client library raises about the object at `url`."""
    try:
        yield
    except _SDK_ERRORS as error:
        raise _mapped(url, error) from error


def _mapped(url: str, error: Exception) -> StorageError:
    if isinstance(error, api_exceptions.GoogleAPICallError):
        return _by_status(url, int(error.code or 0), str(error.message))
    if isinstance(error, InvalidResponse):
        return _by_status(url, int(error.response.status_code), "unexpected response")
    if isinstance(error, auth_exceptions.GoogleAuthError):
        if isinstance(error, auth_exceptions.TransportError) or error.retryable:
            return TransientStorageError(url, "the credentials cannot be refreshed now")
        return PermissionDeniedError(url, "no valid credentials")
    return TransientStorageError(url, f"connection failed ({type(error).__name__})")


def _by_status(url: str, status: int, message: str) -> StorageError:
    if status in {401, 403}:
        return PermissionDeniedError(url, f"HTTP {status}")
    if status == http.client.NOT_FOUND:
        return ObjectNotFoundError(url)
    if status == http.client.PRECONDITION_FAILED:
        return PreconditionFailedError(url, "that was named")
    if status in {408, 429} or status >= http.client.INTERNAL_SERVER_ERROR:
        return TransientStorageError(url, f"HTTP {status}")
    return StorageError(url, f"HTTP {status}: {message[:_LONGEST_REASON]}")


def nothing_was_done(error: StorageError) -> bool:
    """Say whether a transient failure proves that its request had no effect; a 5xx or a lost response does not."""
    return isinstance(error.__cause__, api_exceptions.TooManyRequests)
