"""LPIPS, the distance between two images in the features of AlexNet that agrees with people's judgement (Zhang et al. 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _NoTrainLpips

from facegen.errors import UserError
from facegen.generate import in_groups
from facegen.images import to_float
from facegen.metrics.features import require_uint8
from facegen.metrics.weights import fill, sha256_of

AREA = 2**17  # pixels that the network is given at a time: 32 images of 64 px
SMALLEST = 31  # pixels that leave AlexNet's last pooling anything to pool


def network_of(net: Literal["alex", "vgg"], path: Path) -> nn.Module:
    """torchmetrics' network of LPIPS 0.1 with AlexNet or VGG-16, frozen and on the CPU; the backbone's weights come from the file `path`.

    It maps two batches of images (B, 3, H, W) in [-1, 1] to (B, 1, 1, 1). Raises UserError where the file holds code or weights of
    another network.
    """
    with torch.random.fork_rng(devices=[]):  # what is drawn here is thrown away: it must not change what is drawn next
        network = _NoTrainLpips(net=net, pnet_rand=True)  # random, so that nothing is downloaded
    fill(network.net, path, lambda name: f"features.{name.partition('.')[2]}")  # torchmetrics has them in slices
    return network


class LPIPS:
    """The distance of version 0.1 with AlexNet, whose weights come from the file `path`; the linear heads are torchmetrics'.

    Raises UserError where the file holds code or weights of another network.
    """

    name = "lpips"

    def __init__(self, path: Path, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.identity: dict[str, str] = {
            "name": self.name,
            "sha256": sha256_of(path),
            "network": "torchmetrics lpips alex 0.1",
            "resize": "none",
            "dtype": "float32",
        }
        self._network = network_of("alex", path).to(self.device)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS (B,) float32 on the CPU, 0 for equal images, of each of `a` to its counterpart in `b`, both (B, C, H, W) uint8.

        Images are grey or RGB, at their own size, which must be 31 px at least. Raises UserError for anything else.
        """
        if require_uint8(a).shape != require_uint8(b).shape or a.ndim != 4 or a.shape[1] not in (1, 3):
            raise UserError(f"images must be two (B, C, H, W) with 1 or 3 channels; got {tuple(a.shape)} and {tuple(b.shape)}")
        if min(a.shape[2:]) < SMALLEST:
            raise UserError(f"images must be at least {SMALLEST} px for LPIPS; got {a.shape[3]} x {a.shape[2]}; leave lpips out")
        group = max(1, AREA // (a.shape[2] * a.shape[3]))
        exact = torch.backends.cudnn.flags(deterministic=True, allow_tf32=False)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), exact:
            return in_groups(self._between, group, a, b)

    def _between(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = (to_float(images.to(self.device)).expand(-1, 3, -1, -1) for images in (a, b))
        return self._network(a, b).flatten().cpu()
