"""Bytes over sockets: requests in, answers out, and the faults on the way."""

from __future__ import annotations

import os
import socket
import struct
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO

from cloud_optimized_dicom.testing.gcs_server.content import CHUNK_BYTES, Content, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

    from cloud_optimized_dicom.testing.gcs_server.call import Response
    from cloud_optimized_dicom.testing.gcs_server.records import Entry

_NO_BODY = {204, 304}
_SENDFILE_BYTES = 64 << 20


def head_of(response: Response) -> bytes:
    """Return the status line and headers of an answer."""
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = "Client Closed Request"  # 499 is none of the registered ones
    lines = [
        f"HTTP/1.1 {response.status} {phrase}",
        f"Date: {format_datetime(datetime.now(UTC), usegmt=True)}",
        "Server: UploadServer",
        *(f"{name}: {' '.join(value.splitlines())}" for name, value in response.headers),
    ]
    if response.chunked:
        lines.append("Transfer-Encoding: chunked")
    elif response.status not in _NO_BODY and not any(name == "Content-Length" for name, _ in response.headers):
        lines.append(f"Content-Length: {response.body.size}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"  # values beyond ASCII travel as UTF-8


def send(connection: socket.socket, response: Response, entry: Entry, keep_bytes: int | None = None) -> None:
    """Send an answer, or the first `keep_bytes` of its body; the record counts what went out."""
    head = head_of(response)
    body = response.body if keep_bytes is None else response.body.slice(0, keep_bytes)
    if response.chunked:
        connection.sendall(head)
        _send_chunked(connection, body, entry)
        if keep_bytes is None:
            connection.sendall(b"0\r\n\r\n")
        return
    if all(isinstance(piece.source, bytes) for piece in body.pieces) and body.size <= CHUNK_BYTES:
        entry.bytes_out = body.size  # before the bytes leave: who has the answer finds it counted
        connection.sendall(head + body.read())
        return
    connection.sendall(head)
    _send_pieces(connection, body, entry)


def _send_chunked(connection: socket.socket, body: Content, entry: Entry) -> None:
    for chunk in body.iter_chunks():
        if chunk:
            entry.bytes_out += len(chunk)
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))


def _send_pieces(connection: socket.socket, body: Content, entry: Entry) -> None:
    for piece in body.pieces:
        if isinstance(piece.source, StoredFile):
            with piece.source.path.open("rb") as stream:
                _send_file(connection, stream, (piece.start, piece.length), entry)
        else:
            entry.bytes_out += piece.length
            connection.sendall(memoryview(piece.source)[piece.start : piece.start + piece.length])


def _send_file(connection: socket.socket, stream: BinaryIO, span: tuple[int, int], entry: Entry) -> None:
    offset, left = span
    while left:
        wanted = min(left, _SENDFILE_BYTES)
        entry.bytes_out += wanted
        sent = 0
        try:
            sent = os.sendfile(connection.fileno(), stream.fileno(), offset, wanted)
        finally:
            entry.bytes_out -= wanted - sent
        offset += sent
        left -= sent


def reset(connection: socket.socket) -> None:
    """Close a connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def iter_chunked(stream: BufferedIOBase) -> Iterator[bytes]:
    """Yield the body of a request with ``Transfer-Encoding: chunked`` (RFC 9112, 7.1).

    Raises
    ------
    ConnectionError
        If the client goes away.
    """
    while size := _chunk_size(stream.readline(1024)):
        while size:
            chunk = stream.read(min(size, CHUNK_BYTES))
            if not chunk:
                raise ConnectionError("the client went away")
            size -= len(chunk)
            yield chunk
        stream.readline(8)
    while stream.readline(65536).strip():
        pass  # trailers


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise ConnectionError("the client went away or sends no chunks") from None
