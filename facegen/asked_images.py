"""Images that a model draws where each is told something of its own, as an evaluation collects them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from facegen.diffusion.guidance import Told
from facegen.generate import Begin
from facegen.studio import Studio


class AskedImages:
    """The images that `studio` draws of `seeds` (N,), each told its row of `told`; the first `count` of them, or all.

    They begin with noise or, each with its own, with `begin`.
    """

    def __init__(
        self, studio: Studio, seeds: Sequence[int], told: Told, title: str, count: int | None = None, begin: Begin | None = None
    ) -> None:
        self.studio, self.seeds, self.told, self.title, self.begin = studio, seeds, told, title, begin
        self.count = len(seeds) if count is None else count

    @property
    def identity(self) -> dict[str, object]:
        """The model, the way it draws and is guided, the seeds, and all that is told: a part of the images is a part of the same set."""
        parts = [torch.tensor(list(self.seeds)), self.told.conditions, self.told.shares, self.told.source, self.told.nothing]
        parts += [self.begin.images, torch.tensor([self.begin.start, self.begin.noised])] if self.begin else []
        told = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts if part is not None)).hexdigest()
        way = self.studio.direction.guidance.way if self.told.shares.shape[1] > 1 else "alone"
        return {"source": "asked", **self.studio.facts, "way": way, "told": told, "threads": torch.get_num_threads()}

    def batches(self, numbers: Sequence[int], kept: int) -> Iterator[np.ndarray]:
        """The images of `numbers`."""
        places = list(numbers)
        seeds = [self.seeds[i] for i in places]
        told, begin = self.told[places], self.begin and self.begin[places]
        return (drawn for _, drawn in self.studio.batches(seeds, self.title, kept=kept, told=told, begin=begin))
