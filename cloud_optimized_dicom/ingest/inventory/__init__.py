"""Inventories: tables that say which files there are, and what is known of them, read a row at a time."""

from cloud_optimized_dicom.ingest.inventory.columns import parse_columns
from cloud_optimized_dicom.ingest.inventory.rows import InventoryRow, iter_inventory, iter_row_sources

__all__ = ["InventoryRow", "iter_inventory", "iter_row_sources", "parse_columns"]
