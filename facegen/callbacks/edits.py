"""What a model that edits makes of held-out images while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from facegen.ages import AGE_GROUPS
from facegen.callbacks.preview import Preview
from facegen.diffusion.guidance import Told
from facegen.generate import generate
from facegen.images import save_grid, to_float

AGES = 5  # of an age strip


class EditPreview(Preview):
    """What `preview` is for a model that edits: as often, and into the same folder.

    `data` is the run's data module. Each row shows a held-out image, or a training image where none are held out, the source that is made
    of it, and edits of that to some of the age groups that the model is told; of data without ages, back to the image itself.
    """

    def __init__(self, preview: Preview, data: Any) -> None:
        super().__init__(str(preview.directory.parent), preview.sampler, preview.every, preview.count, preview.batch_size)
        self.data = data

    def save(self, model: Any, step: int) -> np.ndarray:
        """Saves the picture of `step` as `model`, a model that edits or a loaded one, is now, and returns it (C,H,W) uint8."""
        device = next(model.denoiser.parameters()).device
        rows, which = max(1, self.count // 4), "held out" if self.data.num_val else "training"
        numbers = self.data.numbers("held_out" if self.data.num_val else "train")
        numbers = numbers[np.linspace(0, len(numbers) - 1, min(rows, len(numbers))).astype(int)]
        images, shown = self.data.pixels(numbers), self.data.edit_source.shows
        sources = self.data.sources(numbers) if shown else np.full_like(images, 255)
        heads, conditions = _asked(list(self.data.condition_names), torch.from_numpy(self.data.conditions(numbers)))
        told = Told.plainly(torch.cat([model.asked({"condition": part.to(device)}).cpu() for part in conditions]))
        if shown:
            with torch.inference_mode():
                encoded = model.encode_source(to_float(torch.from_numpy(sources)).to(device)).cpu()
            told = Told(told.conditions, told.shares, encoded.repeat(len(heads), *(1,) * (encoded.ndim - 1)))
        seeds = list(range(len(numbers))) * len(heads)
        batches = generate(model.denoiser, model.codec, self.sampler, seeds, batch_size=self.batch_size, told=told)
        drawn = torch.cat([part for _, part in batches])
        tiles = np.stack([images, sources, *drawn.numpy().reshape(len(heads), *images.shape)], axis=1)
        facts = {"step": str(step), "images": which}
        return save_grid(
            tiles.reshape(-1, *images.shape[1:]), self.path(step), facts, columns=tiles.shape[1], column_labels=["image", "source", *heads]
        )


def _asked(names: Sequence[str], labels: torch.Tensor) -> tuple[list[str], list[torch.Tensor]]:
    """What is asked for in each column, and the conditions (N,K) of it: other ages and else the `labels` (N,K) of the images."""
    known = [name for name in AGE_GROUPS if name in names]
    if not known:
        return ["edit"], [labels]
    groups = [known[i] for i in dict.fromkeys(np.linspace(0, len(known) - 1, AGES).round().astype(int).tolist())]
    columns, conditions = [names.index(name) for name in known], []
    for group in groups:
        asked = labels.clone()
        asked[:, columns] = 0
        asked[:, names.index(group)] = 1
        conditions.append(asked)
    return groups, conditions
