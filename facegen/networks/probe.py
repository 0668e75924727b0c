"""The network of the probe: a small residual classifier whose features measure generated faces where no Inception weights are at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from facegen.networks.checks import check_probe
from facegen.types import PositiveInt, ProperFraction


class ProbeNet(nn.Module):
    """A residual network (He et al. 2016) from images of any size to D features.

    Group normalisation (Wu & He 2018) has no running statistics, so that averaged weights are all there is to average. The features are
    means over the picture: one network takes every resolution.

    Args:
        channels: of the images; 1 is grey, 3 is RGB.
        widths: channels of each stage; the feature maps are halved from stage to stage.
        blocks: residual blocks of a stage.
        patch: pixels between two places where the first convolution looks.
        features: D, how many numbers an image is described by.
        groups: groups of the group normalisation; divides every width.
        dropout: probability of a zero among the features that the labels are read from, in training.

    Raises:
        UserError: the sizes do not fit together; one line for each problem (`facegen.networks.checks`).
    """

    def __init__(
        self,
        *,
        channels: PositiveInt,
        widths: list[int] = [48, 96, 192],  # noqa: B006 (never changed)
        blocks: PositiveInt = 1,
        patch: PositiveInt = 2,
        features: PositiveInt = 128,
        groups: PositiveInt = 8,
        dropout: ProperFraction = 0.0,
    ) -> None:
        check_probe(widths=widths, groups=groups)
        super().__init__()
        self.size = features
        self.stem = nn.Conv2d(channels, widths[0], 3 * patch, stride=patch, padding=patch)
        stages = [(before, width, n) for before, width in zip([widths[0], *widths], widths, strict=False) for n in range(blocks)]
        self.blocks = nn.ModuleList(
            Block(width if n else before, width, groups, halve=n == 0 and i > 0) for i, (before, width, n) in enumerate(stages)
        )
        self.last = nn.GroupNorm(groups, widths[-1])
        self.project = nn.Linear(widths[-1], features)
        self.dropout = nn.Dropout(dropout)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """The features (B, D) of the images `x` (B, C, H, W), float32 in [-1, 1]."""
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h)
        return silu(self.project(silu(self.last(h)).mean(dim=(2, 3))))


class Classifier(nn.Module):
    """A feature network with one linear map from its features to a logit for each of `outputs` labels."""

    def __init__(self, network: ProbeNet, outputs: int) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(network.size, outputs)

    def features(self, x: Tensor) -> Tensor:
        """The features (B, D) of the images `x` (B, C, H, W), float32 in [-1, 1]."""
        return self.network(x)

    def logits(self, features: Tensor) -> Tensor:
        """The logits (B, K) for `features` (B, D), which dropout thins out in training."""
        return self.head(self.network.dropout(features))

    def forward(self, x: Tensor) -> Tensor:
        """The logits (B, K) of the images `x` (B, C, H, W), float32 in [-1, 1]."""
        return self.logits(self.features(x))


class Block(nn.Module):
    """Two normalised convolutions (B, before, H, W) -> (B, width, H, W) beside a short cut; with `halve` H and W become half."""

    def __init__(self, before: int, width: int, groups: int, halve: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, before), nn.Conv2d(before, width, 3, padding=1, stride=2 if halve else 1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if halve else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return self.shortcut(self.pool(x)) + h
