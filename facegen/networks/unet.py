"""The UNet of the diffusion models: diffusers' `UNet2DModel` behind patches, with a choice of blocks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from facegen.networks.checks import check_unet, feature_map_sizes
from facegen.types import PositiveInt, ProperFraction

PLAIN_STAGES = {"conv": ("DownBlock2D", "UpBlock2D"), "resnet": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")}  # no attention
STARTS_AT_ZERO = ("conv2", "project", "to_out.0", "conv_out")  # the last layers of ResNet block, ConvNeXt block, attention and network


class UNet(nn.Module):
    """A UNet with residual blocks and self-attention (Ho et al. 2020), by adapter over diffusers' `UNet2DModel`.

    The last layer of every residual branch and of the network starts at zero (as in the code of Ho et al. 2020 and Karras et al. 2022):
    a fresh network answers 0 whatever it is asked, and learns faster at first (unet_1m on 32 px faces: held-out loss 0.45 against 0.50
    after 400 steps, 0.262 against 0.263 after 1000).

    Args:
        resolution: side of the square image, in pixels; divisible by patch * 2 ** (len(widths) - 1).
        channels: channels of the input, and of the output unless `out_channels` is given.
        widths: channels of each stage; the feature maps are halved from stage to stage.
        attention: feature-map sizes, in pixels after the patches, of the stages whose blocks are followed by self-attention, where they
            occur. With any, the middle of the network attends too; [] is a network without attention.
        layers: blocks of a stage on the way down; one more on the way up.
        block: ResNet blocks (Ho et al. 2020) or ConvNeXt blocks (Liu et al. 2022).
        patch: side of the squares of pixels that are folded into channels before the network and unfolded after it.
        head_dim: channels of one attention head; divides the widths with attention.
        groups: groups of the group normalisation; divides every width.
        dropout: probability of a zero inside each block, in training.
        injection: how the network takes what it is told beside image and time: `embedding` adds it to the time embedding, `channels` hands
            it to the first layer as channels of one value each; null: it is told nothing. `injected` is how many numbers it takes.
        condition_channels: how many channels that are.
        edits: the network is shown a source image as well, as channels beside the noisy one (Saharia et al. 2022).
        scale_shift: the time embedding scales the normalised features of a ResNet block, and shifts them (Dhariwal and Nichol 2021).
        resample: what halves and doubles the feature maps: a convolution (Ho et al. 2020), or a ResNet block of its own, which knows the
            time and whose short cut is a mean of four pixels or a pixel four times (Dhariwal and Nichol 2021).
        gradient_checkpointing: computes the blocks of the stages again in the backward pass instead of keeping their activations; what
            stands between the stages keeps its own.
        channels_last: keeps weights and activations with the channels innermost in memory.

    Raises:
        UserError: the sizes do not fit together; one line for each problem (`facegen.networks.checks`).
    """

    def __init__(
        self,
        *,
        resolution: PositiveInt,
        channels: PositiveInt,
        widths: list[int],
        attention: list[int],
        layers: PositiveInt = 2,
        block: Literal["resnet", "convnext"] = "resnet",
        patch: PositiveInt = 1,
        head_dim: PositiveInt = 64,
        groups: PositiveInt = 32,
        dropout: ProperFraction = 0.0,
        out_channels: PositiveInt | None = None,
        injection: Literal["embedding", "channels"] | None = None,
        condition_channels: PositiveInt = 5,
        edits: bool = False,
        scale_shift: bool = False,
        resample: Literal["conv", "resnet"] = "conv",
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
    ) -> None:
        shape = {"resolution": resolution, "widths": widths, "attention": attention, "head_dim": head_dim, "groups": groups, "patch": patch}
        check_unet(**shape, block=block, scale_shift=scale_shift, resample=resample)
        from diffusers.models.unets.unet_2d import UNet2DModel  # seconds of import, needed only once a network is built

        super().__init__()
        plain_down, plain_up = PLAIN_STAGES[resample]
        attends = [size in attention for size in feature_map_sizes(resolution, widths, patch)]
        self.patch, self.injection, self.edits = patch, injection, edits
        self.injected = {"embedding": 4 * widths[0], "channels": condition_channels, None: 0}[injection]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.unet = UNet2DModel(
            in_channels=channels * (1 + edits) * patch**2 + (condition_channels if injection == "channels" else 0),
            out_channels=(out_channels or channels) * patch**2,
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            down_block_types=tuple("AttnDownBlock2D" if here else plain_down for here in attends),
            up_block_types=tuple("AttnUpBlock2D" if here else plain_up for here in reversed(attends)),
            downsample_type=resample,
            upsample_type=resample,
            add_attention=bool(attention),
            attention_head_dim=head_dim,
            norm_num_groups=groups,
            dropout=dropout,
            class_embed_type="identity" if injection == "embedding" else None,
            resnet_time_scale_shift="scale_shift" if scale_shift else "default",
        )
        self._furnish(block, 4 * widths[0], dropout, gradient_checkpointing)

    def _furnish(self, block: str, time_channels: int, dropout: float, gradient_checkpointing: bool) -> None:
        """Puts in what UNet2DModel has no argument for."""
        from facegen.networks.attention import use_self_attention
        from facegen.networks.convnext import replace_resnet_blocks

        use_self_attention(self.unet)
        if block == "convnext":
            replace_resnet_blocks(self.unet, time_channels, dropout)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        for name, module in self.unet.named_modules():
            if name.endswith(STARTS_AT_ZERO):
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)
        self.to(memory_format=self.memory_format)

    def forward(self, x: Tensor, t: Tensor, told: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        """The prediction (B, out_channels, H, W) for `x` (B, channels, H, W) at the times `t` (B,).

        The times are float32 of any sign in the schedule's embedding units, and stay float32 up to the embedding's sines also under
        autocast. `told` is (B, injected), required by a network that has an injection and ignored by one that has none. `source`, like
        `x`, is for one that edits; a row of NaN shows nothing, as does None.
        """
        if self.edits:
            x = torch.cat([x, torch.zeros_like(x) if source is None else source.nan_to_num().to(x)], dim=1)
        patches = pixel_unshuffle(x, self.patch)
        if self.injection == "channels" and told is not None:
            patches = torch.cat([patches, told[:, :, None, None].to(patches).expand(-1, -1, *patches.shape[2:])], dim=1)
        shift = told if self.injection == "embedding" else None
        patches = patches.contiguous(memory_format=self.memory_format)
        return pixel_shuffle(self.unet(patches, t, class_labels=shift, return_dict=False)[0], self.patch)
