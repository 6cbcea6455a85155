"""The header of a JPEG XL codestream: size, samples and colours (ISO 18181-1, B, D.2, D.3, E.2)."""

from __future__ import annotations

from dataclasses import dataclass

from restormer_cli.errors import ImageError
from restormer_cli.images.metadata.exif import TRANSPOSED

#: More bytes than the fields take, unless channels have long names.
HEADER_BYTES = 4096
#: Width by height, where the header names their ratio (D.2).
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
#: Kinds of channels beside the colours (D.3.6).
ALPHA, SPOT, BLACK, CFA = 0, 2, 4, 5
#: Kinds of colours, of white points and of primaries (E.2).
GRAY, XYB = 1, 2
D65, SRGB, CUSTOM = 1, 1, 2
#: x and y of white, of red, green and blue.
WHITES = {D65: (0.3127, 0.3290), 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
PRIMARIES = {
    SRGB: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
#: White and primaries, and their number in ITU-T H.273, which has those of the transfers, too.
CODE_POINTS = {(D65, SRGB): 1, (D65, 9): 9, (D65, 11): 12, (11, 11): 11}
UNKNOWN = 2
#: Exponents that are near to a transfer, for readers that know no other.
GAMMAS = {8: 1.0, 13: 0.45455}


@dataclass
class Header:
    """What the header says of the picture (D.2, D.3), as far as it matters here."""

    height: int = 0
    width: int = 0
    """As stored, not turned yet."""
    orientation: int = 1
    animated: bool = False
    bits: int = 8
    extras: tuple[int, ...] = ()
    """Kinds of the channels beside colours."""
    multiplied: bool = False
    """True if alpha has darkened the colours."""
    lossy: bool = True
    """True if colours are those of the XYB space, which the decoder turns into others."""
    profile: bool = False
    """True if an ICC profile says which colours they are."""
    code_points: tuple[int, int] | None = (1, 13)
    """Primaries and transfer as in ITU-T H.273; None if it has no numbers for them."""
    gamma: float | None = None
    """The exponent that light was stored by, if there is one."""
    chromaticities: tuple[float, ...] = ()
    """White, red, green, blue, x before y; empty for gray."""

    @property
    def upright(self) -> tuple[int, int]:
        if self.orientation in TRANSPOSED:
            return self.width, self.height
        return self.height, self.width


class _Bits:
    """Fields of a header, of which the first one is in the lowest bits."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ImageError("is a JPEG XL file that is cut off")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def flag(self) -> bool:
        return bool(self.take(1))

    def number(self, *ways: tuple[int, int]) -> int:
        """One of four ways: so many bits, and what is to be added (B.2)."""
        bits, offset = ways[self.take(2)]
        return self.take(bits) + offset

    def kind(self) -> int:
        return self.number((0, 0), (0, 1), (4, 2), (6, 18))


def read_header(data: bytes) -> Header:
    """Read the first bytes of a codestream.

    Raises
    ------
    ImageError
        If there are not enough of them.
    """
    bits, header = _Bits(data), Header()
    bits.take(16)
    header.height, header.width = _read_size(bits)
    if bits.flag():  # all as usual
        return header
    if bits.flag():
        header.orientation = 1 + bits.take(3)
        if bits.flag():
            _read_size(bits)  # at which it is meant to be shown
        if bits.flag():
            _read_preview_size(bits)
        header.animated = bits.flag()
        if header.animated:
            bits.number((0, 100), (0, 1000), (10, 1), (30, 1))
            bits.number((0, 1), (0, 1001), (8, 1), (10, 1))
            bits.number((0, 0), (3, 0), (16, 0), (32, 0))
            bits.flag()
    header.bits = _read_depth(bits)
    bits.flag()
    count = bits.number((0, 0), (0, 1), (4, 2), (12, 1))
    header.extras = tuple(_read_channel(bits, header) for _ in range(count))
    header.lossy = bits.flag()
    _read_colours(bits, header)
    return header


def _read_size(bits: _Bits) -> tuple[int, int]:
    small = bits.flag()

    def side() -> int:
        if small:
            return 8 * (1 + bits.take(5))
        return bits.number((9, 1), (13, 1), (18, 1), (30, 1))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return height, side()
    numerator, denominator = RATIOS[ratio - 1]
    return height, height * numerator // denominator


def _read_preview_size(bits: _Bits) -> None:
    eighths = bits.flag()

    def side() -> None:
        if eighths:
            bits.number((0, 16), (0, 32), (5, 1), (9, 33))
        else:
            bits.number((6, 1), (8, 65), (10, 321), (12, 1345))

    side()
    if not bits.take(3):
        side()


def _read_depth(bits: _Bits) -> int:
    if bits.flag():  # floating point
        depth = bits.number((0, 32), (0, 16), (0, 24), (6, 1))
        bits.take(4)
        return depth
    return bits.number((0, 8), (0, 10), (0, 12), (6, 1))


def _read_channel(bits: _Bits, header: Header) -> int:
    if bits.flag():
        return ALPHA
    kind = bits.kind()
    _read_depth(bits)
    bits.number((0, 0), (0, 3), (0, 4), (3, 1))
    bits.take(8 * bits.number((0, 0), (4, 0), (5, 16), (10, 48)))
    if kind == ALPHA:
        header.multiplied |= bits.flag()
    elif kind == SPOT:
        bits.take(4 * 16)
    elif kind == CFA:
        bits.number((0, 1), (2, 0), (4, 3), (8, 19))
    return kind


def _read_colours(bits: _Bits, header: Header) -> None:
    if bits.flag():  # sRGB
        return
    header.profile = bits.flag()
    space = bits.kind()
    if header.profile or space == XYB:
        return
    white = bits.kind()
    points = list(_read_point(bits) if white == CUSTOM else WHITES.get(white, WHITES[D65]))
    primaries = SRGB
    if space != GRAY:
        primaries = bits.kind()
        if primaries == CUSTOM:
            points += [value for _ in range(3) for value in _read_point(bits)]
        else:
            points += PRIMARIES.get(primaries, PRIMARIES[SRGB])
        header.chromaticities = tuple(points)
    if bits.flag():
        header.gamma, transfer = bits.take(24) / 1e7, UNKNOWN
    else:
        transfer = bits.kind()
    number = CODE_POINTS.get((white, primaries))
    header.code_points = None if number is None or header.gamma else (number, transfer)
    header.gamma = header.gamma or GAMMAS.get(transfer)


def _read_point(bits: _Bits) -> tuple[float, float]:
    def coordinate() -> float:
        value = bits.number((19, 0), (19, 1 << 19), (20, 1 << 20), (21, 1 << 21))
        # It counts 0, -1, 1, -2, 2 and so on.
        return (-(value + 1) // 2 if value & 1 else value // 2) / 1e6

    return coordinate(), coordinate()
