"""The DDPM family: a denoiser trained on random noise levels. In pixels or latents it is the same loop; the codec tells them apart."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from facegen.codecs import Pixels
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.loss import clean_loss, diffusion_loss
from facegen.diffusion.schedule import Schedule
from facegen.diffusion.times import LogNormalTimes, Times
from facegen.families.optimization import Adam
from facegen.seeding import mix, torch_generator
from facegen.types import NonNegativeFloat, NonNegativeInt

LEVEL_EDGES = (0.1, 0.3, 1.0, 3.0)  # noise levels that part the bins of the held-out loss


class DDPM(LightningModule):
    """Unconditional diffusion: a network, a schedule and a codec, trained to undo noise.

    Args:
        network: maps (x (B,C,H,W), time (B,), condition) to (B,C,H,W), with the codec's shape.
        schedule: signal and noise over time.
        codec: what the denoiser sees of an image.
        optimizer: with its learning rate over the run.
        prediction: what the network predicts; null is the schedule's usual one (noise for betas, edm for edm, flow for flow).
        loss, weighting: the error of the network and its weight by noise level (`facegen.diffusion.loss`).
        times: how training times are drawn; null is the schedule's usual way.
        input_perturbation: standard deviation of extra noise on the network's input (Ning et al. 2023 found 0.1 best).
        seed: root of all randomness of the training steps.
    """

    family = "ddpm"

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        codec: Pixels,
        optimizer: Adam,
        prediction: Literal["noise", "image", "v", "flow", "edm"] | None = None,
        loss: Literal["mse", "l1", "huber"] = "mse",
        weighting: Literal["uniform", "min_snr", "p2", "edm"] = "uniform",
        times: Times | None = None,
        input_perturbation: NonNegativeFloat = 0.0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.denoiser = Denoiser(network, schedule, prediction)
        self.codec, self.optimizer_options = codec, optimizer
        self.error, self.weighting = loss, weighting
        self.times = times or schedule.default_times
        self.input_perturbation, self.seed = input_perturbation, seed
        self.progress, self.epoch = 0.0, 0  # share of the run that is done, passes over the data: kept by the Budget callback
        self._held_out = torch.zeros(2, len(LEVEL_EDGES) + 1, dtype=torch.float64)
        self._validation_times = LogNormalTimes()

    def condition(self, batch: dict[str, Any]) -> Tensor | None:
        """What the denoiser is told beside the noisy image: nothing here; families that are told something override this."""
        return None

    def _reseed(self, key: int) -> None:
        # Not torch.manual_seed: where CUDA is built in but not in use, it files away a stack trace at each call and keeps it.
        torch.default_generator.manual_seed(key)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(key)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self._reseed(mix(self.seed, "step", self.global_rank, batch["position"]))
        x_0 = self.codec.encode(batch["image"])
        u = torch.rand(len(x_0), device=x_0.device)
        eps = torch.randn_like(x_0)
        extra = self.input_perturbation * torch.randn_like(x_0) if self.input_perturbation else None
        losses = diffusion_loss(
            self.denoiser,
            x_0,
            eps,
            self.times(self.denoiser.schedule, u),
            condition=self.condition(batch),
            error=self.error,
            weighting=self.weighting,
            perturbation=extra,
        )
        loss = losses.mean()
        if self._logs_this_step():
            self.log("train/loss", loss, batch_size=len(x_0), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._held_out = torch.zeros_like(self._held_out, device=self.device)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds to the held-out loss: each image at one fixed noise level with fixed noise, weighted as EDM does whatever the model
        predicts, so that runs with unlike schedules and predictions can be compared."""
        x_0 = self.codec.encode(batch["image"])
        own = (torch.randn(x_0.shape[1:], generator=torch_generator(self.seed, "held-out", i)) for i in batch["index"].tolist())
        eps = torch.stack(list(own)).to(x_0)
        u = (batch["index"].double() * (math.sqrt(5) - 1) / 2 % 1).to(x_0.dtype)  # golden ratio: even at any number of images
        t = self._validation_times(self.denoiser.schedule, u)
        losses = clean_loss(self.denoiser, x_0, eps, t, condition=self.condition(batch)).double()
        edges = torch.tensor(LEVEL_EDGES, device=t.device)
        bins = torch.bucketize(self.denoiser.schedule.level(t), edges)
        self._held_out[0].index_add_(0, bins, losses)
        self._held_out[1].index_add_(0, bins, torch.ones_like(losses))

    def on_validation_epoch_end(self) -> None:
        total, count = self.trainer.strategy.reduce(self._held_out, reduce_op="sum")
        self.log("val/loss", (total.sum() / count.sum()).float(), rank_zero_only=True)
        names = [*(f"below_{edge:g}" for edge in LEVEL_EDGES), f"above_{LEVEL_EDGES[-1]:g}"]
        for name, value, n in zip(names, total / count.clamp(min=1), count, strict=True):
            if n > 0:
                self.log(f"val/loss_level_{name}", value.float(), rank_zero_only=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_options.build(p for p in self.parameters() if p.requires_grad)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        rate = self.optimizer_options.rate(self.global_step, self.progress, self.epoch)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:
            group["lr"] = rate
        if self._logs_this_step():
            self.log("train/lr", rate, batch_size=1)

    def _logs_this_step(self) -> bool:
        """Whether Lightning writes what is logged now: a step whose numbers nobody sees need not be told to it."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0
