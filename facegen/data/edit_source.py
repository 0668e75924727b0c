"""What a model that edits learns from: of every image another one, its source, from which it is to be found again.

The photographs of one person at two ages are rare. In their place a source can be the photograph itself with what tells its age taken
away; a drawn person can be drawn again at another age.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from facegen.errors import UserError
from facegen.images import to_float, to_uint8
from facegen.regions import FFHQ, Box, inside, regions
from facegen.seeding import torch_generator

PAIRED = "paired"
GREY = 128


@dataclass(frozen=True)
class EditSource:
    """How the source of an image is made.

    Args:
        kind: `noised` adds Gaussian noise (report 1), `lowpass` leaves what `size` pixels a side can hold, `masked` covers the face with
            grey, `self` is the image itself, `none` that there is no source at all; `paired` is the same person at another age, which only
            drawn data has.
        noise: standard deviation of the noise; images span [-1, 1].
        size: side, in pixels, of what a low-passed image is enlarged from.
        face: left, top, right and bottom of what is masked, as fractions of the side.
    """

    kind: str | None = None
    noise: float = 0.5
    size: int = 8
    face: Box = FFHQ.face

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> EditSource:
        """That of the data module with this configuration."""
        return cls(data.get("source"), data.get("source_noise", cls.noise), data.get("source_size", cls.size), regions(data).face)

    @property
    def shows(self) -> bool:
        """Whether there is a source."""
        return self.kind not in (None, "none")

    def __call__(self, images: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """The sources (B,C,H,W) uint8 of `images` (B,C,H,W) uint8 with the numbers `indices` (B,), which key the noise.

        A pair is none that could be made of an image: for `paired` it is the image.
        """
        match self.kind:
            case "noised":
                return self._noised(images, indices)
            case "lowpass":
                return self._lowpass(images)
            case "masked":
                return self._masked(images)
            case _:
                return images.copy()

    def _noised(self, images: np.ndarray, indices: np.ndarray) -> np.ndarray:
        noise = torch.stack([torch.randn(images.shape[1:], generator=torch_generator("edit source", int(i))) for i in indices])
        return to_uint8(to_float(torch.from_numpy(images)) + self.noise * noise).numpy()

    def _lowpass(self, images: np.ndarray) -> np.ndarray:
        small = interpolate(to_float(torch.from_numpy(images)), size=(self.size, self.size), mode="area")
        return to_uint8(interpolate(small, size=images.shape[-2:], mode="bicubic", align_corners=False)).numpy()

    def _masked(self, images: np.ndarray) -> np.ndarray:
        masked = images.copy()
        masked[:, :, *inside(self.face, images.shape[-1])] = GREY
        return masked


def edit_source(module: str, kind: str | None, noise: float, size: int, resolution: int, crop: str = "square") -> EditSource:
    """The source that the options `data.source`, `source_noise` and `source_size` of a data `module` ask for, by the name of its class.

    Raises UserError where they cannot be.
    """
    if kind == "lowpass" and size >= resolution:
        way_out = f"type data.source_size={max(1, resolution // 4)}"
        raise UserError(f"data.source_size must be less than data.resolution={resolution}; got {size}; {way_out}")
    return EditSource(kind, noise, size, regions({"_target_": module, "crop": crop}).face)
