"""The field ``thumbnail`` of a series' document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_optimized_dicom import checksum
from cloud_optimized_dicom.errors import InstanceNotFoundError
from cloud_optimized_dicom.thumbnail.geometry import Anchors, ThumbnailCoordConverter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloud_optimized_dicom.model import InstanceRecord

_VERSION = "1.0"


class ThumbnailFrame(NamedTuple):
    """One picture of a thumbnail: the UID that its instance is stored under, the 0-based frame, and where it lies."""

    instance_uid: str
    frame: int
    anchors: Anchors


@dataclass(frozen=True)
class ThumbnailDocument:
    """What a series' document says of its thumbnail.

    Parameters
    ----------
    uri
        Where the picture or video was written.
    frames
        By thumbnail index.
    crc32cs
        Of the instances that it shows, by UID; None where an older writer left none.
    left_out
        CRC32Cs of instances with pixel data that nothing could draw, by UID.
    size, crc32c
        Of the picture or video, in bytes; None where an older writer left none.
    """

    uri: str
    frames: tuple[ThumbnailFrame, ...]
    crc32cs: Mapping[str, int | None]
    left_out: Mapping[str, int | None]
    size: int | None = None
    crc32c: int | None = None

    @classmethod
    def parse(cls, raw: Any) -> ThumbnailDocument:
        """Return the value of the field.

        Raises
        ------
        ValueError
            If it is none, or its parts do not agree.
        """
        try:
            instances = raw["instances"]
            index = [(str(uid), int(frame)) for uid, frame in raw["thumbnail_index_to_instance_frame"]]
            frames = []
            for number, (uid, frame) in enumerate(index):
                entry = instances[uid]["frames"][frame]
                if entry["thumbnail_index"] != number:
                    raise ValueError("a thumbnail whose indexes do not agree")
                frames.append(ThumbnailFrame(uid, frame, Anchors.parse(entry["anchors"])))
            return cls(
                str(raw["uri"]),
                tuple(frames),
                {uid: _decoded(entry.get("crc32c")) for uid, entry in instances.items()},
                {uid: _decoded(value) for uid, value in raw.get("left_out", {}).items()},
                int(raw["size"]) if "size" in raw else None,
                _decoded(raw.get("crc32c")),
            )
        except (AttributeError, LookupError, TypeError):
            raise ValueError("not a thumbnail of this format") from None

    def dump(self) -> dict[str, Any]:
        """Return the value of the field as JSON."""
        instances: dict[str, Any] = {
            uid: {"frames": [], **({} if crc is None else {"crc32c": checksum.encode(crc)})}
            for uid, crc in self.crc32cs.items()
        }
        for number, picture in enumerate(self.frames):
            entry = {"thumbnail_index": number, "anchors": picture.anchors.dump()}
            instances[picture.instance_uid]["frames"].append(entry)
        raw: dict[str, Any] = {"version": _VERSION, "uri": self.uri}
        if self.size is not None and self.crc32c is not None:
            raw |= {"size": self.size, "crc32c": checksum.encode(self.crc32c)}
        raw["thumbnail_index_to_instance_frame"] = [[picture.instance_uid, picture.frame] for picture in self.frames]
        raw["instances"] = instances
        if self.left_out:
            raw["left_out"] = {uid: checksum.encode(crc or 0) for uid, crc in self.left_out.items()}
        return raw

    def shows(self, records: Iterable[InstanceRecord]) -> bool:
        """Return whether it was made of exactly these instances (those without pixel data do not count)."""
        known = {**self.crc32cs, **self.left_out}
        present = {record.name_uid: record.crc32c for record in records if record.has_pixeldata}
        return known.keys() == present.keys() and all(crc in {None, present[uid]} for uid, crc in known.items())

    def indexes_of(self, instance_uid: str) -> Sequence[int]:
        """Return the thumbnail indexes of an instance's frames, in their order.

        Raises
        ------
        InstanceNotFoundError
            If the thumbnail does not show the instance.
        """
        indexes = [number for number, picture in enumerate(self.frames) if picture.instance_uid == instance_uid]
        if not indexes:
            raise InstanceNotFoundError(instance_uid, self.uri)
        return indexes

    def converter(self, thumbnail_index: int) -> ThumbnailCoordConverter:
        """Return how positions map between a picture of the thumbnail and its frame."""
        return ThumbnailCoordConverter(self.frames[thumbnail_index].anchors)


def _decoded(value: Any) -> int | None:
    return None if value is None else checksum.decode(str(value))
