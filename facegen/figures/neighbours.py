"""Generated images beside the training images that lie nearest to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from facegen import images
from facegen.metrics.neighbours import SHOWN, Nearest, Neighbours

FIRST, NEAREST = 6, 6  # rows: the first images, and those that lie nearest to a training image


def save_neighbours(
    fake: np.ndarray, neighbours: Neighbours, training_images: Callable[[np.ndarray], np.ndarray], path: Path, number: int = 0
) -> Path:
    """Writes a row for some of the images `fake` (N,C,H,W) uint8: the image, its nearest training images in features, and in pixels.

    The first rows are the first images, the last those that lie nearest to a training image of all; images are counted from `number`.
    """
    closest = np.argsort(neighbours.features.distances[:, 0], kind="stable")
    first = list(range(min(FIRST, len(fake))))
    rows = first + [int(i) for i in closest if i not in first][:NEAREST]
    spaces = (neighbours.features, neighbours.pixels)
    tiles, labels = [], []
    for row in rows:
        tiles.append(fake[row][None])
        tiles += [training_images(space.places[row]) for space in spaces]
        labels.append(f"image {number + row}\n{neighbours.features.distances[row, 0]:.3g}, {neighbours.pixels.distances[row, 0]:.3g}")
    columns = ["drawn", *(head for name, near in zip(("features", "pixels"), spaces, strict=True) for head in _heads(name, near))]
    facts = {"figure": "neighbours", "rows": ", ".join(map(str, rows)), "shown": str(SHOWN)}
    images.save_grid(np.concatenate(tiles), path, facts, columns=len(columns), band=len(first), row_labels=labels, column_labels=columns)
    return path


def _heads(name: str, near: Nearest) -> list[str]:
    """The columns of one space: its name over the nearest, then numbers."""
    return [name, *(str(i + 1) for i in range(1, near.places.shape[1]))]
