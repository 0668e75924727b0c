r"""What a denoiser is trained to do: the error of its network at random times, weighted by noise level.

Weightings are stated on the error of the clean image as a function of SNR = (alpha / sigma)^2 and carried over to the network's own
output by the prediction's gain; `uniform` weighs the network's own output equally at all times.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from facegen.diffusion.denoiser import SIGMA_DATA, Denoiser

ERRORS: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}

WEIGHTINGS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "uniform": None,
    "min_snr": lambda snr: snr.clamp(max=5),  # Hang et al. 2023, gamma = 5
    "p2": lambda snr: snr / (1 + snr),  # Choi et al. 2022, k = 1, gamma = 1
    "edm": lambda snr: snr + SIGMA_DATA**-2,  # Karras et al. 2022, table 1: (sigma^2 + s^2) / (sigma s)^2
}


def clean_loss(denoiser: Denoiser, x_0: Tensor, eps: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
    """Squared error of the clean image weighted as EDM does, (B,): about 1 for a denoiser that has learnt nothing at any level, and
    comparable between schedules and predictions."""
    alpha, sigma = denoiser.coefficients(t, x_0)
    squared = (denoiser(alpha * x_0 + sigma * eps, t, *told) - x_0) ** 2
    return squared.flatten(1).mean(1) * ((alpha / sigma) ** 2 + SIGMA_DATA**-2).flatten()


def diffusion_loss(
    denoiser: Denoiser,
    x_0: Tensor,
    eps: Tensor,
    t: Tensor,
    *,
    told: tuple[Tensor, ...] = (),
    error: str = "mse",
    weighting: str = "uniform",
    perturbation: Tensor | None = None,
) -> Tensor:
    """Weighted error of the network for images `x_0` (B,C,H,W), noise `eps` like it and times `t` (B,): one number each, (B,).

    `told` is what the network takes beside image and time. `perturbation`, like `eps`, is added to the noise of the input only (Ning et
    al. 2023): the network learns to correct inputs as imperfect as those it will meet when it samples.
    """
    alpha, sigma = denoiser.coefficients(t, x_0)
    x_t = alpha * x_0 + sigma * (eps if perturbation is None else eps + perturbation)
    target = denoiser.prediction.target(x_0, eps, alpha, sigma)
    losses = ERRORS[error](denoiser.raw(x_t, t, *told), target, reduction="none").flatten(1).mean(1)
    weight = WEIGHTINGS[weighting]
    if weight is None:
        return losses
    return losses * (weight((alpha / sigma) ** 2) * denoiser.prediction.gain(alpha, sigma) ** 2).flatten()
