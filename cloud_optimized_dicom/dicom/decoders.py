"""Frames that need a codec: imagecodecs for JPEG 2000 and HTJ2K, and pydicom's decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from cloud_optimized_dicom.dicom.decoders_codestream import (
    Codestream,
    parse_codestream,
    require_plausible,
    require_sound_jpeg,
)
from cloud_optimized_dicom.dicom.decoders_jpeg2000 import HTJ2K_SYNTAXES, JPEG2000_SYNTAXES, decode_jpeg2000
from cloud_optimized_dicom.dicom.decoders_pixels import CODEC_ERRORS, PixelError, UnsupportedPixelError
from cloud_optimized_dicom.errors import MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.pixels.decoders.base import Decoder

    from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_PLUGINS = {
    # libjpeg (of pylibjpeg) clamps where samples of JPEG Lossless wrap around (ISO/IEC 10918-1 annex H).
    "1.2.840.10008.1.2.4.57": ("gdcm",),
    "1.2.840.10008.1.2.4.70": ("gdcm",),
    # libjpeg-turbo rounds as GDCM does, which pydicom prefers; pylibjpeg differs by a few grey levels.
    _JPEG_BASELINE: ("pillow", "gdcm"),
    "1.2.840.10008.1.2.4.51": ("pillow", "pylibjpeg"),
}
_OTHER_PLUGINS = ("pylibjpeg", "pyjpegls", "pillow")
"""pydicom's plugins in the order in which a frame is tried.

A damaged frame can end a process in which GDCM decodes it, so that GDCM is asked only where its result is the right
one, and after :func:`require_sound_jpeg`.
"""
_RGB_IDS = frozenset({b"RGB", b"rgb"})
_OURS = ("gdcm", "pylibjpeg")  # pydicom's names of what the extra installs


def decode_compressed(encoded: bytes, pixels: ImagePixels, transfer_syntax_uid: str) -> tuple[NDArray[Any], str]:
    """Return a compressed frame as an array, and the photometric interpretation of what came out.

    Raises
    ------
    PixelError
        If no decoder can read it, or it cannot be what the header claims.
    UnsupportedPixelError
        If there is no decoder for the transfer syntax.
    MissingDependencyError
        If there is one, but it is not installed.
    """
    codestream = parse_codestream(encoded)
    if transfer_syntax_uid in HTJ2K_SYNTAXES | JPEG2000_SYNTAXES:
        decoded = decode_jpeg2000(encoded, pixels, require_plausible(encoded, codestream, pixels), transfer_syntax_uid)
        if decoded is not None:
            return decoded
    decoder, plugins = _find_decoder(transfer_syntax_uid)
    require_plausible(encoded, codestream, pixels)
    return _decode_by_pydicom(encoded, pixels, codestream, decoder, plugins)


def _find_decoder(transfer_syntax_uid: str) -> tuple[Decoder, list[str]]:
    """Return pydicom's decoder of a syntax and the plugins to use, the best first."""
    try:
        decoder = get_decoder(transfer_syntax_uid)
    except NotImplementedError:
        raise UnsupportedPixelError("there is no decoder for this transfer syntax") from None
    wanted = _PLUGINS.get(transfer_syntax_uid, _OTHER_PLUGINS)
    plugins = [plugin for plugin in wanted if plugin in decoder.available_plugins]
    if not plugins:
        raise MissingDependencyError(f"decoding {UID(transfer_syntax_uid).name}", "codecs")
    return decoder, plugins


def _decode_by_pydicom(
    encoded: bytes, pixels: ImagePixels, codestream: Codestream | None, decoder: Decoder, plugins: list[str]
) -> tuple[NDArray[Any], str]:
    named = _named_colours(codestream, pixels, str(decoder.UID))
    encoded, photometric = _unquestionable(encoded, codestream, named)
    value = encapsulate([encoded], has_bot=False)
    options: dict[str, Any] = {  # not validated by pydicom: it warns of what is checked here already
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": pixels.samples_per_pixel,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": pixels.pixel_representation,
        "planar_configuration": int(pixels.by_plane),
        "photometric_interpretation": photometric,
        "number_of_frames": 1,
    }
    for plugin in plugins:
        if plugin == "gdcm":
            require_sound_jpeg(encoded, pixels)
        try:
            array, properties = decoder.as_array(
                value, index=0, raw=True, validate=False, decoding_plugin=plugin, **options
            )
        except CODEC_ERRORS:
            continue  # what pydicom says holds values of the header: it is neither quoted nor chained
        decoded = str(properties["photometric_interpretation"])  # JPEG 2000 undoes its own transform
        return array, named if decoded == photometric else decoded
    raise PixelError(_refusal(decoder))


def _refusal(decoder: Decoder) -> str:
    missing = [name for name in _OURS for text in decoder.missing_dependencies if text.startswith(f"{name} ")]
    hint = f"; not all decoders of the extra 'codecs' are installed ({', '.join(missing)})" if missing else ""
    return f"no decoder can read it{hint}"


def _named_colours(codestream: Codestream | None, pixels: ImagePixels, transfer_syntax_uid: str) -> str:
    """Return the photometric interpretation that a JPEG frame itself names, or else the header's.

    Notes
    -----
    As pydicom concludes from the identifiers of the components and the JFIF marker, which it warns of.
    """
    photometric = pixels.photometric_interpretation
    if codestream is None or pixels.samples_per_pixel == 1:
        return photometric
    if codestream.component_ids in _RGB_IDS and photometric != "RGB":
        return "RGB"
    if codestream.jfif_at is not None and "YBR" not in photometric:
        return "YBR_FULL_422" if transfer_syntax_uid == _JPEG_BASELINE else "YBR_FULL"
    return photometric


def _unquestionable(encoded: bytes, codestream: Codestream | None, photometric: str) -> tuple[bytes, str]:
    """Return a frame and a photometric interpretation that pydicom finds nothing to warn of; same samples."""
    if codestream is None or codestream.component_ids not in _RGB_IDS:
        return encoded, photometric
    if codestream.jfif_at is not None:
        encoded = encoded[: codestream.jfif_at] + b"none" + encoded[codestream.jfif_at + 4 :]
    return encoded, "RGB"
