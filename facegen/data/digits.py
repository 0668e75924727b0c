"""The handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998): 1,797 of them, nothing to download."""

from __future__ import annotations

import numpy as np

from facegen.data.in_memory import InMemory, check_side, held_out
from facegen.errors import UserError

SIDE = 8


def open_digits(resolution: int, val_fraction: float) -> tuple[InMemory, np.ndarray, np.ndarray]:
    """The digits, their values of 0 to 16 brought to 0 to 255, with the numbers of those to train on and of those held out."""
    check_side(resolution, SIDE)
    try:
        from sklearn.datasets import load_digits  # takes a second
    except ImportError as error:
        raise UserError(
            f"data=digits comes with scikit-learn, which cannot be imported ({error}); type pip install scikit-learn"
        ) from error
    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    away = held_out(images, val_fraction)
    return InMemory(images, found.target, resolution), np.flatnonzero(~away), np.flatnonzero(away)
