"""A file on a web server: ranges where the server has them, one download where it has not."""

from __future__ import annotations

import io
import os
import re
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from cloud_optimized_dicom.errors import InstanceValidationError, SourceUnavailableError
from cloud_optimized_dicom.ingest.public_uri import public_uri
from cloud_optimized_dicom.ingest.source_kinds import FileSource, TemporarySource
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.series.files import WHOLE_BYTES, open_range_file
from cloud_optimized_dicom.whole_files import new_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What a server answers that may well have the file another time."""

_BLOCK_BYTES = 1 << 20
_TIMEOUTS_SECONDS = (10, 60)  # to connect; between two pieces of an answer
_TRIES = 4
_CONTENT_RANGE = re.compile(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]+)")
_OK, _PARTIAL, _GONE, _UNSATISFIABLE = 200, 206, (404, 410), 416
_DENIED, _REFUSED = (401, 403), 400


@cache
def _session(_process: int) -> requests.Session:
    """Return the connections of this process: a forked child must not share its parent's."""
    import requests  # noqa: PLC0415 - not every program reads from the web
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3 import Retry  # noqa: PLC0415

    again = Retry(
        _TRIES,
        connect=2,
        backoff_factor=0.3,
        status_forcelist=PASSING_STATUSES,
        raise_on_status=False,
        redirect=None,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=32, max_retries=again))
    return session


@dataclass(frozen=True)
class HttpSource:
    """A file that one URL names.

    Parameters
    ----------
    url
        As it is asked for; `uri` is the same without secrets.
    version
        ETag, or date of modification, of what was seen; a file that has changed since is an error.  None: whatever is
        there when it is opened.
    """

    uri: str
    url: str
    size: int | None = None
    version: str | None = None
    crc32c: str | None = None

    @classmethod
    def of(cls, url: str) -> HttpSource:
        """Return the source of a URL; nothing is read yet.

        Raises
        ------
        InstanceValidationError
            If it is no URL of a file: HTTP knows no folders.
        """
        uri = public_uri(url)
        try:
            host = urlsplit(url).hostname
        except ValueError:
            raise InstanceValidationError(uri, "is not a URL") from None  # its text would repeat the URL
        if not host:
            raise InstanceValidationError(uri, "is not a URL")
        if urlsplit(url).path.endswith("/") and not urlsplit(url).query:
            raise InstanceValidationError(uri, "names a folder, and web servers do not list folders")
        return cls(uri, url)

    @property
    def local_path(self) -> Path | None:
        """None."""
        return None

    def open(self) -> BinaryIO:
        """Return a new reader; the first request of a source that is not pinned tells size and version.

        Notes
        -----
        Each range is checked to be of one version.  A server that has no ranges is asked once, for everything.
        """
        if self.size is not None and self.version is not None:
            return open_range_file(self._read, self.size, _BLOCK_BYTES)
        with self._get(ByteRange(0, WHOLE_BYTES)) as response:
            if response.status_code == _OK:
                return self._spooled(response)
            size = _size_of(response)
            if response.status_code == _UNSATISFIABLE or size == 0:
                return io.BytesIO()
            if size is not None and not response.headers.get("Content-Encoding"):
                head = self._body(response, min(size, WHOLE_BYTES))
                pinned = replace(self, size=size, version=_version_of(response))
                return open_range_file(partial(pinned.read_behind, head), size, _BLOCK_BYTES)
        with self._get(None) as response:  # its ranges are of something else than the file
            return self._spooled(response)

    def pinned(self, directory: Path | None) -> HttpSource | FileSource:
        """Return this source with size and version known, so that further readers ask for their ranges only.

        Parameters
        ----------
        directory
            Takes a copy where the server has no ranges; None: every reader then downloads everything.
        """
        with self._get(ByteRange(0, 1)) as response:
            size = _size_of(response)
            if response.status_code == _PARTIAL and size is not None and not response.headers.get("Content-Encoding"):
                return replace(self, size=size, version=_version_of(response))
        return self if directory is None else TemporarySource.of(self.fetched(directory))

    def fetched(self, directory: Path, check: Callable[[], None] = lambda: None) -> FileSource:
        """Return a copy in `directory`, made in one request; what `check`, called now and then, raises ends it."""
        with self._get(None) as response, new_file(directory) as copy:
            size = self._save(response, copy, check)
        return FileSource(self.uri, Path(copy.name), size)

    def _spooled(self, response: requests.Response) -> BinaryIO:
        target = tempfile.TemporaryFile()  # noqa: SIM115 - handed out
        try:
            self._save(response, target)
        except BaseException:
            target.close()
            raise
        target.seek(0)
        return target

    def read_behind(self, head: bytes, span: ByteRange) -> bytes:
        """Return a range, without a request where it lies in the bytes that are already there."""
        return head[span.start : span.stop] if span.stop <= len(head) else self._read(span)

    def _read(self, span: ByteRange) -> bytes:
        with self._get(span) as response:
            if response.status_code != _PARTIAL:  # an unchanged file would have had this range
                raise InstanceValidationError(self.uri, "changed while it was read")
            self._check_version(response, _size_of(response))
            return self._body(response, len(span))

    @contextmanager
    def _get(self, span: ByteRange | None) -> Iterator[requests.Response]:
        """Ask for a range, or for all; what is neither is an error."""
        headers = {"Accept-Encoding": "identity"}  # ranges are of the file, not of its packed form
        if span is not None:
            headers["Range"] = f"bytes={span.start}-{span.stop - 1}"
        with self._told():
            response = _session(os.getpid()).get(self.url, headers=headers, stream=True, timeout=_TIMEOUTS_SECONDS)
        with closing(response):
            status = response.status_code
            if status in _GONE:
                raise InstanceValidationError(self.uri, f"not found (HTTP {status})")
            if status in _DENIED:
                raise InstanceValidationError(self.uri, f"access denied (HTTP {status})")
            if status in PASSING_STATUSES:
                raise SourceUnavailableError(self.uri, f"the server is busy or out of order (HTTP {status})")
            if (status >= _REFUSED and status != _UNSATISFIABLE) or status not in {_OK, _PARTIAL, _UNSATISFIABLE}:
                raise InstanceValidationError(self.uri, f"the server refused (HTTP {status})")
            yield response

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what can go wrong on the way into an error of this file; the library's texts would repeat the URL."""
        import requests  # noqa: PLC0415

        try:
            yield
        except requests.Timeout as error:
            raise SourceUnavailableError(self.uri, "the server did not answer in time") from error
        except requests.TooManyRedirects as error:
            raise InstanceValidationError(self.uri, "is redirected in circles") from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise SourceUnavailableError(self.uri, "the server ended before the file did") from error
        except requests.ConnectionError as error:
            raise SourceUnavailableError(self.uri, "the server cannot be reached, or hung up") from error
        except requests.RequestException as error:
            raise InstanceValidationError(self.uri, f"cannot be asked for: {type(error).__name__}") from error

    def _body(self, response: requests.Response, length: int) -> bytes:
        with self._told():
            data: bytes = response.content
        if len(data) != length:
            raise SourceUnavailableError(self.uri, f"the server sent {len(data)} bytes of {length}")
        return data

    def _save(self, response: requests.Response, target: Any, check: Callable[[], None] = lambda: None) -> int:
        declared = response.headers.get("Content-Length")
        if response.headers.get("Content-Encoding"):
            declared = None  # that of the packed form
        if response.status_code != _OK:
            raise InstanceValidationError(self.uri, f"the server sent no whole file (HTTP {response.status_code})")
        self._check_version(response, None if declared is None else int(declared))
        done = 0
        with self._told():
            for chunk in response.iter_content(_BLOCK_BYTES):
                check()
                done += target.write(chunk)
        if declared is not None and done != int(declared):
            raise SourceUnavailableError(self.uri, f"the server sent {done} bytes of {declared}")
        return done

    def _check_version(self, response: requests.Response, size: int | None) -> None:
        if self.version is None:
            return
        if _version_of(response) != self.version or (size is not None and size != self.size):
            raise InstanceValidationError(self.uri, "changed while it was read")


def _size_of(response: requests.Response) -> int | None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _version_of(response: requests.Response) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
