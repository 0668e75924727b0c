"""Images as numbers in [-1, 1] and as bytes (the only conversion between the two), PNG files that say where they come from, and grids."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from facegen import lettering
from facegen.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

SHEET_WIDTH = 1000  # pixels that a grid is enlarged to at most, so that small faces can be seen
TOWER = 6  # rows of fewer columns are enlarged no more than if they had so many: they would make a tower
TILING = "tiling"  # the text chunk that says where the tiles of a saved grid lie
GAP, BETWEEN_BANDS = 2, 12  # pixels between tiles, and between bands of rows, or blocks of columns, that belong together
FONT_SIZE, LINE, INK, PAPER = 14, 18, 70, 255


def to_float(images: Tensor) -> Tensor:
    """float32 in [-1, 1] for uint8 `images` of any shape; `to_uint8` is its exact inverse."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """uint8 for float `images` of any shape, rounded to the nearest byte; what lies outside [-1, 1] is clamped."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def write_whole(path: Path, data: bytes) -> None:
    """Puts `data` in place of the file `path`, never a part of it.

    There is no fsync: tens of thousands of samples would wait for the disk, and a PNG's checksums betray one that a power cut
    has spoilt. Raises UserError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; mend that and type the same command again") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def save_png(image: ArrayLike, path: Path, provenance: Mapping[str, str]) -> None:
    """Writes `image` (C,H,W) uint8, grey or colour, as a PNG with a text chunk for each item of `provenance`."""
    notes = PngImagePlugin.PngInfo()
    for key, value in provenance.items():
        notes.add_text(key, value)
    buffer = io.BytesIO()
    to_pil(np.asarray(image)).save(buffer, "PNG", pnginfo=notes)
    write_whole(path, buffer.getvalue())


def read_provenance(path: Path) -> dict[str, str]:
    """The text chunks of the PNG `path`; raises UserError where the file is damaged anywhere."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
            return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken PNG is SyntaxError
        raise UserError(f"{path} is not a readable PNG: delete it, or choose another folder") from error


def read_png(path: Path) -> np.ndarray:
    """The image (C,H,W) uint8 in the PNG `path`, grey or colour."""
    with Image.open(path, formats=["PNG"]) as image:
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def to_pil(image: np.ndarray) -> Image.Image:
    """`image` (C,H,W) uint8, grey or colour, for Pillow."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of a grid lie: `count` images of height x width, each pixel a square of `scale`, in bands of so many rows.

    `block` is how many columns belong together; 0 is all.
    """

    count: int
    columns: int
    height: int
    width: int
    scale: int
    band: int
    top: int = 0
    left: int = 0
    block: int = 0

    @property
    def rows(self) -> int:
        return math.ceil(self.count / self.columns)

    def box(self, i: int) -> tuple[slice, slice]:
        """The rows and columns of pixels that tile `i` covers."""
        tall, wide = self.height * self.scale, self.width * self.scale
        row, column = divmod(i, self.columns)
        y = self.top + row * (tall + GAP) + row // self.band * (BETWEEN_BANDS - GAP)
        x = self.left + column * (wide + GAP) + column // (self.block or self.columns) * (BETWEEN_BANDS - GAP)
        return slice(y, y + tall), slice(x, x + wide)

    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture."""
        down, across = self.box(self.columns * self.rows - 1)
        return down.stop, across.stop


def grid(
    images: ArrayLike,
    *,
    columns: int | None = None,
    scale: int | None = None,
    band: int | None = None,
    block: int = 0,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    corner: str = "",
) -> np.ndarray:
    """One picture (C,H,W) uint8 of `images` (N,C,H,W) uint8, row by row on white.

    `columns` is by default what makes a square. Each pixel becomes a square of `scale` pixels, by default the largest that keeps
    the tiles within `SHEET_WIDTH`. After every `band` rows and `block` columns the gap is wider. Labels stand left of the rows and
    above the columns; `corner`, which says what the rows are, stands beside the latter. Labels of columns that would lie on one another
    are shortened.
    """
    tiles = np.asarray(images)
    tiling = _plan(tiles, columns, scale, band, block, [*row_labels, corner], column_labels)
    return _draw(tiles, tiling, row_labels, column_labels, corner)


def save_grid(
    images: ArrayLike,
    path: Path,
    provenance: Mapping[str, str],
    *,
    columns: int | None = None,
    band: int | None = None,
    block: int = 0,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    corner: str = "",
) -> np.ndarray:
    """Writes `grid` of `images` as a PNG that `split_grid` takes apart again, and returns the picture (C,H,W) uint8."""
    tiles = np.asarray(images)
    tiling = _plan(tiles, columns, None, band, block, [*row_labels, corner], column_labels)
    picture = _draw(tiles, tiling, row_labels, column_labels, corner)
    save_png(picture, path, {**provenance, TILING: json.dumps(asdict(tiling))})
    return picture


def split_grid(path: Path) -> np.ndarray:
    """The images (N,C,H,W) uint8 of a grid that `save_grid` wrote, exactly as they were."""
    try:
        tiling, picture = Tiling(**json.loads(read_provenance(path)[TILING])), read_png(path)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} was not written as a grid of images by this facegen: draw it anew, or give another") from error
    return np.stack([picture[:, *tiling.box(i)][:, :: tiling.scale, :: tiling.scale] for i in range(tiling.count)])


def _plan(
    tiles: np.ndarray,
    columns: int | None,
    scale: int | None,
    band: int | None,
    block: int,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
) -> Tiling:
    count, _, height, width = tiles.shape
    columns = columns or math.ceil(math.sqrt(count))
    across = max(columns, min(TOWER, math.ceil(count / columns)))
    scale = scale or max(1, SHEET_WIDTH // (across * width))
    left = max((math.ceil(lettering.width(label, FONT_SIZE)) + FONT_SIZE for label in row_labels if label), default=0)
    top = 2 * FONT_SIZE + (_lines(column_labels) - 1) * LINE if column_labels else 0
    return Tiling(count, columns, height, width, scale, band or count, top, left, block)


def _lines(labels: Sequence[str]) -> int:
    return max((label.count("\n") + 1 for label in labels), default=0)


def _heads(tiling: Tiling, labels: Sequence[str], line: int) -> list[tuple[float, str]]:
    """What stands in a line, counted from below, above the columns, as (middle, text)."""
    lines = [label.split("\n")[::-1] for label in labels]
    spans = [tiling.box(column)[1] for column in range(len(labels))]
    return [((span.start + span.stop) / 2, texts[line]) for span, texts in zip(spans, lines, strict=True) if texts[line:] and texts[line]]


def _draw(tiles: np.ndarray, tiling: Tiling, row_labels: Sequence[str], column_labels: Sequence[str], corner: str) -> np.ndarray:
    picture = np.full((tiles.shape[1], *tiling.size()), PAPER, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        picture[:, *tiling.box(i)] = tile.repeat(tiling.scale, 1).repeat(tiling.scale, 2)
    if not row_labels and not column_labels:
        return picture
    canvas = to_pil(picture)
    draw, ink = ImageDraw.Draw(canvas), INK if len(picture) == 1 else (INK,) * 3
    for row, label in enumerate(row_labels):
        down, _ = tiling.box(row * tiling.columns)
        font, middle = lettering.font_of(label, FONT_SIZE), (down.start + down.stop) / 2
        draw.text((tiling.left - FONT_SIZE / 2, middle), label, ink, font, anchor="rm", align="right")
    lowest = tiling.top - FONT_SIZE
    for line in range(_lines(column_labels)):
        start = tiling.left - FONT_SIZE / 4 if corner and not line else 0
        for middle, text in lettering.in_line(_heads(tiling, column_labels, line), start, canvas.width, FONT_SIZE):
            draw.text((middle, lowest - line * LINE), text, ink, lettering.font_of(text, FONT_SIZE), anchor="mm")
    draw.text((tiling.left - FONT_SIZE / 2, lowest), corner, ink, lettering.font_of(corner, FONT_SIZE), anchor="rm")
    pixels = np.asarray(canvas)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
