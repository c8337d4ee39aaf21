"""Reading instances of a series that is being written: staged ones where they came from, the others from the tar."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol

from cloud_optimized_dicom.errors import InstanceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.ranges import ByteRange, FetchPolicy
    from cloud_optimized_dicom.series.packing import NewMember
    from cloud_optimized_dicom.series.reader import SeriesReader
    from cloud_optimized_dicom.storage.payload import Payload


class InstanceReader(Protocol):
    """What frames are read through; see `SeriesReader`."""

    @property
    def tar_uri(self) -> str:
        """Where the tar is."""
        ...

    def open_instance(self, record: InstanceRecord) -> BinaryIO:
        """Open one instance's file."""
        ...

    def read_span(self, record: InstanceRecord, span: ByteRange) -> bytes:
        """Read one range of one instance's file."""
        ...

    def read_spans(self, record: InstanceRecord, spans: Sequence[ByteRange]) -> list[bytes]:
        """Read ranges of one instance's file, in the order given."""
        ...

    def read_each(
        self,
        wanted: Sequence[tuple[InstanceRecord, ByteRange]],
        take: Callable[[int, bytes], None],
        policy: FetchPolicy | None = None,
    ) -> None:
        """Read ranges of several instances' files, handing each over as it arrives."""
        ...


class StagedReader:
    """An `InstanceReader` of a series as it would be committed now.

    Parameters
    ----------
    stored
        The reader of what is stored; None where there is nothing.
    staged
        New instances, by the UID they are stored under.
    """

    def __init__(self, stored: SeriesReader | None, staged: Mapping[str, NewMember], tar_uri: str) -> None:
        self._stored, self._staged, self.tar_uri = stored, staged, tar_uri

    def open_instance(self, record: InstanceRecord) -> BinaryIO:
        """Open one instance's file."""
        payload = self._find(record)
        return payload.open() if payload is not None else self._reader(record).open_instance(record)

    def read_span(self, record: InstanceRecord, span: ByteRange) -> bytes:
        """Read one range of one instance's file."""
        return self.read_spans(record, [span])[0]

    def read_spans(self, record: InstanceRecord, spans: Sequence[ByteRange]) -> list[bytes]:
        """Read ranges of one instance's file, in the order given."""
        payload = self._find(record)
        if payload is None:
            return self._reader(record).read_spans(record, spans)
        with payload.open() as stream:
            return [_read(stream, span) for span in spans]

    def read_each(
        self,
        wanted: Sequence[tuple[InstanceRecord, ByteRange]],
        take: Callable[[int, bytes], None],
        policy: FetchPolicy | None = None,
    ) -> None:
        """Read ranges of several instances' files, handing each over as it arrives."""
        away = []
        for position, (record, span) in enumerate(wanted):
            if self._find(record) is None:
                away.append(position)
            else:
                take(position, self.read_span(record, span))
        if away:
            reader = self._reader(wanted[away[0]][0])
            reader.read_each([wanted[p] for p in away], lambda index, data: take(away[index], data), policy)

    def _find(self, record: InstanceRecord) -> Payload | None:
        member = self._staged.get(record.name_uid)
        return member.payload if member is not None and member.record.crc32c == record.crc32c else None

    def _reader(self, record: InstanceRecord) -> SeriesReader:
        if self._stored is None:
            raise InstanceNotFoundError(record.name_uid, self.tar_uri)
        return self._stored


def _read(stream: BinaryIO, span: ByteRange) -> bytes:
    stream.seek(span.start)
    return stream.read(len(span))
