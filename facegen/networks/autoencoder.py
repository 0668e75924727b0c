"""Autoencoders: diffusers' `AutoencoderKL` and `VQModel` behind one interface, with a Gaussian or a codebook between their halves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.utils.checkpoint import checkpoint

from facegen.networks.checks import check_autoencoder, factor_of
from facegen.types import NonNegativeFloat, PositiveInt


class Coded(NamedTuple):
    """What training sees of images (B,C,H,W): their reconstruction, like them, and the weighted penalty on their latents (B,)."""

    images: Tensor
    penalty: Tensor


class Autoencoder(nn.Module):
    """What both kinds have in common. Images (B,C,H,W) are float in [-1, 1], H and W divisible by `factor`; latents are
    (B, latent_channels, H / factor, W / factor).

    Args:
        channels: of the images.
        widths: channels of each stage; the feature maps are halved from stage to stage, so that the images shrink by
            patch * 2 ** (len(widths) - 1).
        latent_channels: channels of the latents.
        layers: ResNet blocks of a stage of the encoder; one more in the decoder.
        groups: groups of the group normalisation; divides every width.
        attention: whether the middle attends to itself.
        patch: side of the squares of pixels that are folded into channels before the encoder and unfolded after the decoder: at full
            resolution a convolution costs most and sees least.
        gradient_checkpointing: computes the blocks again in the backward pass instead of keeping their activations.
        channels_last: keeps weights and activations with the channels innermost in memory: in bfloat16 on a CPU 1.2 to 1.6 times faster.

    Raises:
        UserError: the sizes do not fit together; one line for each problem (`facegen.networks.checks`).
    """

    spread = True  # whether an image has a distribution of latents rather than one latent
    model: Any

    def __init__(
        self,
        *,
        channels: PositiveInt,
        widths: list[int],
        latent_channels: PositiveInt,
        layers: PositiveInt = 2,
        groups: PositiveInt = 32,
        attention: bool = True,
        patch: PositiveInt = 1,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
    ) -> None:
        check_autoencoder(widths=widths, groups=groups)
        super().__init__()
        self.channels, self.latent_channels, self.patch = channels, latent_channels, patch
        self.factor = factor_of(widths, patch)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.gradient_checkpointing = gradient_checkpointing
        self.shape = {
            "in_channels": channels * patch**2,
            "out_channels": channels * patch**2,
            "down_block_types": ("DownEncoderBlock2D",) * len(widths),
            "up_block_types": ("UpDecoderBlock2D",) * len(widths),
            "block_out_channels": tuple(widths),
            "layers_per_block": layers,
            "latent_channels": latent_channels,
            "norm_num_groups": groups,
            "mid_block_add_attention": attention,
        }

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of `images`, float32."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """The images of the latents `z`, which may reach a little beyond [-1, 1]."""
        raise NotImplementedError

    @property
    def last(self) -> Tensor:
        """The weights of the last layer, through which every loss of the images has to pass."""
        return self.model.decoder.conv_out.weight

    def _furnish(self, model: Any) -> None:
        """Takes diffusers' `model` as its own."""
        self.model = model
        self.to(memory_format=self.memory_format)
        if self.gradient_checkpointing:
            model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=partial(checkpoint, use_reentrant=False))

    def _folded(self, images: Tensor) -> Tensor:
        return pixel_unshuffle(images, self.patch).contiguous(memory_format=self.memory_format)


class KLAutoencoder(Autoencoder):
    """An autoencoder whose latents are Gaussians, kept near the standard one (Kingma and Welling 2014; Rombach et al. 2022, section 3.1).

    Args:
        kl: weight of the Kullback-Leibler divergence to the standard Gaussian, summed over the latents and divided by the number of
            image values, so that 1e-6 is that of Rombach et al.
        quant_conv: 1 x 1 convolutions on both sides of the latents, as Stable Diffusion 1 and 2 have them and 3 has not.
        shape: the options of `Autoencoder`.
    """

    def __init__(self, *, kl: NonNegativeFloat = 1e-6, quant_conv: bool = True, **shape: Any) -> None:
        super().__init__(**shape)
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # seconds of import

        self.kl = kl
        self._furnish(AutoencoderKL(**self.shape, use_quant_conv=quant_conv, use_post_quant_conv=quant_conv))

    def begin_with(self, folder: Path) -> None:
        """Takes over the weights of diffusers' `AutoencoderKL` in `folder`; raises what reading and `load_state_dict` raise."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        theirs: Any = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False)
        self.model.load_state_dict(theirs.state_dict(), strict=True)

    def _posterior(self, images: Tensor) -> Any:
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        return DiagonalGaussianDistribution(self.model.encode(self._folded(images)).latent_dist.parameters.float())

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self._posterior(images)
        return posterior.mean, posterior.std

    def decode(self, z: Tensor) -> Tensor:
        return pixel_shuffle(self.model.decode(z).sample, self.patch)

    def forward(self, images: Tensor) -> Coded:
        """The reconstruction from one draw of the latents, by torch's generator, and the penalty."""
        posterior = self._posterior(images)
        z = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
        return Coded(self.decode(z), self.kl * posterior.kl() / images[0].numel())


class VQAutoencoder(Autoencoder):
    """An autoencoder whose latents are vectors of a codebook (van den Oord et al. 2017; Esser et al. 2021).

    The latents that a diffusion model learns are those before the codebook, which `decode` rounds to its vectors (Rombach et al. 2022,
    section 3.1).

    Args:
        codebook: how many vectors there are.
        commitment: weight of the pull of the latents towards their vectors, beside 1 of that of the vectors towards the latents.
        shape: the options of `Autoencoder`.
    """

    spread = False

    def __init__(self, *, codebook: PositiveInt = 8192, commitment: NonNegativeFloat = 0.25, **shape: Any) -> None:
        super().__init__(**shape)
        from diffusers.models.autoencoders.vae import VectorQuantizer
        from diffusers.models.autoencoders.vq_model import VQModel

        model = VQModel(**self.shape, num_vq_embeddings=codebook)
        # diffusers' own weighs the other of the two pulls with beta, as an early release of Esser et al. did by mistake
        model.quantize = VectorQuantizer(codebook, self.latent_channels, beta=commitment, legacy=False)
        self._furnish(model)

    def _latents(self, images: Tensor) -> Tensor:
        return self.model.encode(self._folded(images)).latents.float()

    def _quantized(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):  # distances to the codebook want all their digits
            rounded, penalty, _ = self.model.quantize(z.float())
        return rounded, penalty

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        z = self._latents(images)
        return z, torch.zeros_like(z)

    def decode(self, z: Tensor) -> Tensor:
        return self._decoded(self._quantized(z)[0])

    def _decoded(self, rounded: Tensor) -> Tensor:
        return pixel_shuffle(self.model.decode(rounded, force_not_quantize=True).sample, self.patch)

    def forward(self, images: Tensor) -> Coded:
        """The reconstruction from the nearest vectors of the codebook, and the penalty."""
        rounded, penalty = self._quantized(self._latents(images))
        return Coded(self._decoded(rounded), penalty.expand(len(images)))
