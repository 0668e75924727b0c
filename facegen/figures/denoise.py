"""From noise to a face, as a strip to print and as an animation."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from facegen import images
from facegen.codecs import Codec

COLUMNS, ROWS = 10, 4  # of the strip, the finished image included
FRAMES, FRAME_MS, HOLD_MS = 24, 100, 2500
TILE = 64  # pixels that a small image is enlarged to in the animation: noise does not compress


@dataclass
class Film:
    """A sampler's `watch` that keeps the noisy images and the estimates of the clean ones, (B,C,H,W) uint8, at some of `steps` steps."""

    codec: Codec
    steps: int
    noisy: dict[int, np.ndarray] = field(default_factory=dict)
    estimates: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.columns = evenly(self.steps, COLUMNS - 1)
        self.frames = evenly(self.steps, FRAMES)
        self._kept = {*self.columns, *self.frames}

    def __call__(self, i: int, x_t: Tensor, x_0: Tensor) -> None:
        if i in self._kept:
            unit = x_t / x_t.square().mean().sqrt().clamp(min=1)  # noise of any standard deviation is shown at 1
            self.noisy[i], self.estimates[i] = (images.to_uint8(self.codec.decode(x)).cpu().numpy() for x in (unit, x_0))


def evenly(count: int, most: int) -> list[int]:
    """At most `most` different numbers out of 0 .. count-1, evenly spaced, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def save_strip(film: Film, faces: np.ndarray, path: Path, facts: Mapping[str, str], labels: Sequence[str], heads: Sequence[str]) -> None:
    """Writes two rows for each of the first images: what the sampler holds, and the clean image that the model sees in it.

    `faces` (B,C,H,W) uint8 are the finished images, `labels` name them, `heads` name `film.columns`.
    """
    rows: list[np.ndarray] = []
    row_labels: list[str] = []
    for k, label in enumerate(labels[:ROWS]):
        for kept, row_label in ((film.noisy, label), (film.estimates, "estimate")):
            rows.extend([*(kept[i][k] for i in film.columns), faces[k]])
            row_labels.append(row_label)
    column_labels = [*heads, "image"]
    images.save_grid(rows, path, facts, columns=len(column_labels), band=2, row_labels=row_labels, column_labels=column_labels)


def save_animation(film: Film, faces: np.ndarray, path: Path) -> None:
    """Writes the walk of all images as an animated GIF or WebP, as the suffix of `path` says, that rests on `faces` and begins anew."""
    scale = max(1, TILE // faces.shape[-1])
    sheets = [images.to_pil(images.grid(tiles, scale=scale)) for tiles in [*(film.noisy[i] for i in film.frames), faces]]
    times, buffer = [FRAME_MS] * (len(sheets) - 1) + [HOLD_MS], io.BytesIO()
    sheets[0].save(buffer, path.suffix[1:], save_all=True, append_images=sheets[1:], duration=times, loop=0, quality=60)
    images.write_whole(path, buffer.getvalue())
