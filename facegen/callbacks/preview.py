"""Faces drawn while training: always the same seeds, with averaged weights, so that progress can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from facegen import images
from facegen.callbacks.checkpoints import AfterOptimizerStep
from facegen.callbacks.ema import EMA
from facegen.diffusion.sampler import Sampler
from facegen.generate import generate, usually_told
from facegen.loggers import log_image
from facegen.types import NonNegativeInt, PositiveInt


class Preview(AfterOptimizerStep):
    """Draws `count` faces from seeds 0, 1, ... into `previews/step-00001000.png` every `every` optimizer steps, and at the end.

    Only rank zero draws. Training does not notice: noise is keyed by the seed, and no shared generator is touched.
    """

    def __init__(
        self, run_dir: str, sampler: Sampler, every: PositiveInt = 1000, count: NonNegativeInt = 16, batch_size: PositiveInt = 64
    ) -> None:
        self.directory = Path(run_dir, "previews")
        self.sampler, self.every, self.count, self.batch_size = sampler, every, count, batch_size
        self._drawn: int | None = None

    def after_optimizer_step(self, trainer: Trainer, before: int) -> None:
        if trainer.global_step // self.every > before // self.every:
            self.draw(trainer, trainer.lightning_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, model: Any) -> None:
        """Draws and logs the preview of the present step, once."""
        if not trainer.is_global_zero or not self.count or self._drawn == trainer.global_step:
            return
        self._drawn = trainer.global_step
        ema = next(callback for callback in trainer.callbacks if isinstance(callback, EMA))
        with ema.applied(model), trainer.precision_plugin.forward_context():
            sheet = self.save(model, trainer.global_step)
        log_image(trainer.loggers, "preview", sheet, trainer.global_step)

    def path(self, step: int) -> Path:
        """The preview after `step` optimizer steps."""
        return self.directory / f"step-{step:08d}.png"

    def save(self, model: Any, step: int) -> np.ndarray:
        """Draws the preview of `step` with the weights that `model` has now and returns it (C,H,W) uint8."""
        seeds = range(self.count)
        told = usually_told(model, seeds)
        batches = generate(model.denoiser, model.codec, self.sampler, seeds, batch_size=self.batch_size, told=told)
        faces = torch.cat([batch for _, batch in batches])
        return images.save_grid(faces, self.path(step), {"step": str(step), "seeds": f"0..{self.count - 1}"})
