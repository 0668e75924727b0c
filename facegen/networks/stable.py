"""Stable Diffusion's UNet, widened to be shown a source image (Brooks et al. 2023), by adapter over diffusers' `UNet2DConditionModel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facegen.errors import UserError
from facegen.types import PositiveInt

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]  # the linear maps of every attention layer, as Hu et al. 2022 adapt them
LATENT = 4


class StableUNet(nn.Module):
    """The UNet that `architecture` describes, with as many channels again for the source.

    Args:
        architecture: what `UNet2DConditionModel` is made from, as its config.json has it: it follows from model.pretrained.
        length: tokens that a prompt has, T below: of the text encoder.
        lora: rank of low-rank adapters on all attention layers (Hu et al. 2022): they and the first convolution, whose new channels
            have to be learnt, are all that is trained. null: everything is.
        lora_alpha: their scale is lora_alpha / lora; null is lora.
        gradient_checkpointing: computes the blocks again in the backward pass instead of keeping their activations.

    `trained` are the names of the parameters that are trained. `null` (T,D) is the embedding of the empty prompt, which stands where
    nothing is told.
    """

    null: Tensor

    def __init__(
        self,
        *,
        architecture: dict[str, Any],
        length: PositiveInt = 77,
        lora: PositiveInt | None = None,
        lora_alpha: PositiveInt | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        self.lora = lora
        self.unet: Any = widened(UNet2DConditionModel.from_config(architecture))
        self.register_buffer("null", torch.zeros(length, int(architecture["cross_attention_dim"])))
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if lora:
            self._adapt(lora, lora_alpha or lora)
        self.trained = frozenset(name for name, parameter in self.named_parameters() if parameter.requires_grad)

    def _adapt(self, rank: int, alpha: int) -> None:
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise UserError(f"model.network.lora={rank} needs the package peft; type pip install peft, or leave it out") from error
        self.unet.requires_grad_(False)
        self.unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=ATTENTION))
        self.unet.conv_in.requires_grad_(True)

    def begin_with(self, folder: Path) -> None:
        """Takes over the weights in `folder`, of a UNet with or without the channels of a source; adapters stay as they are."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        theirs: Any = UNet2DConditionModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False)
        known = widened(theirs).state_dict()
        ours = self.unet.state_dict()
        adapted = {name: known.get(name.replace(".base_layer.", "."), own) for name, own in ours.items()}
        self.unet.load_state_dict(adapted, strict=True)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        """The prediction (B,4,h,w) for the latents `x` (B,4,h,w) at the times `t` (B,).

        `condition` (B,T,D) is the embedding of a prompt, `source` (B,4,h,w) the latent of the image to be edited, not scaled; a row of NaN
        says or shows nothing, as does None.
        """
        null = self.null.expand(len(x), *self.null.shape)
        told = null if condition is None else torch.where(condition.isnan(), null, condition)
        shown = torch.zeros_like(x) if source is None else source.nan_to_num()
        return self.unet(torch.cat([x, shown.to(x)], dim=1), t, encoder_hidden_states=told.to(x), return_dict=False)[0]


def widened(unet: Any) -> Any:
    """`unet` with 8 input channels, of which the last 4 have no weight yet: it answers as before to the bit; one that has them as it is."""
    narrow = unet.conv_in
    if narrow.in_channels != LATENT:
        return unet
    wide = nn.Conv2d(2 * LATENT, narrow.out_channels, narrow.kernel_size, narrow.stride, narrow.padding)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, :LATENT].copy_(narrow.weight)
        assert wide.bias is not None, "a convolution has one unless it is told otherwise"
        wide.bias.copy_(narrow.bias)
    unet.conv_in = wide
    unet.register_to_config(in_channels=2 * LATENT)
    return unet
