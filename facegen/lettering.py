"""Labels in pictures: a font that has their letters, and shortening to the room that there is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_of(text: str, size: int) -> Font:
    """A font for `text`: Pillow's own or, for letters beyond ASCII, which that lacks, the DejaVu Sans that comes with matplotlib."""
    return _default(size) if text.isascii() else _wide(size)


@lru_cache
def _default(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache
def _wide(size: int) -> Font:
    found = find_spec("matplotlib")  # not imported: that would take a second
    for place in (found and found.submodule_search_locations) or ():
        if (path := Path(place, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")).is_file():
            return ImageFont.truetype(path, size)
    return _default(size)


def width(text: str, size: int) -> float:
    """How many pixels the longest line of `text` takes."""
    font = font_of(text, size)
    return max((font.getlength(line) for line in text.splitlines()), default=0.0)


def shortened(text: str, room: float, size: int) -> str:
    """The line `text` where it fits into `room` pixels, else so much of its beginning as does, and three dots."""
    if width(text, size) <= room:
        return text
    kept = len(text)
    while kept and width(f"{text[:kept]}...", size) > room:
        kept -= 1
    return f"{text[:kept].rstrip()}..."


def in_line(texts: Sequence[tuple[float, str]], start: float, stop: float, size: int) -> list[tuple[float, str]]:
    """`texts`, as (middle, text) from left to right, moved and shortened so that they lie between `start` and `stop` and none on another.

    Where two meet, each has the room up to halfway between them; one that needs less leaves the rest to the other.
    """
    halves = [min(width(text, size), stop - start) / 2 for _, text in texts]
    lefts = [_within(middle, start + half, stop - half) - half for (middle, _), half in zip(texts, halves, strict=True)]
    halfway = [(a + b) / 2 for (a, _), (b, _) in pairwise(texts)]
    rights = [*(max(place, left) - size / 3 for place, left in zip(halfway, lefts[1:], strict=True)), stop]
    placed: list[tuple[float, str]] = []
    for (middle, text), right in zip(texts, rights, strict=True):
        shown = shortened(text, right - start, size)
        half = width(shown, size) / 2
        placed.append((_within(middle, start + half, right - half), shown))
        start = placed[-1][0] + half + size / 3
    return placed


def _within(value: float, least: float, most: float) -> float:
    return max(least, min(value, most))
