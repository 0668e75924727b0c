"""A cheap metric while training: some images made with averaged weights, now and then, measured against held-out ones."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from facegen.callbacks.checkpoints import AfterOptimizerStep
from facegen.callbacks.ema import EMA
from facegen.data.cache import cache_home
from facegen.diffusion.sampler import Sampler
from facegen.generate import generate, usually_told
from facegen.metrics.extractors import Extractors
from facegen.metrics.features import Extractor, collect
from facegen.metrics.frechet import frechet_distance
from facegen.metrics.kernel import kid
from facegen.metrics.names import METRICS
from facegen.metrics.sources import DataImages, reconstructed
from facegen.types import NonNegativeInt, PositiveFloat, PositiveInt

REFERENCE = 2_000  # real images measured against, at most
BATCH, LEAST = 64, 16  # images drawn at a time, and least that a number is made of
SUBSETS, SUBSET_SIZE = 20, 250  # of the kernel distance


class Monitor(AfterOptimizerStep):
    """Measures images of seeds 0, 1, ... every `every` optimizer steps, logs the number and keeps the best weights by it.

    A model that draws nothing is measured by what it makes of the first held-out images, against these themselves, and the number is
    called `rfd_probe` and so on. The weights at the lowest value are `checkpoints/best_METRIC.ckpt`. It is off where `every` is 0.
    Training does not notice, and goes on where a measurement fails. Only rank zero draws.

    Args:
        metric: `kid` in Inception's features, `kid_probe` or `fd_probe` in those of a probe.
        images: how many are drawn, or reconstructed.
        steps: of the sampler; null takes its own.
        seconds: budget of one measurement. The first that exceeds it sets how many images this and all later ones make, because numbers
            of unlike counts cannot be compared; null sets no bound.
        probe, inception_weights: as in evaluate.py.
    """

    def __init__(
        self,
        run_dir: str,
        sampler: Sampler,
        every: NonNegativeInt = 0,
        metric: Literal["kid", "kid_probe", "fd_probe"] = "fd_probe",
        images: PositiveInt = 500,
        steps: PositiveInt | None = None,
        seconds: PositiveFloat | None = 60.0,
        probe: str | None = None,
        inception_weights: str | None = None,
    ) -> None:
        self.directory, self.every, self.metric = Path(run_dir, "checkpoints"), every, metric
        self.sampler, self.count, self.seconds = copy.copy(sampler), images, seconds
        self.sampler.steps = steps or sampler.steps
        self.probe, self.inception_weights = probe, inception_weights
        self.best: dict[str, Any] = {}
        self._extractor: Extractor | None = None
        self._source: DataImages | None = None
        self._real = np.empty((0, 0))

    def open(self, data: Any, load_probe: Callable[[str], Any]) -> None:
        """Loads what it looks through and the features of the held-out images of `data`, of the training images where none are held out.

        Raises UserError where weights or a probe are missing: that is told before training begins.
        """
        if not self.every:
            return
        metric = METRICS[self.metric]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        networks = Extractors([metric], device, load_probe, probe=self.probe, inception_weights=self.inception_weights)
        self._extractor = networks.of_fake[str(metric.space)]
        self._source = DataImages(data, "held_out" if data.num_val > 1 else "train", REFERENCE)
        self._real = collect(cache_home(None) / "features", self._source, {"monitor": self._extractor}).rows("monitor")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = state_dict["best"]
        self.best = best if best.get("metric") in (self.metric, f"r{self.metric}") else {}
        self.count = min(self.count, state_dict["count"])

    def after_optimizer_step(self, trainer: Trainer, before: int) -> None:
        if not self.every or trainer.global_step // self.every == before // self.every:
            return
        model: Any = trainer.lightning_module
        name = self.metric if model.draws else f"r{self.metric}"
        value = self._guarded(trainer, name) if trainer.is_global_zero else math.nan
        if trainer.strategy.broadcast(value < self.best.get("value", math.inf)):
            self.best = {"metric": name, "value": value, "step": trainer.global_step}
            trainer.save_checkpoint(self.directory / f"best_{name}.ckpt")

    def _guarded(self, trainer: Trainer, name: str) -> float:
        """The number of this step, logged as `name`; not a number where it could not be measured, which is said."""
        try:
            value = self.measure(trainer)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            trainer.print(f"{name} of step {trainer.global_step} could not be measured ({type(error).__name__}: {reason})")
            return math.nan
        for logger in trainer.loggers:
            logger.log_metrics({f"monitor/{name}": value}, step=trainer.global_step - 1)
        return value

    def measure(self, trainer: Trainer) -> float:
        """The number of the present averaged weights."""
        model = trainer.lightning_module
        ema = next(callback for callback in trainer.callbacks if isinstance(callback, EMA))
        with ema.applied(model), trainer.precision_plugin.forward_context():
            features = self._draw(model)
        real = self._real if model.draws else self._real[: len(features)]
        if self.metric == "fd_probe":
            return frechet_distance(features, real)
        size = min(SUBSET_SIZE, len(features), len(real))
        return kid(features, real, subsets=SUBSETS, subset_size=size)[0]

    def _draw(self, model: Any) -> np.ndarray:
        """The features (N, D) of the images that `model` makes, as many as the budget allows."""
        assert self._extractor is not None
        parts: list[np.ndarray] = []
        began = time.monotonic()
        for images in self._drawn(model) if model.draws else self._reconstructed(model):
            with torch.autocast(images.device.type, enabled=False):
                parts.append(self._extractor(images)["features"])
            drawn = sum(map(len, parts))
            spent = time.monotonic() - began
            if self.seconds and drawn < self.count and spent + spent * BATCH / drawn > self.seconds and drawn >= LEAST:
                self.count = drawn
                break
        return np.concatenate(parts)

    def _drawn(self, model: Any) -> Iterator[Tensor]:
        """The images (B,C,H,W) uint8 of the first seeds."""
        seeds = range(self.count)
        told = usually_told(model, seeds)
        batches = generate(model.denoiser, model.codec, self.sampler, seeds, batch_size=BATCH, told=told)
        return (images for _, images in batches)

    def _reconstructed(self, model: Any) -> Iterator[Tensor]:
        """What the model makes of the first of the real images (B,C,H,W) uint8."""
        assert self._source is not None
        for start in range(0, min(self.count, self._source.count), BATCH):
            images = self._source.pixels(slice(start, min(start + BATCH, self.count)))
            yield torch.from_numpy(reconstructed(model.reconstruct, images, model.device))
