"""The probe as an extractor: features for distances between sets of faces, where no Inception weights are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from facegen.errors import UserError
from facegen.generate import in_groups
from facegen.images import to_float
from facegen.metrics.features import require_uint8

if TYPE_CHECKING:
    from facegen.loading import LoadedProbe

AREA = 2**16  # values in one channel that the network is given at a time: 64 images of 32 px
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
RESIZE = "torch bilinear, antialias, in float32"


class ProbeExtractor:
    """Features and answers of a trained probe.

    They depend on the image alone, not on the batch it comes in: the network always sees groups of one fixed size, because matrix
    products of another size round otherwise. `identity` names the weights, the data they were trained on and how images are brought to
    the probe's size and channels; `names` are those of the logits, `groups` of those that exclude each other. `fingerprint` and `options`
    are of the data that it was trained on.
    """

    name = "probe"

    def __init__(self, loaded: LoadedProbe, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.probe = loaded.probe.to(self.device)
        self.resolution, self.channels = int(loaded.data["resolution"]), int(loaded.data["channels"])
        self.names: list[str] = loaded.data["condition_names"]  # of the logits
        self.groups: dict[str, list[str]] = loaded.data["condition_groups"]
        self.fingerprint, self.options = str(loaded.data["fingerprint"]), dict(loaded.config["data"])
        self.identity: dict[str, str] = {
            "name": self.name,
            "sha256": loaded.sha256,
            "data": self.fingerprint,
            "ema": loaded.ema,
            "resolution": str(self.resolution),
            "channels": str(self.channels),
            "dtype": "float32",
            "resize": RESIZE,
            "grey": "repeated, or ITU-R 601 luma",
        }

    def __call__(self, images: Tensor) -> dict[str, np.ndarray]:
        """`features` (B, D) and `logits` (B, K), float32, of `images` (B, C, H, W) uint8, of any size, grey or RGB.

        Raises UserError for anything else.
        """
        if require_uint8(images).ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"images must be (B, C, H, W) with 1 or 3 channels; got {tuple(images.shape)}")
        group = max(1, AREA // self.resolution**2)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            said = in_groups(self._ask, group, images)
        size = self.probe.network.size
        return {"features": said[:, :size].numpy(), "logits": said[:, size:].numpy()}

    def _ask(self, images: Tensor) -> Tensor:
        """Features and logits side by side, (B, D + K), of `images` uint8."""
        features = self.probe.features(self._fitted(to_float(images.to(self.device))))
        return torch.cat([features, self.probe.logits(features)], dim=1).cpu()

    def _fitted(self, x: Tensor) -> Tensor:
        """The images `x` (B, C, H, W) float32 with the probe's channels and size."""
        if self.channels == 1 and x.shape[1] == 3:
            x = (x * torch.tensor(LUMA, device=x.device)[:, None, None]).sum(dim=1, keepdim=True)
        elif self.channels == 3 and x.shape[1] == 1:
            x = x.repeat(1, 3, 1, 1)
        if x.shape[-2:] != (self.resolution, self.resolution):
            x = interpolate(x, size=(self.resolution, self.resolution), mode="bilinear", antialias=True)
        return x
