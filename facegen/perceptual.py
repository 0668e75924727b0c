"""The distance that an autoencoder is trained with: how far apart two images are to a network that learnt to see (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from facegen.errors import UserError
from facegen.metrics.lpips import SMALLEST, network_of
from facegen.metrics.names import TRAIN_A_PROBE
from facegen.metrics.probe import LUMA
from facegen.metrics.weights import ALEXNET, VGG16, located, sha256_of

if TYPE_CHECKING:
    from facegen.loading import LoadedProbe

PUBLISHED = {"vgg": VGG16, "alex": ALEXNET}
SMALLEST_OF = {"vgg": 16, "alex": SMALLEST}  # pixels that leave the last pooling anything to pool
TINY = 1e-8  # added to the squared length of a feature, so that a place without any has a gradient (as torchmetrics' LPIPS does)


class Perceptual(Protocol):
    """A distance between images; `identity` names the network and its weights."""

    identity: dict[str, str]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance (B,) float32, 0 for equal images, of each of `a` to its counterpart in `b`, both (B, C, H, W) in [-1, 1].

        It can be differentiated in both. Images are grey or RGB, and may reach a little beyond [-1, 1]. Raises UserError for anything
        else, and for images too small for the network.
        """
        ...

    def to(self, device: str | torch.device) -> Self:
        """The same distance, moved to `device`."""
        ...


def find(
    kind: Literal["vgg", "alex", "probe"] | None,
    weights: str | None,
    probe: str | None,
    load_probe: Callable[[str], Any],
    prefix: str = "model.",
) -> Perceptual | None:
    """The distance of a `kind`, on the CPU: LPIPS 0.1 with VGG-16 or AlexNet, that of a facegen probe's features, or None for none.

    `weights` is the file of the backbone's weights, None for torch's cache and the network; `probe` a run or checkpoint, which `load_probe`
    loads (`facegen.loading.load_probe`). `prefix` stands before the names of options in messages.

    Raises:
        UserError: there are no weights or there is no probe (it names what works without), or they cannot be read.
    """
    if kind is None:
        return None
    if kind == "probe":
        if probe is None:
            asked = f"{prefix}perceptual=probe sees by the features of a probe"
            raise UserError(f"{asked}; type {prefix}probe=RUN, or {prefix}perceptual=null; {TRAIN_A_PROBE}")
        return FeatureDistance(load_probe(probe))
    published = replace(PUBLISHED[kind], option=f"{prefix}perceptual_weights")
    instead = f"{prefix}perceptual=probe {prefix}probe=RUN works without them, and so does {prefix}perceptual=null"
    return LearnedDistance(kind, located(published, weights, instead)[0])


class _Distance(nn.Module):
    """What all have in common: a frozen network that computes in float32, whatever is around it."""

    identity: dict[str, str]

    def __init__(self, network: nn.Module, smallest: int) -> None:
        super().__init__()
        self.network: Any = network.requires_grad_(False).eval()
        self.smallest = smallest

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
            raise UserError(f"images must be two (B, C, H, W) with 1 or 3 channels; got {tuple(a.shape)} and {tuple(b.shape)}")
        for images in (a, b):
            if not images.is_floating_point():
                raise UserError(f"images must be float in [-1, 1]; got {images.dtype}; convert with facegen.images.to_float")
        if min(a.shape[2:]) < self.smallest:
            least, got = f"images must be at least {self.smallest} px for this perceptual network", f"{a.shape[3]} x {a.shape[2]}"
            raise UserError(f"{least}; got {got}; raise data.resolution, or type model.perceptual=null")
        with torch.autocast(a.device.type, enabled=False):
            return self._between(a.float(), b.float())

    def _between(self, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError


class LearnedDistance(_Distance):
    """LPIPS 0.1 with VGG-16 or AlexNet, whose weights come from the file `path`; the linear heads are torchmetrics'.

    VGG-16 takes images of 16 px and more, AlexNet of 31. Raises UserError where the file holds code or weights of another network.
    """

    def __init__(self, kind: Literal["vgg", "alex"], path: Path) -> None:
        super().__init__(network_of(kind, path), SMALLEST_OF[kind])
        self.identity = {
            "name": "lpips",
            "sha256": sha256_of(path),
            "network": f"torchmetrics lpips {kind} 0.1",
            "resize": "none",
            "dtype": "float32",
        }

    def _between(self, a: Tensor, b: Tensor) -> Tensor:
        return self.network(*(images.expand(-1, 3, -1, -1) for images in (a, b))).flatten()


class FeatureDistance(_Distance):
    """The distance in the features of a trained probe, computed as LPIPS is, with all channels weighing alike.

    The activations after the probe's stem and after each of its blocks are brought to length 1 over the channels at every place; of their
    differences the square is summed over the channels and averaged over the places and then over the layers, which makes 0 to 4. Images
    are seen at their own size, whatever the probe was trained on; grey ones are repeated, or RGB ones become ITU-R 601 luma, where the
    probe has other channels.
    """

    luma: Tensor

    def __init__(self, loaded: LoadedProbe) -> None:
        network = loaded.probe.network
        super().__init__(network, 2 * network.stem.stride[0])  # two places by two: the groups of a single one may be single numbers
        self.channels = int(loaded.data["channels"])
        self.register_buffer("luma", torch.tensor(LUMA)[:, None, None], persistent=False)
        self.identity = {
            "name": "probe features",
            "sha256": loaded.sha256,
            "data": str(loaded.data["fingerprint"]),
            "ema": loaded.ema,
            "channels": str(self.channels),
            "resize": "none",
            "dtype": "float32",
        }

    def _between(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self._features(a), self._features(b), strict=True)
        return torch.stack([(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in pairs]).mean(dim=0)

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        """The activations (B, D, h, w) after the stem and each block, each of length 1 over its channels."""
        h = self.network.stem(self._fitted(images).contiguous(memory_format=torch.channels_last))
        yield _unit(h)
        for block in self.network.blocks:
            h = block(h)
            yield _unit(h)

    def _fitted(self, images: Tensor) -> Tensor:
        """The images with the probe's channels."""
        if self.channels == 1 and images.shape[1] == 3:
            return (images * self.luma).sum(dim=1, keepdim=True)
        return images.expand(-1, self.channels, -1, -1)


def _unit(features: Tensor) -> Tensor:
    return features * (features.square().sum(dim=1, keepdim=True) + TINY).rsqrt()
