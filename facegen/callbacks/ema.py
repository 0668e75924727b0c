"""Exponential moving averages of a model's weights: several lengths at once, beside the raw weights and never in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from facegen.errors import UserError
from facegen.types import ProperFraction


class EMA(Callback):
    """Averages the trainable parameters of `model.denoiser`, or what else its family names, after every optimizer step (Karras et al.
    2022, appendix F.2).

    Args:
        halflives: lengths in images seen; an image's influence halves over so many more images. The first is used for previews,
            validation and sampling unless another is asked for.
        rampup: a half-life is at most this share of the images seen so far, so that early weights are forgotten.

    The averages are `checkpoint["ema"]`: {half-life: {parameter name: tensor}}. Images are counted as an integer.
    """

    def __init__(self, halflives: list[float] = [10_000.0], rampup: ProperFraction = 0.05) -> None:  # noqa: B006 (never changed)
        if not halflives or not all(0 < h < float("inf") for h in halflives) or len(set(halflives)) < len(halflives):
            raise UserError(f"ema.halflives must be one or more different numbers of images above 0; got {halflives}")
        self.halflives, self.rampup = list(halflives), rampup
        self.images = 0
        self.averages: dict[str, dict[str, Tensor]] = {}
        self._pending = 0  # images since the last optimizer step
        self._step = 0
        self._live: list[Tensor] = []

    @staticmethod
    def parameters(model: Any) -> dict[str, Tensor]:
        """The tensors that are averaged, by name."""
        return {name: p for name, p in model.named_parameters() if name.startswith(f"{model.averaged}.") and p.requires_grad}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        live = self.parameters(pl_module)
        self._live = list(live.values())
        for halflife in self.halflives:
            kept = self.averages.get(key(halflife), {})
            source = kept if kept.keys() == live.keys() else live
            self.averages[key(halflife)] = {name: source[name].detach().to(p.device, copy=True) for name, p in live.items()}
        self.averages = {key(halflife): self.averages[key(halflife)] for halflife in self.halflives}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._pending += len(batch["index"]) * trainer.world_size
        if trainer.global_step == self._step:  # gradients are still accumulating
            return
        self._step = trainer.global_step
        self.images += self._pending
        for halflife in self.halflives:
            length = min(halflife, self.images * self.rampup)
            step = 1 - 0.5 ** (self._pending / length) if length else 1.0
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage] (one kernel for all tensors)
                list(self.averages[key(halflife)].values()), self._live, step
            )
        self._pending = 0

    @contextmanager
    def applied(self, model: LightningModule, halflife: float | None = None) -> Iterator[None]:
        """The model with averaged weights in place, for as long as the context lasts, however it ends."""
        average = self.averages.get(key(halflife or self.halflives[0]), {})
        live = self.parameters(model)
        for name, mean in average.items():
            live[name].data, average[name] = mean, live[name].data
        try:
            yield
        finally:
            for name, raw in average.items():
                live[name].data, average[name] = raw, live[name].data

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = self.applied(pl_module)
        self._validating.__enter__()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating.__exit__(None, None, None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.validating or trainer.sanity_checking:
            self._validating.__exit__(None, None, None)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self.averages

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.averages = dict(checkpoint.get("ema", {}))

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images = state_dict["images"]


def key(halflife: float) -> str:
    """How a half-life is called in a checkpoint and on the command line: `10000`, `2500.5`."""
    return f"{halflife:g}" if halflife < 1e6 else str(int(halflife))
