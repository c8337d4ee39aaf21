"""A store that lets every operation on another one pass through one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cloud_optimized_dicom.storage.base import (
    DEFAULT_ATTRIBUTES,
    Attributes,
    ConcatSource,
    ObjectInfo,
    ObjectStore,
    ReadResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloud_optimized_dicom.ranges import ByteRange
    from cloud_optimized_dicom.storage.payload import Payload

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on a store.

    Parameters
    ----------
    kind
        The verb: ``"stat"``, ``"read_object"``, ``"read"``, ``"iter_chunks"``, ``"list"``, ``"list_folders"``,
        ``"create"``, ``"replace"``, ``"concat"`` or ``"delete"``.
    name
        The object's, or the prefix of a list.
    write_id
        Of a conditional write.
    bytes_up
        What the caller sends.
    """

    kind: str
    name: str
    write_id: str | None = None
    bytes_up: int = 0

    @property
    def is_write(self) -> bool:
        """Whether it changes the store."""
        return self.kind in {"create", "replace", "concat", "delete"}


class InterceptingStore(ObjectStore):
    """Passes every operation on to `inner`; subclasses do something on the way.

    Notes
    -----
    Each span of `read_ranges` is a read of its own, as it is a request of its own on a remote store.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url = inner.url
        self.uploads_at_once = inner.uploads_at_once

    def around(self, operation: Operation, act: Callable[[], Result]) -> Result:
        """Carry out an operation that answers at once."""
        del operation
        return act()

    def around_iterator(self, operation: Operation, act: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """Carry out an operation that answers bit by bit."""
        yield from self.around(operation, act)

    def stat(self, name: str) -> ObjectInfo:
        """As the inner store."""
        return self.around(Operation("stat", name), lambda: self.inner.stat(name))

    def read_object(self, name: str) -> ReadResult:
        """As the inner store."""
        return self.around(Operation("read_object", name), lambda: self.inner.read_object(name))

    def read(self, name: str, span: ByteRange, *, version: str | None = None) -> bytes:
        """As the inner store."""
        return self.around(Operation("read", name), lambda: self.inner.read(name, span, version=version))

    def iter_chunks(self, name: str, span: ByteRange | None = None, *, version: str | None = None) -> Iterator[bytes]:
        """As the inner store."""
        operation = Operation("iter_chunks", name)
        return self.around_iterator(operation, lambda: self.inner.iter_chunks(name, span, version=version))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """As the inner store."""
        return self.around_iterator(Operation("list", prefix), lambda: self.inner.list(prefix))

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """As the inner store."""
        return self.around_iterator(Operation("list_folders", prefix), lambda: self.inner.list_folders(prefix))

    def create(
        self, name: str, payload: Payload, *, write_id: str, attributes: Attributes = DEFAULT_ATTRIBUTES
    ) -> ObjectInfo:
        """As the inner store."""
        return self.around(
            Operation("create", name, write_id, payload.size),
            lambda: self.inner.create(name, payload, write_id=write_id, attributes=attributes),
        )

    def replace(
        self,
        name: str,
        payload: Payload,
        *,
        version: str,
        write_id: str,
        attributes: Attributes = DEFAULT_ATTRIBUTES,
    ) -> ObjectInfo:
        """As the inner store."""
        return self.around(
            Operation("replace", name, write_id, payload.size),
            lambda: self.inner.replace(name, payload, version=version, write_id=write_id, attributes=attributes),
        )

    def concat(
        self,
        name: str,
        sources: Sequence[ConcatSource],
        *,
        version: str | None,
        write_id: str,
        attributes: Attributes = DEFAULT_ATTRIBUTES,
        expected_crc32c: int | None = None,
    ) -> ObjectInfo:
        """As the inner store."""
        return self.around(
            Operation("concat", name, write_id),
            lambda: self.inner.concat(
                name,
                sources,
                version=version,
                write_id=write_id,
                attributes=attributes,
                expected_crc32c=expected_crc32c,
            ),
        )

    def delete(self, name: str, *, version: str | None = None) -> None:
        """As the inner store."""
        return self.around(Operation("delete", name), lambda: self.inner.delete(name, version=version))
