"""Synthetic DICOM files, made with pydicom: what real collections lack, and series and instances of any size.

Deterministic: the same arguments give the same bytes.  The callers own the sizes.

- `series`: a CT-like series of many single-frame instances
- `slides`: a whole-slide-like instance of many JPEG tiles
- `large`: one instance of any size, written as a stream
- `kinds`: small instances of every kind of pixel data and encoding
- `damaged`: files that are broken or hostile
- `sizes`: how many instances and bytes the series of a large collection have, and draws from that
"""
