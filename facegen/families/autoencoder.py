"""The first stage of latent diffusion: an autoencoder trained to please a perceptual network and a discriminator (Esser et al. 2021,
Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from facegen.errors import UserError
from facegen.families.family import Family
from facegen.families.optimization import Adam
from facegen.networks.autoencoder import Autoencoder as Network
from facegen.networks.discriminator import PatchDiscriminator, adaptive_weight, generator_loss, hinge_loss
from facegen.seeding import mix
from facegen.types import NonNegativeFloat, NonNegativeInt

Distance = Callable[[Tensor, Tensor], Tensor]


class Autoencoder(Family):
    """An autoencoder and the discriminator that it is trained against, each with an optimizer of its own.

    The loss of an image is `perceptual_weight` of the perceptual distance to its reconstruction, `l1` and `l2` of the mean absolute and
    squared difference, and the network's penalty on its latents; from batch `disc_start` on also `disc_weight` of the hinge loss of a
    patch discriminator, scaled so that both pull alike at the last layer.

    Args:
        network: the autoencoder (`facegen.networks.autoencoder`).
        optimizer: with its learning rate over the run, for both networks.
        discriminator: of the images; null trains without one.
        perceptual: what sees how far a reconstruction is off: LPIPS with VGG or AlexNet, the features of a facegen probe, or nothing.
        perceptual_weight, l1, l2: weights of the parts of the reconstruction loss.
        perceptual_weights: file of the backbone's weights; null looks in torch's cache and downloads it.
        probe: run or checkpoint of the probe, for perceptual=probe.
        disc_start: batches that the autoencoder learns from before it meets the discriminator.
        disc_weight: weight of the adversarial loss before it is scaled.
        seed: root of all randomness of the training steps.
    """

    family, averaged, draws = "autoencoder", "autoencoder", False

    def __init__(
        self,
        network: Network,
        optimizer: Adam,
        discriminator: PatchDiscriminator | None = None,
        perceptual: Literal["vgg", "alex", "probe"] | None = "vgg",
        perceptual_weight: NonNegativeFloat = 1.0,
        perceptual_weights: str | None = None,
        probe: str | None = None,
        l1: NonNegativeFloat = 1.0,
        l2: NonNegativeFloat = 0.0,
        disc_start: NonNegativeInt = 50_000,
        disc_weight: NonNegativeFloat = 0.5,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(optimizer, seed)
        if not (l1 or l2 or (perceptual and perceptual_weight)):
            raise UserError("model.l1, model.l2 and model.perceptual leave nothing to learn from; type model.l1=1")
        self.automatic_optimization = False
        self.autoencoder, self.discriminator = network, discriminator
        self.perceptual_weight = perceptual_weight if perceptual else 0.0
        self.l1, self.l2, self.disc_start, self.disc_weight = l1, l2, disc_start, disc_weight
        self.accumulate = 1  # batches of an optimizer step: told by the run
        self.judges: list[Any] = []  # the perceptual network: a list keeps it out of the checkpoint
        self._held_out = torch.zeros(2, dtype=torch.float64)

    @property
    def network(self) -> nn.Module:
        return self.autoencoder

    def configure_optimizers(self) -> Any:
        networks = [self.autoencoder, *([self.discriminator] if self.discriminator else [])]
        return [self.optimizer_options.build(network.parameters()) for network in networks]

    def on_fit_start(self) -> None:
        for judge in self.judges:
            judge.to(self.device)

    def on_train_start(self) -> None:
        self.trainer.accumulate_grad_batches = self.accumulate  # refused to models that step by hand, yet the count of steps needs it

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """The reconstruction loss (B,) between `images` and `others` (B,C,H,W)."""
        difference = (others.float() - images).flatten(1)
        loss = self.l1 * difference.abs().mean(1) + self.l2 * difference.square().mean(1)
        if self.perceptual_weight and self.judges:
            loss = loss + self.perceptual_weight * self.judges[0](others, images)
        return loss

    def reconstruct(self, images: Tensor) -> Tensor:
        """What comes out of the autoencoder for `images` (B,C,H,W) float in [-1, 1], by way of the means of their latents."""
        return self.autoencoder.decode(self.autoencoder.moments(images)[0]).float()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        position, images = batch["position"], batch["image"]
        if (wrapper := self._wrapper()) is not None:  # each optimizer's gradients are brought together when it steps, and no sooner
            wrapper.require_backward_grad_sync = False
        steps = (position + 1) % self.accumulate == 0
        logs = steps and self._logs_this_step()
        self._reseed(mix(self.seed, "step", self.global_rank, position))
        against = self.discriminator if position >= self.disc_start and self.disc_weight else None
        coded = self.autoencoder(images)
        off, penalty = self.distance(images, coded.images).mean(), coded.penalty.mean()
        told = {"loss": off + penalty, "penalty": penalty}
        loss = off + penalty
        if against is not None:
            with _frozen(against):
                fooled = generator_loss(against(coded.images))
            weight = adaptive_weight(off, fooled, self.autoencoder.last)
            loss = loss + self.disc_weight * weight * fooled
            told |= {"adversarial": fooled, "adaptive_weight": weight}
        self.manual_backward(loss / self.accumulate)
        if against is not None:
            caught = hinge_loss(against(images), against(coded.images.detach()))
            self.manual_backward(caught / self.accumulate)
            told["discriminator"] = caught
        if steps:
            self._step(against is not None)
        if logs:
            values = {f"train/{name}": value.detach().float() for name, value in told.items()}
            self.log_dict(values, batch_size=len(images), sync_dist=True)

    def _step(self, both: bool) -> None:
        """Steps the autoencoder's optimizer, which Lightning counts, and the discriminator's, which it must not: a step is one step."""
        counted = self.optimizers()
        first, *others = counted if isinstance(counted, list) else [counted]
        self._bring_together(first.optimizer)
        first.step()
        first.zero_grad()
        for other in others if both else ():
            self._bring_together(other.optimizer)
            self.trainer.strategy.optimizer_step(other.optimizer, lambda: None, model=self)
            other.zero_grad()

    def _wrapper(self) -> Any:
        """What makes several processes of one model, where there are several."""
        return self.trainer.strategy.model if self._trainer is not None and self.trainer.world_size > 1 else None

    def _bring_together(self, optimizer: Optimizer) -> None:
        """The gradients of all devices become their mean."""
        if self._wrapper() is None:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad.div_(self.trainer.world_size)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Adds to the held-out reconstruction loss; returns the `reconstruction` (B,C,H,W) for whoever measures more of it."""
        found = self.reconstruct(batch["image"])
        losses = self.distance(batch["image"], found).double()
        self._held_out += torch.stack([losses.sum(), torch.full_like(losses[0], len(losses))])
        return {"reconstruction": found}

    def on_validation_epoch_end(self) -> None:
        total, count = self.held_out_sums()
        self.log("val/loss", (total / count).float(), rank_zero_only=True)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through `network` and leave none in it."""
    parameters = list(network.parameters())
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
