"""Codecs: what a denoiser sees of an image. In pixels that is the image itself; a DDPM and a latent model share all the rest."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from facegen.types import PositiveInt


class Codec(Protocol):
    """Between images (B,C,H,W) in [-1, 1] and what the denoiser sees, (B, *shape)."""

    shape: tuple[int, int, int]  # of what the denoiser sees
    image_shape: tuple[int, int, int]
    limit: float | None  # largest value of a clean encoding, None where there is no such bound

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, x: Tensor) -> Tensor: ...


class Pixels:
    """The image itself: the codec of a model that works in pixel space."""

    limit: float | None = 1.0

    def __init__(self, resolution: PositiveInt = 32, channels: PositiveInt = 3) -> None:
        self.shape = self.image_shape = (channels, resolution, resolution)

    def encode(self, images: Tensor) -> Tensor:
        """`images` (B,C,H,W) in [-1, 1], as they are."""
        return images

    def decode(self, x: Tensor) -> Tensor:
        """The images (B,C,H,W) for `x` (B,C,H,W), as they are; a sampler's answer may reach a little beyond [-1, 1]."""
        return x
