"""The DDPM family: a denoiser trained on random noise levels. In pixels or latents it is the same loop; the codec tells them apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from facegen.codecs import Codec
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.loss import clean_loss, diffusion_loss
from facegen.diffusion.schedule import Schedule
from facegen.diffusion.times import LogNormalTimes, Times
from facegen.families.family import Family
from facegen.families.optimization import Adam
from facegen.seeding import torch_generator
from facegen.types import NonNegativeFloat, NonNegativeInt

Find = Callable[[str], tuple[Path, str]]  # the folder of what is called so, and a digest of its weights
LEVEL_EDGES = (0.1, 0.3, 1.0, 3.0)  # noise levels that part the bins of the held-out loss


class DDPM(Family):
    """Unconditional diffusion: a network, a schedule and a codec, trained to undo noise.

    Args:
        network: maps (x (B,C,H,W), time (B,), *told) to (B,C,H,W), with the codec's shape.
        schedule: signal and noise over time.
        codec: what the denoiser sees of an image.
        optimizer: with its learning rate over the run.
        prediction: what the network predicts; null is the schedule's usual one (noise for betas, edm for edm, flow for flow).
        loss, weighting: the error of the network and its weight by noise level (`facegen.diffusion.loss`).
        times: how training times are drawn; null is the schedule's usual way.
        input_perturbation: standard deviation of extra noise on the network's input (Ning et al. 2023 found 0.1 best).
        seed: root of all randomness of the training steps.
    """

    family, averaged, draws = "ddpm", "denoiser", True

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        codec: Codec,
        optimizer: Adam,
        prediction: Literal["noise", "image", "v", "flow", "edm"] | None = None,
        loss: Literal["mse", "l1", "huber"] = "mse",
        weighting: Literal["uniform", "min_snr", "p2", "edm"] = "uniform",
        times: Times | None = None,
        input_perturbation: NonNegativeFloat = 0.0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(optimizer, seed)
        self.denoiser = Denoiser(network, schedule, prediction)
        self.codec = codec
        self.error, self.weighting = loss, weighting
        self.times = times or schedule.default_times
        self.input_perturbation = input_perturbation
        self._held_out = torch.zeros(2, len(LEVEL_EDGES) + 1, dtype=torch.float64)
        self._validation_times = LogNormalTimes()

    @property
    def network(self) -> nn.Module:
        return self.denoiser.network

    def told(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        """What the network is told beside image and time: nothing here; families that are told something override this."""
        return ()

    def usual_conditions(self, seeds: Sequence[int]) -> Tensor | None:
        """What the images of `seeds` are told where nobody asks for anything (B,K): nothing here."""
        return None

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.codec.rest()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if state := self.codec.state():
            checkpoint["codec"] = state

    def load_rest(self, stored: Mapping[str, Any], find: Find) -> None:
        """Takes over what a checkpoint says beside the weights that were trained; raises what `load_state_dict` and a dict raise where it
        is another's. `find` finds what else a model was trained from (`facegen.pretrained.base_of`)."""
        self.codec.load(stored.get("codec", {}))

    def losses(self, batch: dict[str, Any]) -> Tensor:
        """The error (B,) of what the network predicts, each image at a random noise level."""
        x_0 = self.codec.clean(batch, draw=True)
        u = torch.rand(len(x_0), device=x_0.device)
        eps = torch.randn_like(x_0)
        extra = self.input_perturbation * torch.randn_like(x_0) if self.input_perturbation else None
        return diffusion_loss(
            self.denoiser,
            x_0,
            eps,
            self.times(self.denoiser.schedule, u),
            told=self.told(batch),
            error=self.error,
            weighting=self.weighting,
            perturbation=extra,
        )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds to the held-out loss: each image at one fixed noise level with fixed noise, weighted as EDM does whatever the model
        predicts, so that runs with unlike schedules and predictions can be compared."""
        x_0 = self.codec.clean(batch, draw=False)
        own = (torch.randn(x_0.shape[1:], generator=torch_generator(self.seed, "held-out", i)) for i in batch["index"].tolist())
        eps = torch.stack(list(own)).to(x_0)
        u = (batch["index"].double() * (math.sqrt(5) - 1) / 2 % 1).to(x_0.dtype)  # golden ratio: even at any number of images
        t = self._validation_times(self.denoiser.schedule, u)
        losses = clean_loss(self.denoiser, x_0, eps, t, *self.told(batch)).double()
        edges = torch.tensor(LEVEL_EDGES, device=t.device)
        bins = torch.bucketize(self.denoiser.schedule.level(t), edges)
        self._held_out[0].index_add_(0, bins, losses)
        self._held_out[1].index_add_(0, bins, torch.ones_like(losses))

    def on_validation_epoch_end(self) -> None:
        total, count = self.held_out_sums()
        self.log("val/loss", (total.sum() / count.sum()).float(), rank_zero_only=True)
        names = [*(f"below_{edge:g}" for edge in LEVEL_EDGES), f"above_{LEVEL_EDGES[-1]:g}"]
        for name, value, n in zip(names, total / count.clamp(min=1), count, strict=True):
            if n > 0:
                self.log(f"val/loss_level_{name}", value.float(), rank_zero_only=True)
