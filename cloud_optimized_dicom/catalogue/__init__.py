"""Parquet tables of series and instances: built in partitions, updated by what changed, asked in SQL."""

from cloud_optimized_dicom.catalogue.partition import CatalogueFailure
from cloud_optimized_dicom.catalogue.query import Catalogue, Rows
from cloud_optimized_dicom.catalogue.selection import select_uids
from cloud_optimized_dicom.catalogue.update import CatalogueReport, update_catalogue

__all__ = ["Catalogue", "CatalogueFailure", "CatalogueReport", "Rows", "select_uids", "update_catalogue"]
