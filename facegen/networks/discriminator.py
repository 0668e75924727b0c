"""The discriminator that an autoencoder is trained against in latent diffusion, and the losses of both (Esser et al. 2021, Rombach et al.
2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from facegen.networks.checks import check_discriminator, smallest
from facegen.types import PositiveInt

WIDEST = 8  # times `width`: deeper layers become no wider
STD = 0.02  # of the weights at first (Isola et al. 2017)
SLOPE = 0.2  # of the activations below 0 (Isola et al. 2017)
MOST = 1e4  # the adaptive weight at most, as in the code of Esser et al. 2021
STABLE = 1e-4  # added to the gradient that the adaptive weight divides by (Esser et al. 2021)


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of an image, real or not, each by a logit (Isola et al. 2017; with 3 layers a patch has 70 px).

    4 x 4 convolutions with leaky ReLUs: `layers` of stride 2, then one of stride 1, widths doubling from layer to layer up to 8 x `width`,
    then one to the logits. Between the first and the last layer there is group normalisation (Wu and He 2018) in place of the batch
    normalisation of Isola et al.: it has no running statistics, so that the logits of an image do not depend on what else is in its batch
    or on how batches are accumulated, and a resumed run is exact. (A patch then also sees the means over its image that it is normalised
    by.) The weights of the convolutions start as N(0, 0.02^2), biases at 0.

    Args:
        channels: of the images; 1 is grey, 3 is RGB.
        width: channels of the first layer.
        layers: convolutions of stride 2; the images' sides must be `smallest(layers)` px at least, 24 for 3 layers and 12 for 2.
        groups: groups of the group normalisation; divides 2 x `width`.

    Raises:
        UserError: the groups do not fit.
    """

    def __init__(self, *, channels: PositiveInt, width: PositiveInt = 64, layers: PositiveInt = 3, groups: PositiveInt = 8) -> None:
        check_discriminator(width=width, layers=layers, groups=groups)
        super().__init__()
        self.smallest = smallest(layers)
        self._shape = {"width": width, "layers": layers, "groups": groups}
        widths = [width * min(2**n, WIDEST) for n in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for n in range(1, layers + 1):
            parts.append(nn.Conv2d(widths[n - 1], widths[n], 4, stride=2 if n < layers else 1, padding=1))
            parts += [nn.GroupNorm(groups, widths[n]), nn.LeakyReLU(SLOPE)]
        self.patches = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for module in self.patches:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=STD)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """The logits (B, 1, h, w), above 0 for real, of the images `x` (B, C, H, W) in [-1, 1]; h is H // 2 ** layers - 2, w likewise.

        Raises UserError where the images are smaller than `smallest(layers)`.
        """
        check_discriminator(**self._shape, resolution=min(x.shape[2:]))
        return self.patches(x)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss, a scalar in float32, of its logits for real and for generated images, each of any shape.

    Half of mean max(0, 1 - real) + mean max(0, 1 + fake), as in the code of Esser et al. 2021 (Lim and Ye 2017).
    """
    return (relu(1 - real.float()).mean() + relu(1 + fake.float()).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """The generator's loss, a scalar in float32, of the discriminator's logits for its images: minus their mean (Lim and Ye 2017)."""
    return -fake.float().mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """How much the adversarial loss must weigh to pull at the `last` layer's weights as strongly as the reconstruction loss does: a scalar
    in [0, 1e4] without a graph (Esser et al. 2021, equation 7).

    The length of the gradient of the scalar `reconstruction` with respect to `last` over that of `adversarial` and 1e-4. It is 0 where
    either is not finite: an adversarial loss that has broken must not be made more of. The graphs of both losses stay for the
    backward pass, and no gradient is added anywhere.
    """
    losses = (reconstruction, adversarial)
    wanted, given = (torch.autograd.grad(loss, last, retain_graph=True)[0].float().norm() for loss in losses)
    return (wanted / (given + STABLE)).nan_to_num(nan=0.0, posinf=0.0).clamp(0, MOST)
