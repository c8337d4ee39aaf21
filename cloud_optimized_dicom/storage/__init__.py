"""Where bytes live: one protocol, an adapter per kind of store.  Nothing here knows DICOM."""
