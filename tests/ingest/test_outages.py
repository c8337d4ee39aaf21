"""Sources that cannot be read for the time being are errors that another attempt may well not have."""

from __future__ import annotations

import errno
import socket
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

import fsspec
import pytest
from aiohttp import ClientPayloadError, ClientResponseError, RequestInfo
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from fsspec.exceptions import FSTimeoutError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cloud_optimized_dicom import Datastore
from cloud_optimized_dicom.errors import InstanceValidationError, SourceUnavailableError
from cloud_optimized_dicom.ingest.measure import fetched
from cloud_optimized_dicom.ingest.report import is_retryable
from cloud_optimized_dicom.ingest.sources import source_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingest.web import Web


class OutOfOrder(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system whose every answer is the error of the day."""

    protocol = "outoforder"
    cachable = False
    error: ClassVar[Exception]

    def info(self, path: str, **_: Any) -> Any:
        """Fail."""
        del path
        raise self.error


def answer(status: int) -> ClientResponseError:
    """Return aiohttp's error for a status."""
    url = URL("https://h/x?sig=secret")
    return ClientResponseError(RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url), (), status=status)


def of_s3(status: int) -> ClientError:
    """Return botocore's error for a status."""
    return ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # type: ignore[typeddict-item]


PASSING = [
    OSError(errno.EBUSY, "SlowDown"),
    OSError(errno.EHOSTUNREACH, "no route"),
    ConnectionResetError(),
    TimeoutError(),
    FSTimeoutError(),
    socket.gaierror(socket.EAI_AGAIN, "no name server"),
    EndpointConnectionError(endpoint_url="https://h"),
    ClientPayloadError(),
    answer(503),
    of_s3(429),
]
LASTING = [
    OSError(errno.EINVAL, "no bucket can be called like that"),
    FileNotFoundError(),
    PermissionError(),
    ValueError("of the URL"),
    NoCredentialsError(),
    answer(400),
    of_s3(403),
]


@pytest.mark.parametrize("error", [*PASSING, *LASTING], ids=lambda error: type(error).__name__)
def test_outages_of_file_systems_are_told_from_refusals(error: Exception, tmp_path: Path) -> None:
    """What the network or a busy server does may pass; what a file system refuses stays refused."""
    fsspec.register_implementation("outoforder", OutOfOrder, clobber=True)
    OutOfOrder.error = error
    source = source_of(f"outoforder://{uuid.uuid4().hex}.dcm")
    for read in (source.open, lambda: fetched(source, tmp_path)):
        with pytest.raises(InstanceValidationError) as caught:
            read()
        assert isinstance(caught.value, SourceUnavailableError) == is_retryable(caught.value) == (error in PASSING)
        assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "retryable"),
    [
        ("cut/large.dcm", True),
        pytest.param("503/x", True, marks=pytest.mark.slow),
        pytest.param("429/x", True, marks=pytest.mark.slow),
        pytest.param("425/x", True, marks=pytest.mark.slow),
        pytest.param("408/x", True, marks=pytest.mark.slow),
        ("404/x", False),
        ("403/x", False),
        ("400/x", False),
    ],
)
def test_a_report_says_which_files_of_a_server_to_try_again(
    path: str,
    retryable: bool,
    web: Web,
    tmp_path: Path,
) -> None:
    """A busy server, and one that hangs up, may have the file another time; one that refuses it has not."""
    (result,) = Datastore(tmp_path / "store").ingest([f"{web.url}/{path}"]).files
    assert (result.outcome, result.retryable) == ("error", retryable)


def test_a_server_that_is_away_may_come_back(tmp_path: Path) -> None:
    """Nobody listening is no word on the file."""
    (result,) = Datastore(tmp_path / "store").ingest(["http://127.0.0.1:9/x.dcm"]).files
    assert (result.outcome, result.retryable) == ("error", True)
