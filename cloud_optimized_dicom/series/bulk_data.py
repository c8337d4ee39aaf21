"""Large values that a header names instead of holding them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from cloud_optimized_dicom.dicom.source import DEFLATED_SYNTAXES, open_source
from cloud_optimized_dicom.format.dicom_json import first_value
from cloud_optimized_dicom.format.metadata.record import header_of
from cloud_optimized_dicom.ranges import ByteRange
from cloud_optimized_dicom.uids import NestedUri

if TYPE_CHECKING:
    from cloud_optimized_dicom.model import InstanceRecord
    from cloud_optimized_dicom.series.staged_reads import InstanceReader


_TRANSFER_SYNTAX = "00020010"


class BulkDataPlace(NamedTuple):
    """Where a value lies: the UID that its instance is stored under, and its bytes in the (inflated) file."""

    instance_uid: str
    span: ByteRange

    @classmethod
    def parse(cls, uri: str) -> BulkDataPlace:
        """Return the place in ``{tar}://instances/{uid}.dcm?offset=N&length=M``.

        Raises
        ------
        ValueError
            If the URI is anything else; those of older writers have no place in them.
        """
        path, _, query = uri.rpartition("?")  # the path of a datastore may have one, too
        nested = NestedUri.parse(path)
        fields = parse_qs(query)
        try:
            span = ByteRange.of(int(fields["offset"][0]), int(fields["length"][0]))
        except (KeyError, ValueError) as error:
            raise ValueError("a BulkDataURI without offset and length") from error
        if nested is None:
            raise ValueError("a BulkDataURI that names no instance of a series")
        return cls(nested.instance_uid, span)


def read_bulk_data(reader: InstanceReader, record: InstanceRecord, place: BulkDataPlace) -> bytes:
    """Return the bytes of a value; of a deflated instance, from its inflated file."""
    if first_value(header_of(reader.tar_uri, record), _TRANSFER_SYNTAX) not in DEFLATED_SYNTAXES:
        return reader.read_span(record, place.span)
    with reader.open_instance(record) as stream, open_source(stream, record.uri) as source:
        return source.reader.read(place.span.start, len(place.span))
