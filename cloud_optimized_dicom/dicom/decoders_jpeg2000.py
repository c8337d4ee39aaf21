"""JPEG 2000 and HTJ2K frames by imagecodecs: OpenJPEG and OpenJPH, which decode beside other threads.

What a codestream's main header asks of a decoder is bounded first: a few bytes of it can cost gigabytes and minutes, or
end the process.
"""

from __future__ import annotations

import importlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_optimized_dicom.dicom.decoders_pixels import CODEC_ERRORS, PixelError, extend_sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from cloud_optimized_dicom.dicom.decoders_codestream import Codestream
    from cloud_optimized_dicom.dicom.decoders_pixels import ImagePixels

HTJ2K_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})
"""High-Throughput JPEG 2000 (PS3.5 section A.4.4)."""
JPEG2000_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
"""JPEG 2000 Part 1 (PS3.5 section A.4.4)."""

_SOC, _SOT = b"\xff\x4f", b"\xff\x90"
_SIZ, _COD, _COC, _QCD, _QCC = 0x51, 0x52, 0x53, 0x5C, 0x5D  # ISO/IEC 15444-1 table A.2
_ONCE = frozenset({_SIZ, _COD, _QCD})
_SIZ_BYTES, _COD_BYTES = 36, 10  # the fixed parts, behind the length
_WIDE_COMPONENTS = 257  # from this number on, two bytes number a component
_MAX_LEVELS, _MAX_BLOCK_EXPONENT, _MAX_TILES = 32, 8, 65535
_FREE_TILES, _TILE_PIXELS = 64, 1024
_FREE_PRECINCTS, _PRECINCT_PIXELS = 4096, 64


@dataclass(frozen=True, slots=True)
class _Style:
    """How components are coded (ISO/IEC 15444-1 tables A.13, A.15, A.20 and A.21).

    Parameters
    ----------
    precincts
        Per resolution, the exponents of a precinct's width (low four bits) and height; empty: one precinct.
    is_whole
        Whether the segment has the length that its levels ask for.
    """

    levels: int
    width_exponent: int
    height_exponent: int
    precincts: bytes
    is_whole: bool

    @classmethod
    def parse(cls, flags: bytes, body: bytes) -> _Style:
        """Return the style of Scod or Scoc, as one byte, and the parameters SPcod or SPcoc."""
        levels, width, height = (*body[:3], 0, 0, 0)[:3]
        has_precincts = bool(flags) and flags[0] & 1 == 1
        precincts = body[5:] if has_precincts else b""
        whole = len(body) == 5 + (levels + 1 if has_precincts else 0)
        return cls(levels, width, height, precincts, whole)


class _MainHeader:
    """The marker segments before the first tile."""

    def __init__(self, encoded: bytes) -> None:
        self.segments: list[tuple[int, bytes]] = []
        self.is_whole = False
        position = 2
        while position + 4 <= len(encoded) and encoded[position] == 0xFF:  # noqa: PLR2004 (what begins a marker)
            if encoded[position : position + 2] == _SOT:
                self.is_whole = position + 12 <= len(encoded)
                return
            length = int.from_bytes(encoded[position + 2 : position + 4], "big")
            if length < 2:  # noqa: PLR2004 (its own)
                return
            self.segments.append((encoded[position + 1], encoded[position + 4 : position + 2 + length]))
            position += 2 + length

    def all(self, marker: int) -> list[bytes]:
        return [segment for found, segment in self.segments if found == marker]

    def first(self, marker: int) -> bytes:
        return next(iter(self.all(marker)), b"")

    @property
    def grid(self) -> tuple[int, ...]:
        """Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz and YTOsiz; all 0 where there is no SIZ."""
        size = self.first(_SIZ)
        return struct.unpack_from(">8L", size, 2) if len(size) >= _SIZ_BYTES else (0,) * 8

    @property
    def components(self) -> list[bytes]:
        """Per component, its depth and what it is subsampled by."""
        size = self.first(_SIZ)
        return [size[start : start + 3] for start in range(_SIZ_BYTES, len(size), 3)]

    def styles(self) -> Iterator[_Style]:
        for segment in self.all(_COD):
            yield _Style.parse(segment[:1], segment[5:])
        for segment in self._per_component(_COC):
            yield _Style.parse(segment[:1], segment[1:])

    def quantizations(self) -> list[bytes]:
        return [*self.all(_QCD), *self._per_component(_QCC)]

    def _per_component(self, marker: int) -> list[bytes]:
        number_bytes = 1 if len(self.components) < _WIDE_COMPONENTS else 2
        return [segment[number_bytes:] for segment in self.all(marker)]


def decode_jpeg2000(
    encoded: bytes, pixels: ImagePixels, codestream: Codestream, transfer_syntax_uid: str
) -> tuple[NDArray[Any], str] | None:
    """Return a frame as an array, and the photometric interpretation of what came out.

    Returns
    -------
    None
        Where imagecodecs is not installed or does not take the frame, which another decoder may do.

    Raises
    ------
    PixelError
        If the codestream is damaged, or asks for more than a frame of its size needs.
    """
    if not encoded.startswith(_SOC):
        return None  # with JP2 boxes around it
    header = _MainHeader(encoded)
    _require_bounded(header)
    if len(set(header.components)) != 1 or codestream.components != pixels.samples_per_pixel:
        return None
    decoded = np.empty(pixels.shape, _container(codestream))
    decode = _into_htj2k if transfer_syntax_uid in HTJ2K_SYNTAXES else _into_jpeg2000
    if not decode(header, encoded, decoded):
        return None
    signed = pixels.dtype.kind == "i"
    array = np.array(decoded.view(f"{'i' if signed else 'u'}{decoded.itemsize}"), pixels.dtype, copy=None)
    photometric = pixels.photometric_interpretation
    if photometric.startswith("MONOCHROME") and codestream.is_signed != signed:
        array = extend_sign(array, min(codestream.precision, 8 * array.dtype.itemsize))
    return array, "RGB" if photometric in {"YBR_RCT", "YBR_ICT"} else photometric


def decode_htj2k(encoded: bytes, out: NDArray[Any]) -> None:
    """Decode an HTJ2K codestream by OpenJPH.

    Parameters
    ----------
    out
        Of the frame's shape, colour by pixel, and of the type of the codestream's samples.

    Raises
    ------
    PixelError
        If the codestream is damaged, or asks for more than a frame of its size needs.
    ImportError, RuntimeError, TypeError, ValueError
        From imagecodecs: it is not there, or does not take the frame.
    """
    header = _MainHeader(encoded)
    _require_bounded(header)
    if not _is_sound(header):
        raise PixelError("the JPEG 2000 main header is damaged")
    if not _filled_by(importlib.import_module("imagecodecs").htj2k_decode, encoded, out):
        raise PixelError("OpenJPH finds the codestream damaged")


def _container(codestream: Codestream) -> str:
    size = 1 if codestream.precision <= 8 else 2 if codestream.precision <= 16 else 4  # noqa: PLR2004 (bits)
    return f"{'i' if codestream.is_signed else 'u'}{size}"


def _into_htj2k(header: _MainHeader, encoded: bytes, out: NDArray[Any]) -> bool:
    if header.all(_COC):
        return False  # OpenJPH trusts what they say; OpenJPEG does not
    try:
        decode_htj2k(encoded, out)
    except PixelError:
        raise
    except (ImportError, *CODEC_ERRORS):  # ImportError: no imagecodecs, or one without OpenJPH
        return False
    return True


def _into_jpeg2000(header: _MainHeader, encoded: bytes, out: NDArray[Any]) -> bool:
    del header
    try:
        importlib.import_module("imagecodecs").jpeg2k_decode(encoded, planar=False, numthreads=1, out=out)
    except (ImportError, *CODEC_ERRORS):
        return False
    return True


def require_bounded(encoded: bytes) -> None:
    """Refuse a JPEG 2000 codestream that divides a frame into so many parts that a decoder would not come back.

    Raises
    ------
    PixelError
        If the tiles or precincts are far more than a frame of its size has use for.

    Notes
    -----
    Decoders take kilobytes for each tile and precinct that is announced, before they look for its bytes.  What they do
    for a main header that is not whole is left to them.
    """
    _require_bounded(_MainHeader(encoded))


def _require_bounded(header: _MainHeader) -> None:
    right, bottom, left, top, tile_width, tile_height, *_ = header.grid
    width, height = right - left, bottom - top
    if min(width, height, tile_width, tile_height) <= 0:
        return
    tiles = -(-width // tile_width) * -(-height // tile_height)
    if tiles > _FREE_TILES + width * height // _TILE_PIXELS:
        raise PixelError("the codestream has too many tiles for its size")
    for style in header.styles():
        if _precincts(style, width, height) > _FREE_PRECINCTS + width * height // _PRECINCT_PIXELS:
            raise PixelError("the codestream has too many precincts for its size")


def _precincts(style: _Style, width: int, height: int) -> int:
    """Return about how many precincts a component has (ISO/IEC 15444-1 section B.6), tiles left aside."""
    found = 0
    for resolution, exponents in enumerate(style.precincts[: _MAX_LEVELS + 1]):
        reduced = max(style.levels - resolution, 0)
        across, down = (-(-size // (1 << min(reduced, _MAX_LEVELS))) for size in (width, height))
        found += -(-across // (1 << (exponents & 15))) * -(-down // (1 << (exponents >> 4)))
    return found


def _is_sound(header: _MainHeader) -> bool:
    """Whether the main header is whole, and SIZ, COD, QCD and QCC have the lengths that they ask of each other.

    Notes
    -----
    Any other would end a process in which OpenJPH decodes it.
    """
    size, style = header.first(_SIZ), next(header.styles(), None)
    if not header.is_whole or style is None or not header.all(_QCD) or header.all(_COC):
        return False
    steps = {0: 1 + 1 + 3 * style.levels, 1: 3, 2: 1 + 2 * (1 + 3 * style.levels)}
    return (
        all(len(header.all(marker)) == 1 for marker in _ONCE)
        and len(size) == _SIZ_BYTES + 3 * int.from_bytes(size[34:36], "big")
        and all(min(component[1:]) > 0 for component in header.components)
        and _are_sound_tiles(header.grid)
        and len(header.first(_COD)) >= _COD_BYTES
        and _is_sound_style(style)
        and all(len(item) == steps.get(item[0] & 0x1F if item else -1) for item in header.quantizations())
    )


def _is_sound_style(style: _Style) -> bool:
    exponents = style.width_exponent, style.height_exponent
    return (
        style.is_whole
        and style.levels <= _MAX_LEVELS
        and max(exponents) <= _MAX_BLOCK_EXPONENT
        and sum(exponents) <= _MAX_BLOCK_EXPONENT
        # But for the lowest resolution, a precinct of one sample has no part in every subband (section B.6).
        and all(item & 15 and item >> 4 for item in style.precincts)
    )


def _are_sound_tiles(grid: tuple[int, ...]) -> bool:
    """Whether the first tile meets the image and there are no more tiles than can be numbered (section B.3)."""
    tiles = 1
    for stop, start, tile, tile_start in zip(grid[:2], grid[2:4], grid[4:6], grid[6:], strict=True):
        if not (tile > 0 and tile_start <= start < min(stop, tile_start + tile)):
            return False
        tiles *= -(-(stop - tile_start) // tile)
    return tiles <= _MAX_TILES


def _filled_by(decode: Callable[..., Any], encoded: bytes, out: NDArray[Any]) -> bool:
    """Decode into an array and return whether that reached its last row.

    Notes
    -----
    imagecodecs says nothing of what OpenJPH finds within the rows: it leaves those that follow as they were.
    """
    for fill in (0x55, 0xAA):
        out.view(np.uint8)[...] = fill
        untouched = out[-1].copy()
        decode(encoded, planar=False, out=out)
        if not (out[-1] == untouched).all(axis=0).any():
            return True
    return False
