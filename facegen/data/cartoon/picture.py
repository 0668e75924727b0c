"""The whole picture: the layers from back to front, painted for a few people at a time."""

from __future__ import annotations

import numpy as np

from facegen.data.cartoon import features, hair, worn
from facegen.data.cartoon.anatomy import face_of
from facegen.data.cartoon.canvas import Canvas
from facegen.data.cartoon.parameters import Parameters
from facegen.data.cartoon.population import parameters

LAYERS = (
    features.HALO,
    *hair.BEHIND,
    features.BODY,
    worn.NECKTIE,
    *features.FACE,
    *hair.ON_FACE,
    worn.NECKLACE,
    features.NOSE,
    features.MOUTH,
    *hair.ON_HEAD,
    features.BROWS,
    worn.EARRINGS,
    worn.GLASSES,
    worn.HAT,
)

_PIXELS_AT_ONCE = 128 * 32 * 32
"""So many that their arrays stay in a core's cache, and few enough calls of numpy that their overhead stays small."""


def render(people: Parameters, resolution: int) -> np.ndarray:
    """Pictures of `people` as uint8 (B, 3, resolution, resolution), red, green and blue."""
    pictures = np.empty((len(people), 3, resolution, resolution), dtype=np.uint8)
    step = max(8, _PIXELS_AT_ONCE // resolution**2)
    for start in range(0, len(people), step):
        some = slice(start, start + step)
        canvas = Canvas(face_of(people.select(some)), resolution)
        for layer in LAYERS:
            canvas.paint(layer)
        pictures[some] = canvas.finish()
    return pictures


def draw(seed: int, indices: np.ndarray, resolution: int) -> np.ndarray:
    """Pictures of the people `indices` (B,) of the data set `seed`, uint8 (B, 3, resolution, resolution)."""
    return render(parameters(seed, indices), resolution)
