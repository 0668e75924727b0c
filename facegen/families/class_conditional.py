"""Diffusion that is told what to draw: classes and attributes, dropped now and then in training so that they can be guided by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from facegen.errors import UserError
from facegen.families.ddpm import DDPM
from facegen.families.labels import Labels, examples_of, usual
from facegen.networks.conditioned import NOTHING, Conditioned
from facegen.networks.unet import UNet
from facegen.types import ProperFraction


class ClassConditional(DDPM):
    """DDPM with a condition: a weight for each class and attribute of the data.

    Args:
        network: with an `injection`, that of the model.
        condition_names, condition_groups, condition_examples: what the columns of a batch's `condition` are, and the columns that are 1
            for some of the training images: facts of the data, given by the run and, later, by the checkpoint.
        injection: how the network is told: added to its time embedding, or as channels beside the image.
        drop_condition: share of the training images that the network is told nothing of, so that it learns to draw without.
        diffusion: the options of `DDPM`.
    """

    family = "class_conditional"

    def __init__(
        self,
        network: UNet,
        condition_names: list[str],
        condition_groups: dict[str, list[str]],
        condition_examples: list[list[int]],
        injection: Literal["embedding", "channels"],
        drop_condition: ProperFraction = 0.1,
        **diffusion: Any,
    ) -> None:
        if network.injection != injection:
            raise UserError(f"model.network.injection={network.injection} is not model.injection={injection}; set model.injection alone")
        super().__init__(network=Conditioned(network, len(condition_names), network.injected), **diffusion)
        self.labels = Labels(condition_names, condition_groups)
        self.examples = examples_of(condition_examples, len(condition_names))
        self.drop_condition = drop_condition

    def told(self, batch: dict[str, Any]) -> tuple[Tensor]:
        """The labels of the images (B, K); in training some rows say nothing."""
        condition = batch["condition"]
        if not self.training or not self.drop_condition:
            return (condition,)
        dropped = torch.rand(len(condition), device=condition.device) < self.drop_condition
        return (condition.masked_fill(dropped[:, None], NOTHING),)

    def usual_conditions(self, seeds: Sequence[int]) -> Tensor:
        """What the images of `seeds` are told where nobody asks for anything: each the labels of some training image, (B, K)."""
        return usual(self.examples, seeds)
