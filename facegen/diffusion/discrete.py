"""Variance-preserving schedules of countable steps: DDPM's, given by betas (Ho et al. 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from facegen.diffusion.schedule import Schedule
from facegen.diffusion.times import UniformTimes
from facegen.errors import UserError
from facegen.types import PositiveFloat, PositiveInt

PURE_NOISE = 0.01  # a signal below this, at the end of a schedule, is taken for none


class Discrete(Schedule):
    """A variance-preserving schedule of countable steps, given by its betas (Ho et al. 2020); in between, log levels are interpolated.

    Args:
        betas: (steps,) float64 in (0, 1), or ending in exactly 1 where no signal is to be left.
    """

    default_prediction = "noise"
    length: int
    default_times = UniformTimes()

    def __init__(self, betas: Tensor) -> None:
        if len(betas) < 2:
            raise UserError(f"scheduler.steps must be at least 2; got {len(betas)}; type scheduler.steps=1000")
        self.betas = betas.double()
        log_alpha_bar = torch.log1p(-self.betas).cumsum(0)
        self._log_level = {torch.device("cpu"): 0.5 * (torch.log(-torch.expm1(log_alpha_bar)) - log_alpha_bar)}
        self.length = len(betas)
        self.first, self.last = 0.0, float(self.length - 1)

    def _table(self, like: Tensor) -> Tensor:
        if like.device not in self._log_level:
            self._log_level[like.device] = self._log_level[torch.device("cpu")].to(like.device)
        return self._log_level[like.device].to(like.dtype)

    def log_level(self, t: Tensor) -> Tensor:
        """log(sigma/alpha) at times `t` in [0, steps-1], whole or not."""
        table, low = self._table(t), t.floor().clamp(0, self.length - 1)
        part, low = t - low, low.long()
        high = table[(low + 1).clamp(max=self.length - 1)]
        return torch.where(part == 0, table[low], table[low] + part * (high - table[low]))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self.log_level(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self.log_level(t)).sqrt()

    def time_of(self, level: Tensor) -> Tensor:
        table, wanted = self._table(level), level.log()
        high = torch.searchsorted(table, wanted.contiguous()).clamp(1, self.length - 1)
        part = ((wanted - table[high - 1]) / (table[high] - table[high - 1])).clamp(0, 1)
        return high - 1 + torch.where(wanted >= table[high], 1.0, part)

    def at(self, u: Tensor) -> Tensor:
        return (u * self.length).floor().clamp(max=self.last)

    def embedding(self, t: Tensor) -> Tensor:
        return t

    def grid(self, steps: int) -> Tensor:
        """Every (length / steps)-th time from the noisiest down: "trailing" spacing (Lin et al. 2023, table 2)."""
        if not 0 < steps <= self.length:
            raise UserError(
                f"sampler.steps must be 1 to {self.length}, the steps of the schedule this model was trained on; got {steps}; "
                f"type sampler.steps={min(50, self.length)}"
            )
        return torch.arange(self.length, 0, -self.length / steps, dtype=torch.float64)[:steps].round() - 1


BetaScaling = Literal["none", "steps", "zero_snr"]


def _scaled(betas: Tensor, scaling: BetaScaling) -> Tensor:
    """`betas`, meant for 1000 steps, brought to their own number of steps so that the last of them is pure noise."""
    if scaling == "none":
        return betas
    if scaling == "zero_snr":
        return _without_signal(_scaled(betas, "steps"))

    def left(factor: float) -> float:
        return float((1 - (betas * factor).clamp(max=0.999)).log().sum().mul(0.5).exp())

    low = high = 1000 / len(betas)
    if left(high) > PURE_NOISE:
        while left(high) > PURE_NOISE and high * float(betas.min()) < 1:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) > PURE_NOISE else (low, middle)
    return (betas * high).clamp(max=0.999)


def _without_signal(betas: Tensor) -> Tensor:
    """`betas` with their signal shifted and stretched so that none is left at the end (Lin et al. 2023, algorithm 1)."""
    root = (1 - betas).cumprod(0).sqrt()
    alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


class Linear(Discrete):
    """Betas rising linearly (Ho et al. 2020). `beta_scaling`: `steps` fits them to the number of steps so that pure noise is reached,
    `zero_snr` leaves no signal at all (needs a v or image prediction), `none` takes them as they are."""

    def __init__(
        self,
        steps: PositiveInt = 1000,
        beta_start: PositiveFloat = 1e-4,
        beta_end: PositiveFloat = 0.02,
        beta_scaling: BetaScaling = "steps",
    ) -> None:
        super().__init__(_scaled(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64), beta_scaling))


class ScaledLinear(Discrete):
    """Betas whose square roots rise linearly, with latent diffusion's ends (Rombach et al. 2022); `beta_scaling` as in `Linear`."""

    def __init__(
        self,
        steps: PositiveInt = 1000,
        beta_start: PositiveFloat = 8.5e-4,
        beta_end: PositiveFloat = 0.012,
        beta_scaling: BetaScaling = "steps",
    ) -> None:
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64)
        super().__init__(_scaled(roots**2, beta_scaling))


class Quadratic(ScaledLinear):
    """Betas whose square roots rise linearly, with DDPM's ends (report 4); `beta_scaling` as in `Linear`."""

    def __init__(
        self,
        steps: PositiveInt = 1000,
        beta_start: PositiveFloat = 1e-4,
        beta_end: PositiveFloat = 0.02,
        beta_scaling: BetaScaling = "steps",
    ) -> None:
        super().__init__(steps, beta_start, beta_end, beta_scaling)


class Sigmoid(Discrete):
    """Betas along a logistic curve over [-6, 6] (report 4; GeoDiff, Xu et al. 2022); `beta_scaling` as in `Linear`."""

    def __init__(
        self,
        steps: PositiveInt = 1000,
        beta_start: PositiveFloat = 1e-4,
        beta_end: PositiveFloat = 0.02,
        beta_scaling: BetaScaling = "steps",
    ) -> None:
        curve = torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64))
        super().__init__(_scaled(curve * (beta_end - beta_start) + beta_start, beta_scaling))


class Cosine(Discrete):
    """alpha_bar along a squared cosine (Nichol and Dhariwal 2021, eq. 17), which reaches pure noise at any number of steps."""

    def __init__(self, steps: PositiveInt = 1000, offset: PositiveFloat = 0.008, beta_scaling: BetaScaling = "steps") -> None:
        edge = torch.arange(steps + 1, dtype=torch.float64) / steps
        alpha_bar = torch.cos((edge + offset) / (1 + offset) * torch.pi / 2) ** 2
        betas = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
        super().__init__(_without_signal(betas) if beta_scaling == "zero_snr" else betas)
