"""Lossless recompression of one DICOM file: the same pixels, bit for bit, in fewer bytes.

- `model`: targets, pixel formats, outcomes
- `plan`: whether, and how, an image may be recompressed; no pixel is read
- `frames`: batches of frames to encoded frames, checked; runs in worker processes
- `codecs`, `sources`: the encoders with their decoders, and the decoders of sources that are compressed already
- `codestream`: whether a compressed frame is what its lossless transfer syntax claims
- `dataset`: everything but the pixels, raw, in explicit VR little endian
- `assemble`: the new file
- `transcoder`: all of it, for a file; a small one in a worker process, of others the frames
"""
