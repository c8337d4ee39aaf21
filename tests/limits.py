"""Limits of the operating system that tests run into on purpose."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _limited(kind: int, limit: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size: writing on fails, as it does on a full disk."""
    with _limited(resource.RLIMIT_FSIZE, size_bytes):
        yield


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open only so many more files."""
    taken = [os.dup(0) for _ in range(count)]
    for descriptor in taken:
        os.close(descriptor)
    with _limited(resource.RLIMIT_NOFILE, max(taken) + 1):
        yield


@contextmanager
def no_new_threads() -> Iterator[None]:
    """Let no thread be started: each would need more memory than there can be."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)
