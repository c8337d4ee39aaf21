"""``python -m cloud_optimized_dicom.cli``: the same as ``cod``."""

from cloud_optimized_dicom.cli import run

if __name__ == "__main__":
    run()
