"""What every family does alike: steps that can be repeated, a learning rate by step, sums over the held-out images."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from facegen.families.optimization import Adam
from facegen.seeding import mix


class Family(LightningModule):
    """A model and how it learns. A family says what its loss is and what it measures on held-out images, never how a step is taken.

    `family` is its name in a checkpoint. `averaged` names the attribute whose trainable weights are averaged and, at the end, used.
    `draws` says whether it has a `denoiser` and a `codec` to draw images with.

    Args:
        optimizer: with its learning rate over the run.
        seed: root of all randomness of the training steps.
    """

    family: ClassVar[str]
    averaged: ClassVar[str]
    draws: ClassVar[bool]
    _held_out: Tensor  # sums over the held-out images, begun anew by every validation

    def __init__(self, optimizer: Adam, seed: int) -> None:
        super().__init__()
        self.optimizer_options, self.seed = optimizer, seed
        self.progress, self.epoch = 0.0, 0  # share of the run that is done, passes over the data: kept by the Budget callback

    @property
    def network(self) -> nn.Module:
        """What `trainer.compile` compiles."""
        raise NotImplementedError

    def losses(self, batch: dict[str, Any]) -> Tensor:
        """The loss of each image (B,); whatever is drawn for it is drawn from torch's generators, which the step has seeded."""
        raise NotImplementedError

    def _reseed(self, key: int) -> None:
        # Not torch.manual_seed: where CUDA is built in but not in use, it files away a stack trace at each call and keeps it.
        torch.default_generator.manual_seed(key)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(key)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self._reseed(mix(self.seed, "step", self.global_rank, batch["position"]))
        loss = self.losses(batch).mean()
        if self._logs_this_step():
            self.log("train/loss", loss, batch_size=len(batch["index"]), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._held_out = torch.zeros_like(self._held_out, device=self.device)

    def held_out_sums(self) -> Tensor:
        """`_held_out`, added up over the devices: every one of them has to ask."""
        return self.trainer.strategy.reduce(self._held_out, reduce_op="sum")  # pyright: ignore[reportReturnType]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_options.build(p for p in self.parameters() if p.requires_grad)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        rate = self.optimizer_options.rate(self.global_step, self.progress, self.epoch)
        optimizers = self.optimizers(use_pl_optimizer=False)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if self._logs_this_step():
            self.log("train/lr", rate, batch_size=1)

    def _logs_this_step(self) -> bool:
        """Whether Lightning writes what is logged now: a step whose numbers nobody sees need not be told to it."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0
