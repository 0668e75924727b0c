"""Latent diffusion: the DDPM family in the latents of an autoencoder (Rombach et al. 2022), told something or nothing."""

from __future__ import annotations

from typing import Any

from facegen.families.class_conditional import ClassConditional
from facegen.families.ddpm import DDPM


class LatentDiffusion(DDPM):
    """DDPM whose codec is `facegen.codecs.Latents`.

    Args:
        autoencoder: where the run that trains it finds the autoencoder: a run, a checkpoint, or a folder of diffusers' `AutoencoderKL`;
            null: the run trains one first. A trained model carries its autoencoder with it.
        diffusion: the options of `DDPM`.
    """

    family = "ldm"

    def __init__(self, autoencoder: str | None = None, **diffusion: Any) -> None:
        super().__init__(**diffusion)
        self.autoencoder = autoencoder


class ConditionalLatentDiffusion(ClassConditional):
    """`LatentDiffusion` that is told classes and attributes: `ClassConditional` with the same `autoencoder` and codec."""

    family = "ldm"

    def __init__(self, autoencoder: str | None = None, **diffusion: Any) -> None:
        super().__init__(**diffusion)
        self.autoencoder = autoencoder
