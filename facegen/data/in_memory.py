"""Small labelled images that are held in memory as they are, and padded where they are read."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np

from facegen.data.columns import Columns
from facegen.errors import UserError

DIGITS = tuple("0123456789")
DIGIT = Columns(DIGITS, {"digit": DIGITS})


class InMemory:
    """The grey images (N, S, S) uint8 in memory, each of one of `columns`' classes (N,), with black around them up to `resolution`."""

    block = 1
    filter = "none, padded with black"

    def __init__(self, images: np.ndarray, classes: np.ndarray, resolution: int, columns: Columns = DIGIT) -> None:
        self.images, self.classes, self.resolution = images, classes, resolution
        self.condition_names, self.condition_groups = columns

    @cached_property
    def fingerprint(self) -> str:
        """Depends on the images, their classes and the padding."""
        digest = hashlib.blake2b(repr((self.images.shape, self.resolution, self.condition_names)).encode(), digest_size=16)
        for part in (self.images, self.classes.astype("<i8")):
            digest.update(part.tobytes())
        return digest.hexdigest()

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images (B, 1, H, W) uint8 and conditions (B, K) float32 of `indices` (B,)."""
        side = self.images.shape[1]
        inside = slice(start := (self.resolution - side) // 2, start + side)
        padded = np.zeros((len(indices), 1, self.resolution, self.resolution), np.uint8)
        padded[:, 0, inside, inside] = self.images[indices]
        return padded, self.conditions(indices)

    def conditions(self, indices: np.ndarray) -> np.ndarray:
        """The classes of `indices` (B,), one-hot (B, K) float32."""
        return np.eye(len(self.condition_names), dtype=np.float32)[self.classes[indices]]


def check_side(resolution: int, side: int) -> None:
    """Raises UserError where images of `side` pixels do not fit."""
    if resolution < side:
        raise UserError(f"data.resolution must be at least {side}, the side of the images; got {resolution}; type data.resolution={side}")


def held_out(images: np.ndarray, fraction: float) -> np.ndarray:
    """Which of the images (N, S, S) are held out, (N,) bool: by a digest of their pixels, so that copies fall on one side."""
    digests = b"".join(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(digests, "<u8") / 2.0**64 < fraction
