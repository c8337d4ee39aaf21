"""Series as map-style datasets for training: items are frames, slices or volumes of many series.

`torch.utils.data.DataLoader` takes them as they are; torch is not imported.
"""

from cloud_optimized_dicom.datasets.access import EncodedFrame, keep_encoded
from cloud_optimized_dicom.datasets.build import SkippedSeries
from cloud_optimized_dicom.datasets.dataset import FrameDataset, SliceDataset, VolumeDataset
from cloud_optimized_dicom.datasets.header import HeaderView
from cloud_optimized_dicom.datasets.items import FrameItem, SliceItem, VolumeItem, with_monai_meta

__all__ = [
    "EncodedFrame",
    "FrameDataset",
    "FrameItem",
    "HeaderView",
    "SkippedSeries",
    "SliceDataset",
    "SliceItem",
    "VolumeDataset",
    "VolumeItem",
    "keep_encoded",
    "with_monai_meta",
]
