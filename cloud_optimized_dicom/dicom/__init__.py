"""One DICOM file: what it is, where its frames lie, what its header says.  Pure on streams."""
