"""From a file to the start of its dataset: preamble, file meta information, transfer syntax (PS3.10 section 7.1)."""

from __future__ import annotations

import struct
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from cloud_optimized_dicom.dicom.elements import DatasetWalk, Encoding, Extent, RawElement, detect_implicit
from cloud_optimized_dicom.dicom.values import BINARY_VRS, CONVERTED_VRS
from cloud_optimized_dicom.dicom.vr import find_public_vr
from cloud_optimized_dicom.errors import InstanceValidationError
from cloud_optimized_dicom.format.offsets.description import NATIVE_SYNTAXES
from cloud_optimized_dicom.format.offsets.reader import PositionedReader

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_FIRST_GROUPS = (0x0002, 0x0004, 0x0008)
_LARGEST_EXPECTED_GROUP = 0x00FF
_SPOOLED_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20
_DEFLATED_BYTES = 1 << 14

MAX_INFLATED_BYTES = 1 << 32
"""What a deflated dataset may inflate to; more is refused as hostile (deflate packs at most 1032 to 1)."""

TRANSFER_SYNTAX = 0x00020010
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED_SYNTAXES = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Those whose whole dataset is deflated (PS3.5 section A.5)."""

_META_ENCODING = Encoding(implicit=False, little_endian=True)


@dataclass(frozen=True)
class DicomSource:
    """A DICOM file, ready for a walk over its dataset.

    Parameters
    ----------
    reader
        The file; a deflated one with its dataset inflated.
    stored
        The file as it is.
    meta, command
        Elements of groups 0002 and 0000, in file order.
    meta_encoding
        Explicit VR little endian, but for writers that got it wrong.
    encoding, dataset_start
        Of the dataset.
    transfer_syntax_uid
        The syntax that the file can be read with: what the file meta information says, unless the dataset shows that
        it is not so.
    is_inflated
        Whether positions count in a file that was inflated.
    problems
        As in `DicomFacts`.
    """

    reader: PositionedReader
    stored: PositionedReader
    meta: dict[int, RawElement]
    command: dict[int, RawElement]
    meta_encoding: Encoding
    encoding: Encoding
    dataset_start: int
    transfer_syntax_uid: str
    is_inflated: bool = False
    problems: tuple[str, ...] = ()

    def walk(self) -> DatasetWalk:
        """Return a walk over the dataset that skips sequences of undefined length."""
        return DatasetWalk(self.reader, self.encoding, Extent(self.dataset_start, self.reader.size))


@contextmanager
def open_source(stream: BinaryIO, uri: str, *, whole_bytes: int = 0) -> Iterator[DicomSource]:
    """Open a DICOM file; a deflated one is inflated into a temporary file for as long as the context lasts.

    Parameters
    ----------
    whole_bytes
        A file of at most this size is read whole, at once; of a larger one only what is asked for.

    Raises
    ------
    InstanceValidationError
        If it is no DICOM file.
    """
    reader = PositionedReader(stream, whole_bytes=whole_bytes)
    start = _find_start(reader, uri)
    meta, meta_encoding, dataset_start = _read_meta(reader, start)
    command, dataset_start = _read_command(reader, dataset_start)
    syntax = _declared_syntax(reader, meta)
    plain = DicomSource(reader, reader, meta, command, meta_encoding, _META_ENCODING, dataset_start, syntax)
    if syntax not in DEFLATED_SYNTAXES or _looks_like_dataset(reader, dataset_start):
        yield _with_encoding(plain)
        return
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as inflated:
        problem = _inflate(plain, inflated, uri)
        yield _with_encoding(
            DicomSource(
                PositionedReader(cast("BinaryIO", inflated)),
                *(reader, meta, command, meta_encoding, _META_ENCODING, dataset_start, syntax),
                is_inflated=True,
                problems=(problem,) if problem else (),
            )
        )


def _find_start(reader: PositionedReader, uri: str) -> int:
    if reader.size == 0:
        raise InstanceValidationError(uri, "the file is empty")
    head = reader.read(0, _PREAMBLE_BYTES + len(_MAGIC))
    if head[_PREAMBLE_BYTES:] == _MAGIC:
        return len(head)
    if _looks_like_dataset(reader, 0):
        return 0
    raise InstanceValidationError(uri, "not DICOM: neither the prefix 'DICM' nor a dataset")


def _looks_like_dataset(reader: PositionedReader, start: int) -> bool:
    """Whether an element of one of the first groups, with a plausible header, lies at `start`."""
    head = reader.read(start, 8)
    if len(head) < 8:  # noqa: PLR2004
        return False
    little, big = struct.unpack("<H", head[:2])[0], struct.unpack(">H", head[:2])[0]
    vr = head[4:6].decode("latin-1")
    if vr in CONVERTED_VRS or vr in BINARY_VRS or vr == "SQ":
        return little in _FIRST_GROUPS or big in _FIRST_GROUPS
    return little in _FIRST_GROUPS and struct.unpack("<L", head[4:])[0] <= reader.size - start - 8


def _read_meta(reader: PositionedReader, start: int) -> tuple[dict[int, RawElement], Encoding, int]:
    encoding = Encoding(detect_implicit(reader, start, _META_ENCODING), little_endian=True)
    while True:
        walk = DatasetWalk(reader, encoding, Extent(start, reader.size), group=0x0002)
        meta = {element.tag: element for element in walk}
        first = next(iter(meta.values()), None)
        known = first is None or first.vr is None or first.vr in CONVERTED_VRS or first.vr in BINARY_VRS
        if known or encoding.implicit:
            return meta, encoding, walk.position
        encoding = encoding._replace(implicit=True)


def _read_command(reader: PositionedReader, start: int) -> tuple[dict[int, RawElement], int]:
    walk = DatasetWalk(reader, Encoding(implicit=True, little_endian=True), Extent(start, reader.size), group=0x0000)
    command = {element.tag: element for element in walk}
    return command, walk.position if command else start


def _declared_syntax(reader: PositionedReader, meta: dict[int, RawElement]) -> str:
    element = meta.get(TRANSFER_SYNTAX)
    return element.read(reader).decode("latin-1").strip(" \x00") if element and element.length < _PREAMBLE_BYTES else ""


def _with_encoding(source: DicomSource) -> DicomSource:
    """Return the source with the encoding that its first element shows."""
    declared = source.transfer_syntax_uid
    assumed = Encoding(declared in {"", IMPLICIT_LITTLE}, little_endian=declared != EXPLICIT_BIG)
    start, reader = source.dataset_start, source.reader
    encoding = assumed._replace(implicit=detect_implicit(reader, start, assumed))
    encoding = encoding._replace(little_endian=_detect_little(reader, start, assumed=assumed.little_endian))
    syntax = declared
    if declared == "" or (declared in NATIVE_SYNTAXES and not source.is_inflated):
        syntax = IMPLICIT_LITTLE if encoding.implicit else EXPLICIT_LITTLE if encoding.little_endian else EXPLICIT_BIG
    return DicomSource(
        *(reader, source.stored, source.meta, source.command, source.meta_encoding, encoding, start, syntax),
        is_inflated=source.is_inflated,
        problems=source.problems,
    )


def _detect_little(reader: PositionedReader, start: int, *, assumed: bool) -> bool:
    """Return the byte order in which the first tag is one that a dataset begins with, `assumed` where both may be."""
    head = reader.read(start, 8)
    if len(head) < 4:  # noqa: PLR2004
        return assumed
    order, other = ("<", ">") if assumed else (">", "<")
    group, element = struct.unpack(f"{order}HH", head[:4])
    # The length of a group (PS3.5 section 7.2) is four bytes long, told in the same byte order as its tag.
    is_length = element == 0 and head[4:] in {struct.pack(f"{order}L", 4), b"UL" + struct.pack(f"{order}H", 4)}
    if is_length or group <= _LARGEST_EXPECTED_GROUP or find_public_vr(group << 16 | element) is not None:
        return assumed
    return assumed if struct.unpack(f"{other}H", head[:2])[0] > _LARGEST_EXPECTED_GROUP else not assumed


def _inflate(source: DicomSource, target: IO[bytes], uri: str) -> str:
    """Write the file with its dataset inflated to `target`; return a problem if the deflated data is damaged."""
    for chunk in source.reader.iter_chunks(0, source.dataset_start):
        target.write(chunk)
    inflated = _Inflated()
    size = 0
    for chunk in source.reader.iter_chunks(source.dataset_start, source.reader.size):
        for piece in inflated.feed(chunk):
            target.write(piece)
            size += len(piece)
            if size > MAX_INFLATED_BYTES:
                raise InstanceValidationError(uri, f"the dataset inflates to more than {MAX_INFLATED_BYTES} bytes")
    if size == 0:
        raise InstanceValidationError(uri, "the deflated dataset cannot be inflated")
    return inflated.problem


class _Inflated:
    """A raw deflate stream (RFC 1951), inflated up to where it ends or is damaged."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._is_damaged = False

    @property
    def problem(self) -> str:
        """What is wrong with all that was fed so far, or empty."""
        if self._is_damaged:
            return "00020010: the deflated dataset is damaged"
        return "" if self._inflater.eof else "00020010: the deflated dataset ends early"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` inflates to, in pieces of at most 1 MiB; nothing more behind damage or the end."""
        for start in range(0, len(data), _DEFLATED_BYTES):
            if self._is_damaged or self._inflater.eof:
                return
            piece = data[start : start + _DEFLATED_BYTES]
            before = self._inflater.copy()
            yielded = 0
            try:
                for inflated in self._inflate(piece):
                    yielded += len(inflated)
                    yield inflated
            except zlib.error:
                self._is_damaged = True
                yield _salvage(before, piece)[yielded:]

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while data and not self._inflater.eof:
            yield self._inflater.decompress(data, _CHUNK_BYTES)
            data = self._inflater.unconsumed_tail


def _salvage(inflater: zlib._Decompress, data: bytes) -> bytes:
    """Return what comes before the damage: zlib gives nothing of a call in which it fails."""
    parts: list[bytes] = []
    try:
        parts.extend(inflater.decompress(data[at : at + 1]) for at in range(len(data)))
    except zlib.error:
        return b"".join(parts)
    return b"".join(parts)
