r"""A denoiser is a network with a schedule: given x_t and t it returns its estimate of the clean image x_0.

What the network predicts is decided here and nowhere else. Each prediction is a linear map: with raw the network's output,

    noise  raw = eps                          x_0 = (x_t - sigma raw) / alpha                     Ho et al. 2020
    image  raw = x_0
    v      raw = alpha eps - sigma x_0        x_0 = (alpha x_t - sigma raw) / (alpha^2 + sigma^2)   Salimans and Ho 2022
    flow   raw = eps - x_0                    x_0 = (x_t - sigma raw) / (alpha + sigma)           Liu et al. 2022
    edm    raw = F                            x_0 = c_skip x_t + c_out raw                        Karras et al. 2022, eq. 7

each written for any schedule, finite wherever the definition allows it, and with `gain = d x_0 / d raw`, which turns an error of the
network into an error of the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from facegen.diffusion.schedule import Schedule
from facegen.errors import UserError

SIGMA_DATA = 0.5  # standard deviation of images in [-1, 1], as in EDM


class Prediction(ABC):
    """What a network predicts; alpha and sigma have a shape that broadcasts against images."""

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should have said."""

    @abstractmethod
    def clean(self, x_t: Tensor, raw: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean image that the network's output stands for."""

    @abstractmethod
    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Size of an error of x_0 that an error of 1 in the network's output makes."""

    def scale_input(self, schedule: Schedule, t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor | float:
        """Factor on x_t before it enters the network."""
        scale = schedule.scale_input(t)
        return scale.reshape(alpha.shape) if isinstance(scale, Tensor) else scale


class Noise(Prediction):
    """The noise eps; impossible to invert where no signal is left."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return eps

    def clean(self, x_t: Tensor, raw: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * raw) / alpha

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma / alpha


class Image(Prediction):
    """The clean image itself."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_0

    def clean(self, x_t: Tensor, raw: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return raw

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)


class V(Prediction):
    """alpha eps - sigma x_0: well conditioned from pure noise to clean image."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * eps - sigma * x_0

    def clean(self, x_t: Tensor, raw: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * x_t - sigma * raw) / (alpha**2 + sigma**2)

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma / (alpha**2 + sigma**2)


class Velocity(Prediction):
    """eps - x_0, the velocity of the straight line of rectified flow."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return eps - x_0

    def clean(self, x_t: Tensor, raw: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * raw) / (alpha + sigma)

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma / (alpha + sigma)


class Preconditioned(Prediction):
    """EDM's F: input and target of unit variance at every level, for data of standard deviation 0.5."""

    def _variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma**2 + (alpha * SIGMA_DATA) ** 2

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        x_t = alpha * x_0 + sigma * eps
        return (x_0 - SIGMA_DATA**2 * alpha * x_t / self._variance(alpha, sigma)) / self.gain(alpha, sigma)

    def clean(self, x_t: Tensor, raw: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return SIGMA_DATA**2 * alpha * x_t / self._variance(alpha, sigma) + self.gain(alpha, sigma) * raw

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma * SIGMA_DATA * self._variance(alpha, sigma).rsqrt()

    def scale_input(self, schedule: Schedule, t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._variance(alpha, sigma).rsqrt()


PREDICTIONS: dict[str, Prediction] = {
    "noise": Noise(),
    "image": Image(),
    "v": V(),
    "flow": Velocity(),
    "edm": Preconditioned(),
}


class CleanImage(Protocol):
    """What a sampler asks: a clean image (B,C,H,W) for x_t (B,C,H,W) at t (B,), on a schedule."""

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor: ...


class Denoiser(nn.Module):
    """A network with a schedule, as an estimate of the clean image.

    Args:
        network: maps (x (B,C,H,W), time embedding input (B,), *told) to (B,C,H,W).
        schedule: how much signal and noise there is at a time.
        prediction: what the network predicts, a key of `PREDICTIONS`; None takes the schedule's usual one.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, prediction: str | None = None) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule
        name = prediction or schedule.default_prediction
        if name == "noise" and schedule.leftover() == 0:
            raise UserError(
                "model.prediction=noise cannot be inverted where the schedule leaves no signal; allowed there: v, image, edm, flow; "
                "type model.prediction=v"
            )
        self.prediction = PREDICTIONS[name]

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at `t` (B,), shaped to broadcast against `like` (B, ...)."""
        shape = (-1,) + (1,) * (like.ndim - 1)
        return self.schedule.alpha(t).reshape(shape), self.schedule.sigma(t).reshape(shape)

    def raw(self, x_t: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
        """The network's own output, in the dtype of `x_t`; `told` is what it takes beside image and time: a condition, a source image."""
        alpha, sigma = self.coefficients(t, x_t)
        scaled = x_t * self.prediction.scale_input(self.schedule, t, alpha, sigma)
        return self.network(scaled, self.schedule.embedding(t), *told).to(x_t.dtype)

    def forward(self, x_t: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
        """The estimate of the clean image, (B,C,H,W), for `x_t` (B,C,H,W) at `t` (B,), where the network is told `told`."""
        return self.prediction.clean(x_t, self.raw(x_t, t, *told), *self.coefficients(t, x_t))


class Clipped:
    """A denoiser whose images stay in [-limit, limit], as DDPM's and DDIM's samplers keep pixels."""

    def __init__(self, denoiser: CleanImage, limit: float = 1.0) -> None:
        self.denoiser, self.limit, self.schedule = denoiser, limit, denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.denoiser(x_t, t).clamp(-self.limit, self.limit)


class Rescheduled:
    """A denoiser as seen from another schedule: the same noise level under another time and another scale.

    What it is told beside that is handed on.
    """

    def __init__(self, denoiser: Any, schedule: Schedule) -> None:
        self.denoiser, self.schedule = denoiser, schedule

    def __call__(self, x_t: Tensor, t: Tensor, *told: Tensor | None) -> Tensor:
        inner = self.denoiser.schedule
        there = inner.time_of(self.schedule.level(t))
        size_here = torch.hypot(self.schedule.alpha(t), self.schedule.sigma(t))
        scale = torch.hypot(inner.alpha(there), inner.sigma(there)) / size_here
        return self.denoiser(x_t * scale.reshape((-1,) + (1,) * (x_t.ndim - 1)), there, *told)
