"""A triangle of faces: three things at its corners, and what lies between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import ImageDraw

from facegen import images, lettering
from facegen.errors import UserError

TRIANGLE = "triangle"  # the text chunk that says where the tiles lie
FONT_SIZE, MARGIN = 20, 12


def shares(side: int) -> list[tuple[float, float, float]]:
    """What each place of a triangle of `side` faces a side has of its corners: first the top, then left and right; row by row."""
    most = side - 1
    return [((most - row) / most, (row - column) / most, column / most) for row in range(side) for column in range(row + 1)]


@dataclass(frozen=True)
class Triangle:
    """Where the tiles of a triangle lie: 1, 2 .. `side` of them in a row, height x width, each pixel a square of `scale`."""

    side: int
    height: int
    width: int
    scale: int
    top: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture; below the last row there is as much room as above the first."""
        tall, wide = self.height * self.scale + images.GAP, self.width * self.scale + images.GAP
        return self.side * tall + 2 * self.top, self.side * wide + 2 * MARGIN

    def boxes(self) -> Iterator[tuple[slice, slice]]:
        """The rows and columns of pixels that each tile covers."""
        tall, wide = self.height * self.scale, self.width * self.scale
        for row in range(self.side):
            for column in range(row + 1):
                y = self.top + row * (tall + images.GAP)
                x = MARGIN + (self.side - 1 - row) * (wide + images.GAP) // 2 + column * (wide + images.GAP)
                yield slice(y, y + tall), slice(x, x + wide)


def save_triangle(tiles: np.ndarray, path: Path, provenance: Mapping[str, str], *, corners: Sequence[str]) -> np.ndarray:
    """Writes `tiles` (N,C,H,W) uint8, row by row from the top, as a PNG that `split_triangle` takes apart again; returns the picture.

    `corners` name what is at the top, at the left and at the right; they are shortened where there is no room for them.
    """
    side, (_, channels, height, width) = round((2 * len(tiles)) ** 0.5 - 0.5), tiles.shape
    triangle = Triangle(side, height, width, max(1, images.SHEET_WIDTH // (side * width)), FONT_SIZE + 2 * MARGIN)
    picture = np.full((channels, *triangle.size), images.PAPER, dtype=np.uint8)
    for tile, box in zip(tiles, triangle.boxes(), strict=True):
        picture[:, *box] = tile.repeat(triangle.scale, 1).repeat(triangle.scale, 2)
    canvas = images.to_pil(picture)
    draw, ink = ImageDraw.Draw(canvas), images.INK if channels == 1 else (images.INK,) * 3
    above, below, ends = triangle.top / 2, canvas.height - triangle.top / 2, (MARGIN, canvas.width - MARGIN)
    for y, places in ((above, [canvas.width / 2]), (below, ends)):
        texts, corners = list(zip(places, corners, strict=False)), corners[len(places) :]
        for x, text in lettering.in_line(texts, *ends, FONT_SIZE):
            draw.text((x, y), text, ink, lettering.font_of(text, FONT_SIZE), anchor="mm")
    pixels = np.asarray(canvas)
    drawn = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    images.save_png(drawn, path, {**provenance, TRIANGLE: json.dumps(asdict(triangle))})
    return drawn


def split_triangle(path: Path) -> np.ndarray:
    """The images (N,C,H,W) uint8 of a triangle that `save_triangle` wrote, exactly as they were."""
    try:
        triangle, picture = Triangle(**json.loads(images.read_provenance(path)[TRIANGLE])), images.read_png(path)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} was not written as a triangle of images by this facegen: draw it anew, or give another") from error
    return np.stack([picture[:, *box][:, :: triangle.scale, :: triangle.scale] for box in triangle.boxes()])
