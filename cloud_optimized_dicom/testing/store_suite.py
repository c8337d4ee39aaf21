"""What every `ObjectStore` must do, as a pytest suite that is run on any adapter.

Examples
--------
A store of one's own is tested by a subclass, in a test module, and a fixture::

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def store(self) -> ObjectStore:
            return MyStore(...)  # empty, new for every test

A ``pytest.register_assert_rewrite("cloud_optimized_dicom.testing.store_writes", ...store_reads, ...store_races)`` in a
conftest makes failing checks tell their values.
"""

from __future__ import annotations

from cloud_optimized_dicom.testing.store_races import ProcessRaceTests, StoreRaceTests
from cloud_optimized_dicom.testing.store_reads import StoreListTests, StoreReadTests
from cloud_optimized_dicom.testing.store_writes import StoreConcatTests, StoreWriteTests

__all__ = [
    "ProcessRaceTests",
    "ProcessStoreSuite",
    "StoreConcatTests",
    "StoreListTests",
    "StoreRaceTests",
    "StoreReadTests",
    "StoreSuite",
    "StoreWriteTests",
]


class StoreSuite(StoreWriteTests, StoreConcatTests, StoreReadTests, StoreListTests, StoreRaceTests):
    """Every promise of `ObjectStore`, within one process."""


class ProcessStoreSuite(StoreSuite, ProcessRaceTests):
    """The same for a store that several processes share."""
