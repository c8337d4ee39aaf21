"""Answers to DICOMweb GETs: from the document of a series, and from exactly the bytes that are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom.datastore import Datastore
from cloud_optimized_dicom.dicomweb.bulk_data import located, read_value
from cloud_optimized_dicom.dicomweb.payload import (
    DICOM,
    OCTET_STREAM,
    DicomwebResponse,
    Part,
    as_dataset,
    frame_part,
    json_response,
    multipart_response,
)
from cloud_optimized_dicom.dicomweb.request import DicomwebRequest, study_level
from cloud_optimized_dicom.errors import (
    CODError,
    CODObjectNotFoundError,
    FrameNotFoundError,
    InstanceNotFoundError,
    PermissionDeniedError,
    StaleReadError,
    TransientStorageError,
)
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.series.frames import FrameReader
from cloud_optimized_dicom.series.order import in_reading_order
from cloud_optimized_dicom.series.reader import SeriesReader

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.storage.base import ObjectStore
    from cloud_optimized_dicom.uids import SeriesKey

    Answer = TypeVar("Answer")

_STATUS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
    ((CODObjectNotFoundError, InstanceNotFoundError, FrameNotFoundError), 404),
    (PermissionDeniedError, 403),
    ((TransientStorageError, StaleReadError), 503),
    (ValueError, 400),
    (CODError, 500),
)


class _Open(NamedTuple):
    reader: SeriesReader
    frames: FrameReader


class Dicomweb:
    """A datastore that answers DICOMweb GETs (PS3.18 section 10.4).

    Parameters
    ----------
    datastore
        Its URL or path, or a store.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None).
    base_url
        What the URLs in answers begin with; None: the datastore's own URL.
    series_kept
        How many series stay open between requests.

    Notes
    -----
    Threads may share it.  Of a series that is open, a frame is one request of exactly its bytes.  Metadata are always
    read anew, so they are those of the last commit.
    """

    def __init__(
        self,
        datastore: str | os.PathLike[str] | ObjectStore,
        client: Any = None,
        base_url: str | None = None,
        series_kept: int = 64,
    ) -> None:
        self._datastore = Datastore(datastore, client)
        self._base = (base_url or self._datastore.url).rstrip("/")
        self._kept = series_kept
        self._open: OrderedDict[SeriesKey, _Open] = OrderedDict()
        self._lock = threading.Lock()

    # -- answers

    def handle(self, request: DicomwebRequest | str) -> Any:
        """Return what a request asks for as Python objects; see :func:`handle_request`."""
        asked = self._parsed(request)
        if asked.resource == "metadata":
            headers = self._headers(asked)
            if asked.key is None:
                return study_level(next(headers))
            return list(headers) if asked.instance_uid is None else next(headers)
        bodies = [part.body for part in self._parts(asked, as_stored=True)]
        return bodies if asked.resource == "frames" else bodies[0]

    def respond(self, request: DicomwebRequest | str) -> DicomwebResponse:
        """Return the answer as it travels: metadata as one DICOM JSON array, all else as ``multipart/related``.

        Notes
        -----
        Errors are answers too: 400 for a request that makes no sense, 403, 404, 503 for what may work later, and 500
        for stored bytes that are damaged, each with a line of text.
        """
        try:
            asked = self._parsed(request)
            if asked.resource == "metadata":
                return json_response([as_dataset(header) for header in self._headers(asked)])
            return multipart_response(self._parts(asked))
        except (CODError, ValueError) as error:
            status = next(code for kind, code in _STATUS if isinstance(error, kind))
            return DicomwebResponse(status, "text/plain; charset=utf-8", f"{error}\n".encode())

    def _parsed(self, request: DicomwebRequest | str) -> DicomwebRequest:
        return DicomwebRequest.from_request(request) if isinstance(request, str) else request

    def _headers(self, asked: DicomwebRequest) -> Iterator[dict[str, Any]]:
        keys = self._datastore.series(asked.study_uid) if asked.key is None else iter([asked.key])
        found = False
        for key in keys:
            try:
                document = self._opened(key, fresh=True).reader.document
            except CODObjectNotFoundError:  # of a study, one whose first write is under way
                if asked.key is None:
                    continue
                raise
            if asked.instance_uid is not None:
                yield self._header(key, document.uri, document.get(asked.instance_uid))
                return
            for record in in_reading_order(document.iter_records(), strict=False):
                found = True
                yield self._header(key, document.uri, record)
        if asked.key is None and not found:
            raise CODObjectNotFoundError(f"{self._datastore.url}/studies/{asked.study_uid}")

    def _header(self, key: SeriesKey, uri: str, record: InstanceRecord) -> dict[str, Any]:
        """Return a header whose large values are named by URLs of this datastore, wherever it was written."""
        return located(header_of(uri, record), f"{self._url(key, record.name_uid)}/bulkdata")

    def _parts(self, asked: DicomwebRequest, *, as_stored: bool = False) -> list[Part]:
        key, uid = asked.key, asked.instance_uid
        if key is None or uid is None:
            raise ValueError("only metadata are asked of a study or a series")
        url = self._url(key, uid)

        def read(series: _Open) -> list[Part]:
            record = series.reader.document.get(uid)
            if asked.resource == "frames":
                return _frame_parts(series, record, asked.frames, url, as_stored=as_stored)
            if asked.resource == "bulkdata":
                value = read_value(series.reader, record, asked.bulkdata)
                return [Part(OCTET_STREAM, value, f"{url}/bulkdata{asked.bulkdata}")]
            syntax = series.frames.transfer_syntax(record, header_of(series.reader.document.uri, record))
            return [Part(f"{DICOM}; transfer-syntax={syntax}", series.reader.read_instance(record), url)]

        return self._from_present(key, read)

    def _url(self, key: SeriesKey, instance_uid: str) -> str:
        return f"{self._base}/{key.folder}/instances/{instance_uid}"

    # -- series that are open

    def _opened(self, key: SeriesKey, *, fresh: bool = False) -> _Open:
        with self._lock:
            series = self._open.get(key)
            if series is not None and not fresh and not series.reader.overtaken:
                self._open.move_to_end(key)
                return series
        reader = SeriesReader.open(self._datastore.store, key)
        with self._lock:
            before = self._open.get(key)
            if before is not None and before.reader.metadata_version == reader.metadata_version:
                return before  # with the frame tables that it has rebuilt
            self._open[key] = _Open(reader, FrameReader(reader))
            while len(self._open) > self._kept:
                self._open.popitem(last=False)
            return self._open[key]

    def _from_present(self, key: SeriesKey, read: Callable[[_Open], Answer]) -> Answer:
        """Return what `read` gets of a series; where that is not there any more, of the series as it is now."""
        series = self._opened(key)
        try:
            return read(series)
        except (InstanceNotFoundError, StaleReadError):
            present = self._opened(key, fresh=True)
            if present is series:
                raise
            return read(present)


def _frame_parts(series: _Open, record: InstanceRecord, numbers: list[int], url: str, *, as_stored: bool) -> list[Part]:
    wanted = [number - 1 for number in numbers]
    encoded = series.frames.read(record, wanted)
    if as_stored:
        return [Part(OCTET_STREAM, data) for data in encoded]
    header = header_of(series.reader.document.uri, record)
    syntax = series.frames.transfer_syntax(record, header)
    return [
        frame_part(data, index, header, syntax, f"{url}/frames/{index + 1}")
        for index, data in zip(wanted, encoded, strict=True)
    ]


def handle_request(request: str, client: Any = None) -> Any:
    """Answer a DICOMweb-style GET of a datastore.

    Parameters
    ----------
    request
        ``{datastore}/studies/S[/series/E[/instances/I]]/metadata``, or of an instance ``/frames/1,2,3`` (the first one
        is 1), ``/bulkdata...`` as its metadata have it, or nothing: the DICOM file.
    client
        A ``google.cloud.storage.Client`` for ``gs://`` (made when None).

    Returns
    -------
    dict, list or bytes
        Metadata are DICOM JSON (PS3.18 Annex F): of a study, a dict of what its instances share; of a series, a list,
        in reading order; of an instance, a dict.  They have the group 0002 of the file, which tells how frames are
        encoded, and their BulkDataURIs are requests.  Frames are a list of bytes, encoded as they are stored; anything
        else is bytes.

    Raises
    ------
    ValueError
        If that is no such request; `InvalidUidError` for what is no UID.
    CODObjectNotFoundError, InstanceNotFoundError, FrameNotFoundError
        If there is no such study, series, instance or frame.
    HashMismatchError, FrameTableError
        If a frame is not what was stored.

    Notes
    -----
    Opens the series for each request; a :class:`Dicomweb` keeps it open, and also gives answers as they travel.
    """
    return DicomwebRequest.from_request(request).handle(client)
