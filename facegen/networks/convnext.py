"""ConvNeXt blocks in place of the UNet's ResNet blocks."""

from __future__ import annotations

from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, figure 4) shifted by the time embedding, called as diffusers' `ResnetBlock2D` is.

    7 x 7 depthwise convolution, plus a linear map of the time embedding, normalised over each image, 1 x 1 convolution to `expansion` times
    `out_channels`, GELU, 1 x 1 convolution to `out_channels`, plus the input (through a 1 x 1 convolution where the channels change).
    """

    def __init__(self, in_channels: int, out_channels: int, time_channels: int, dropout: float = 0.0, expansion: int = 4) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, kernel_size=7, padding=3, groups=in_channels)
        self.time_shift = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, in_channels))
        self.expand = nn.Sequential(
            nn.GroupNorm(1, in_channels), nn.Conv2d(in_channels, expansion * out_channels, kernel_size=1), nn.GELU(), nn.Dropout(dropout)
        )
        self.project = nn.Conv2d(expansion * out_channels, out_channels, kernel_size=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, time_embedding: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, time_channels) to (B, out_channels, H, W)."""
        shifted = self.depthwise(x) + self.time_shift(time_embedding)[:, :, None, None]
        return self.shortcut(x) + self.project(self.expand(shifted))


def replace_resnet_blocks(unet: nn.Module, time_channels: int, dropout: float) -> None:
    """Puts a ConvNeXt block of the same channels in the place of every ResNet block of diffusers' `unet`."""
    for name, block in list(unet.named_modules()):
        if isinstance(block, ResnetBlock2D):
            unet.set_submodule(name, ConvNeXtBlock(block.in_channels, block.out_channels, time_channels, dropout))
