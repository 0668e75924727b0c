"""Images that a model draws where each is told something of its own, as an evaluation collects them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from facegen.diffusion.guidance import Told
from facegen.studio import Studio


class AskedImages:
    """The images that `studio` draws of `seeds` (N,), each told its row of `told`; the first `count` of them, or all."""

    def __init__(self, studio: Studio, seeds: Sequence[int], told: Told, title: str, count: int | None = None) -> None:
        self.studio, self.seeds, self.told, self.title = studio, seeds, told, title
        self.count = len(seeds) if count is None else count

    @property
    def identity(self) -> dict[str, object]:
        """The model, the way it draws and is guided, the seeds, and all that is told: a part of the images is a part of the same set."""
        parts = (np.asarray(self.seeds, dtype="<i8"), self.told.conditions.numpy(), self.told.shares.numpy())
        told = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
        way = self.studio.direction.guidance.way if self.told.shares.shape[1] > 1 else "alone"
        return {"source": "asked", **self.studio.facts, "way": way, "told": told, "threads": torch.get_num_threads()}

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        """The images of `numbers`."""
        places = list(numbers)
        seeds = [self.seeds[i] for i in places]
        return (drawn for _, drawn in self.studio.batches(seeds, self.title, kept=kept, told=self.told[places]))
