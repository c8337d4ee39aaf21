"""How keys travel: the same bytes for the same key on every worker, or its values would not meet."""

from __future__ import annotations

from apache_beam import coders

from cloud_optimized_dicom.uids import SeriesKey


class SeriesKeyCoder(coders.Coder):
    """`SeriesKey` as ``{study}/{series}`` in ASCII; UIDs hold no slash."""

    def encode(self, value: SeriesKey) -> bytes:
        """Return the bytes of a key."""
        return f"{value.study_uid}/{value.series_uid}".encode("ascii")

    def decode(self, encoded: bytes) -> SeriesKey:
        """Return the key of such bytes."""
        study_uid, _, series_uid = encoded.decode("ascii").partition("/")
        return SeriesKey(study_uid, series_uid)

    def is_deterministic(self) -> bool:
        """Return True: equal keys have equal bytes."""
        return True

    def to_type_hint(self) -> type[SeriesKey]:
        """Return what is encoded."""
        return SeriesKey

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


coders.registry.register_coder(SeriesKey, SeriesKeyCoder)
