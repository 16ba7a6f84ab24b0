"""One colour for one track, in every picture and figure."""

from __future__ import annotations

# Each is the colour farthest, in OKLab, from all before it, and more than twice as far from the three just
# before; among lightness 0.52 to 0.85, which shows on black and on white.
_PALETTE = bytes.fromhex(
    """
        2b97ff e31200 91eb06 407929 7348ef ffb3d9 00f1b8 955900
        af24bc b7afff f0cc00 007780 be0064 37e6ff ffa05e 2866bf
        ec67f9 00aa22 d46b00 6ab1d9 e339b3 00d463 9a8200 5188b8
        ff6fa3 abe17d b057fa 00a19d bf525a c4a600 8978e9 00ccbe
        f62b76 c6935e 7652ad ea97f2 00b079 ff6551 306bff 9b457e
        8bbb00 e39b9c 9cd6ff c15ccb 6c9200 ddc276 b93200 ba85da
        8b2ad0 8eaa5f ffbba8 c9659b 809aec 86e3c9 4e896c ff62ce
        b5008c 00f674 a9774c e084bf f4ab00 72c786 766a00 da7176
    """
)


def color_of(track_id: int) -> tuple[int, int, int]:
    """Red, green, blue, 0..255, of a track; the same everywhere, forever. They repeat after 64 ids."""
    start = 3 * track_id % len(_PALETTE)
    red, green, blue = _PALETTE[start : start + 3]
    return red, green, blue


def hex_of(track_id: int) -> str:
    """:func:`color_of` as ``"#rrggbb"``."""
    return "#" + bytes(color_of(track_id)).hex()


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on a colour: the greater contrast ratio of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)
