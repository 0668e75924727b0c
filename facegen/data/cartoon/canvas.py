"""A batch of pictures painted with soft-edged shapes: coordinates, distances and coverage.

Arrays are laid out (height, width, batch): numbers of one person, shape (B,), then broadcast over the picture without an axis
being added, and a rectangle cut out of the pictures stays contiguous along the batch, which is what keeps small pictures fast.
Only +, -, *, /, square roots, minima and maxima touch a pixel. These are exactly rounded whatever the length of the array, so
a picture does not depend on the batch it is painted in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facegen.data.cartoon.anatomy import Face

Box = tuple[float, float, float, float]
"""Left, right, top and bottom of what a layer may touch, in face units (see `Face`)."""


@dataclass(frozen=True)
class Layer:
    """One step of painting: `paint` is called for the pictures `where` says, on the pixels of `box`."""

    paint: Callable[[Patch], None]
    box: Box
    where: Callable[[Face], np.ndarray] | None = None


@dataclass
class Patch:
    """The pixels one layer may touch: coordinates `x` and `y` (h, w, n) in face units, the n `face`s, `rgb` (3, h, w, n)."""

    x: np.ndarray
    y: np.ndarray
    face: Face
    rgb: np.ndarray
    pixels_per_unit: np.ndarray

    def fill(
        self,
        distance: np.ndarray,
        colour: np.ndarray,
        opacity: np.ndarray | float | None = None,
        blur: float = 0.0,
    ) -> None:
        """Paint `colour` (3, n) where `distance` (h, w, n) is negative, with an edge one pixel plus `blur` units wide."""
        coverage = distance * (-self.pixels_per_unit / (1 + blur * self.pixels_per_unit))
        coverage += 0.5
        np.maximum(coverage, 0, out=coverage)
        np.minimum(coverage, 1, out=coverage)
        if opacity is not None:
            coverage *= opacity
        change = colour[:, None, None, :] - self.rgb
        change *= coverage
        self.rgb += change


class Canvas:
    """Square pictures of `face`s, (3, resolution, resolution, B) float32 in [0, 255], on a vertical gradient."""

    def __init__(self, face: Face, resolution: int) -> None:
        centres = (np.arange(resolution, dtype=np.float32) * 2 + 1) / resolution - 1
        self.face = face
        self.u = centres[None, :, None]
        self.v = centres[:, None, None]
        blend = (self.v + 1) / 2
        backdrop = face.backdrop[:, None, None, :]
        column = backdrop + blend * (face.backdrop_low[:, None, None, :] - backdrop)
        self.rgb = np.broadcast_to(column, (3, resolution, resolution, len(face.scale))).copy()

    def paint(self, layer: Layer) -> None:
        """Add one layer to the pictures that have it."""
        rows = None if layer.where is None else np.flatnonzero(layer.where(self.face))
        if rows is not None and len(rows) == 0:
            return
        face = self.face if rows is None else self.face.select(rows)
        top, bottom, left, right = self._pixels(layer.box, face)
        if top >= bottom or left >= right:
            return
        area = self.rgb[:, top:bottom, left:right]
        u, v = (self.u[:, left:right] - face.dx) / face.scale, (self.v[top:bottom] - face.dy) / face.scale
        x, y = face.cos * u + face.sin * v, face.cos * v - face.sin * u
        patch = Patch(x, y, face, area if rows is None else area[..., rows], face.scale * (self.rgb.shape[1] / 2))
        layer.paint(patch)
        if rows is not None:
            area[..., rows] = patch.rgb

    def _pixels(self, box: Box, face: Face) -> tuple[int, int, int, int]:
        """Rows and columns that hold `box` in each of the pictures, and one more pixel for the soft edge."""
        size = self.rgb.shape[1]
        left, right, top, bottom = box
        corners = [(x, y) for x in (left, right) for y in (top, bottom)]
        u = np.stack([face.dx + face.scale * (face.cos * x - face.sin * y) for x, y in corners])
        v = np.stack([face.dy + face.scale * (face.sin * x + face.cos * y) for x, y in corners])

        def span(along: np.ndarray) -> tuple[int, int]:
            low = int(np.floor((along.min() + 1) / 2 * size)) - 1
            return max(low, 0), min(int(np.ceil((along.max() + 1) / 2 * size)) + 1, size)

        return *span(v), *span(u)

    def finish(self) -> np.ndarray:
        """The pictures as uint8 (B, 3, resolution, resolution)."""
        return np.ascontiguousarray((self.rgb + 0.5).astype(np.uint8).transpose(3, 0, 1, 2))
