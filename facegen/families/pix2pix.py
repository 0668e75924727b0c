"""Editing: diffusion that is shown a source image beside what it is told, each dropped now and then so that both can be guided by."""

from __future__ import annotations

import math
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


class Edits(DDPM):
    """DDPM of what becomes of a source image when something is asked for (Brooks et al. 2023).

    In training an image is told nothing, shown nothing, or neither, each with a probability of its own, so that the model can be guided
    by its condition and by its source. What is not told or not shown is NaN in a whole row.

    Args:
        drop_text: share of the training images that are told nothing and shown their source.
        drop_image: share of those that are told their condition and shown nothing.
        drop_both: share of those that are told and shown nothing.
        diffusion: the options of `DDPM`.

    Raises:
        UserError: the shares add up to more than 1.
    """

    def __init__(
        self, drop_text: ProperFraction = 0.05, drop_image: ProperFraction = 0.05, drop_both: ProperFraction = 0.05, **diffusion: Any
    ) -> None:
        if (total := drop_text + drop_image + drop_both) > 1:
            shares = "model.drop_text, drop_image and drop_both"
            raise UserError(f"{shares} must add up to at most 1; got {total:g}; type model.drop_text=0.05")
        super().__init__(**diffusion)
        self.dropped = torch.tensor([drop_text, drop_image, drop_both])

    def asked(self, batch: dict[str, Any]) -> Tensor:
        """What each image of a batch is an answer to (B, ...)."""
        raise NotImplementedError

    def encode_source(self, images: Tensor) -> Tensor:
        """What is shown (B, *shape) of the source `images` (B,C,H,W) in [-1, 1]."""
        return self.codec.encode(images)

    def stored_source(self, latents: Tensor) -> Tensor:
        """What is shown (B, *shape) of sources that were encoded before: means (B,P,*shape), not standardised."""
        return self.codec.clean({"latent": latents}, draw=False)

    def shown(self, batch: dict[str, Any]) -> Tensor:
        """What each image of a batch is an edit of, encoded (B, *shape); NaN where the data has no sources."""
        if "source_latent" in batch:
            return self.stored_source(batch["source_latent"])
        if "source" in batch:
            return self.encode_source(batch["source"])
        return torch.full((len(batch["index"]), *self.codec.shape), math.nan, device=batch["index"].device)

    def told(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What the images are told and shown; in training some rows of either are NaN."""
        condition, source = self.asked(batch), self.shown(batch)
        if not self.training:
            return condition, source
        ends = self.dropped.to(source.device).cumsum(0)
        kind = torch.bucketize(torch.rand(len(condition), device=condition.device), ends, right=True)  # text, image, both, neither
        untold, unshown = (kind == 0) | (kind == 2), (kind == 1) | (kind == 2)
        return _without(condition, untold), _without(source, unshown)


def _without(part: Tensor, rows: Tensor) -> Tensor:
    return part.masked_fill(rows.reshape(-1, *(1,) * (part.ndim - 1)), NOTHING)


class Pix2Pix(Edits):
    """`Edits` from scratch: a UNet with the source as channels beside the noisy image, told labels of the data.

    Args:
        network: with the option `edits`, and an `injection`, that of the model.
        condition_names, condition_groups, condition_examples: as of `ClassConditional`.
        injection: how the network is told: added to its time embedding, or as channels beside the image.
        autoencoder: where the run that trains it finds the autoencoder whose latents it works in; null: it works in pixels.
        editing: the options of `Edits`.
    """

    family = "pix2pix"

    def __init__(
        self,
        network: UNet,
        condition_names: list[str],
        condition_groups: dict[str, list[str]],
        condition_examples: list[list[int]],
        injection: Literal["embedding", "channels"],
        autoencoder: str | None = None,
        **editing: Any,
    ) -> None:
        if network.injection != injection or not network.edits:
            raise UserError("model.network of model=pix2pix has edits=true and the injection of the model; set model.injection alone")
        super().__init__(network=Conditioned(network, len(condition_names), network.injected), **editing)
        self.labels = Labels(condition_names, condition_groups)
        self.examples = examples_of(condition_examples, len(condition_names))
        self.autoencoder = autoencoder

    def asked(self, batch: dict[str, Any]) -> Tensor:
        """The labels of the images (B, K)."""
        return batch["condition"]

    def usual_conditions(self, seeds: Sequence[int]) -> Tensor:
        """What the images of `seeds` are told where nobody asks for anything: each the labels of some training image, (B, K)."""
        return usual(self.examples, seeds)
