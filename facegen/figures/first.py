"""The first seeds, chosen by nobody: 16 faces large enough to be looked at and, beside them, the 64 that come next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ImageDraw

from facegen import images, lettering
from facegen.figures.scene import Picture
from facegen.studio import Studio

LARGE, SMALL = 4, 8  # faces at a side of the two blocks
COUNT = LARGE**2 + SMALL**2
LARGE_GAP, SMALL_GAP = 7, 3  # pixels between faces: 3 gaps of the one are 7 of the other, so that both blocks are equally high
FONT_SIZE, BETWEEN, TOP = 20, 32, 40  # the titles, and pixels between the blocks and above them
WIDTH = 2 * images.SHEET_WIDTH  # that the two blocks are enlarged to at most


@dataclass(frozen=True)
class Block:
    """Where the faces of a block lie: `side` x `side` of them, each of its height x width pixels a square of `scale`."""

    side: int
    height: int
    width: int
    scale: int
    gap: int
    left: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the block."""
        gaps = (self.side - 1) * self.gap
        return self.side * self.height * self.scale + gaps, self.side * self.width * self.scale + gaps

    def boxes(self) -> Iterator[tuple[slice, slice]]:
        """The rows and columns of pixels of the whole picture that each face covers."""
        tall, wide = self.height * self.scale, self.width * self.scale
        for i in range(self.side**2):
            row, column = divmod(i, self.side)
            y, x = TOP + row * (tall + self.gap), self.left + column * (wide + self.gap)
            yield slice(y, y + tall), slice(x, x + wide)


def blocks(height: int, width: int) -> tuple[Block, Block]:
    """The large and the small block of faces of height x width pixels: a large face is twice a small one."""
    scale = max(1, WIDTH // (2 * SMALL * width))
    large = Block(LARGE, height, width, 2 * scale, LARGE_GAP, 0)
    return large, Block(SMALL, height, width, scale, SMALL_GAP, large.size[1] + BETWEEN)


def plan(studio: Studio, seeds: range) -> Picture:
    """The figure of `COUNT` seeds from the first of `seeds` on, thought through and not yet drawn."""
    seeds = range(seeds[0], seeds[0] + COUNT)
    large, small = seeds[: LARGE**2], seeds[LARGE**2 :]
    shown = {"seeds": seeds, "large": large, "small": small}
    spans = {name: f"{part[0]}..{part[-1]}" for name, part in shown.items()}
    titles = [f"seeds {part[0]} to {part[-1]}" for part in (large, small)]
    return Picture([(studio, seeds, None)], partial(save_first, titles=titles), {**studio.facts, "figure": "first", **spans})


def save_first(tiles: np.ndarray, path: Path, facts: Mapping[str, str], *, titles: list[str]) -> np.ndarray:
    """Writes the images `tiles` (COUNT,C,H,W) uint8 as a PNG, a title above each block, and returns the picture."""
    _, channels, height, width = tiles.shape
    parts = blocks(height, width)
    picture = np.full((channels, TOP + parts[0].size[0], parts[1].left + parts[1].size[1]), images.PAPER, dtype=np.uint8)
    places = [(box, block.scale) for block in parts for box in block.boxes()]
    for tile, (box, scale) in zip(tiles, places, strict=True):
        picture[:, *box] = tile.repeat(scale, 1).repeat(scale, 2)
    canvas = images.to_pil(picture)
    draw, ink = ImageDraw.Draw(canvas), images.INK if channels == 1 else (images.INK,) * 3
    for title, block in zip(titles, parts, strict=True):
        font = lettering.font_of(title, FONT_SIZE)
        draw.text((block.left + block.size[1] / 2, TOP / 2), title, ink, font, anchor="mm")
    pixels = np.asarray(canvas)
    drawn = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    images.save_png(drawn, path, facts)
    return drawn
