"""A store that shows which reads are under way together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_optimized_dicom.storage.memory import MemoryStore

if TYPE_CHECKING:
    import threading

    from cloud_optimized_dicom.ranges import ByteRange


class MeetingStore(MemoryStore):
    """A store whose reads of a tar wait, while `meeting` is set, until as many are under way as that asks for."""

    meeting: threading.Barrier | None = None

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """Read a span in company."""
        if self.meeting is not None and name.endswith(".tar"):
            self.meeting.wait(timeout=20)
        return super().read(name, span, version=version)
