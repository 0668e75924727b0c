"""The network of FID and IS: torch-fidelity's Inception with the weights of 2015, computed in another order to be fast on a CPU."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3

from facegen.errors import UserError
from facegen.generate import in_groups
from facegen.memory import keep_freed_memory
from facegen.metrics.features import require_uint8
from facegen.metrics.weights import INCEPTION, fill

SIZE = 299  # pixels that the network takes
GROUP = 16  # images that it is given at a time: more are no faster on a CPU


class Inception:
    """Features and answers of the network that FID (Heusel et al. 2017) and IS (Salimans et al. 2016) are defined by.

    The weights come from the file `path` and go by `sha256`; `official` says whether they are the published ones. Numbers agree with
    torch-fidelity's `inception-v3-compat` to the rounding of float32 and depend on the image alone, not on the batch it comes in: the
    network always sees `GROUP` images, because matrix products of another size round otherwise. Raises UserError where the file holds
    code or weights of another network.
    """

    name = "inception"

    def __init__(self, path: Path, sha256: str, device: str | torch.device = "cpu") -> None:
        self.device, self.official = torch.device(device), sha256 == INCEPTION.sha256
        self.identity: dict[str, str] = {
            "name": self.name,
            "sha256": sha256,
            "network": "torch-fidelity inception-v3-compat",
            "resize": f"bilinear like TensorFlow 1, to {SIZE}",
            "dtype": "float32",
        }
        network = unloaded()
        fill(network, path)
        _fold(network)
        network.to(self.device).to(memory_format=torch.channels_last)
        *layers, _ = network.children()  # in the order they are computed in
        self._features, self._answers = nn.Sequential(*layers, nn.Flatten()), network.fc.weight.T
        if self.device.type == "cpu":
            keep_freed_memory()

    def __call__(self, images: Tensor) -> dict[str, np.ndarray]:
        """`features` (B, 2048) and `logits` (B, 1008; without the bias, as IS has them), float32, of `images` (B, C, H, W) uint8.

        Images are grey or RGB and of any size. Raises UserError for anything else.
        """
        if require_uint8(images).ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"images must be (B, C, H, W) with 1 or 3 channels; got {tuple(images.shape)}")
        exact = torch.backends.cudnn.flags(deterministic=True, allow_tf32=False)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), exact:
            said = in_groups(self._ask, GROUP, images)
        size = self._answers.shape[0]
        return {"features": said[:, :size].numpy(), "logits": said[:, size:].numpy()}

    def _ask(self, images: Tensor) -> Tensor:
        """Features and logits side by side, (B, 2048 + 1008)."""
        features = self._features(resized(images.to(self.device)))
        return torch.cat([features, features @ self._answers], dim=1).cpu()


def resized(images: Tensor) -> Tensor:
    """`images` (B, C, H, W) uint8 as the network takes them: (B, 3, 299, 299) float32 in [-1, 1), channels innermost in memory.

    Bit for bit torch-fidelity's bilinear resize like TensorFlow 1, without its four gathers of the whole picture: columns are
    resized first, and on the rows of the image alone.
    """
    x = images.permute(0, 2, 3, 1).contiguous().float()
    for axis in (2, 1):
        size = x.shape[axis]
        at = torch.arange(SIZE, dtype=torch.float32, device=x.device) * torch.tensor(size / SIZE, dtype=torch.float32)
        before = at.long()
        low, high = x.index_select(axis, before), x.index_select(axis, (before + 1).clamp_max(size - 1))
        x = high.sub_(low).mul_((at - before).view(-1, *[1] * (3 - axis))).add_(low)
    x = x.sub_(128).div_(128).expand(-1, -1, -1, 3).contiguous()
    return x.permute(0, 3, 1, 2)


def unloaded() -> FeatureExtractorInceptionV3:
    """torch-fidelity's network before it has weights: it would read a user's file with whatever code is in it."""

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:
            """The constructor's only use of weights."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Unloaded("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=nothing)


def _fold(network: nn.Module) -> None:
    """Makes each normalisation a part of the convolution before it."""
    for block in [module for module in network.modules() if isinstance(module, BasicConv2d)]:
        block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
