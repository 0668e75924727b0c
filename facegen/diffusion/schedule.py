r"""How much signal and noise there is at a time: `x_t = alpha(t) * x_0 + sigma(t) * eps`.

Time is measured in each schedule's own units: the step number 0 .. steps-1 for the discrete (variance preserving) schedules, the noise
level itself for EDM, [0, 1] for flow. What all share is the *noise level* `sigma(t) / alpha(t)`: two schedules agree about an image
when they agree about its level, whatever they call the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from facegen.diffusion.times import LogNormalTimes, Times
from facegen.errors import UserError
from facegen.types import PositiveFloat

KARRAS_TOP = 80.0  # first finite level of a Karras grid on a schedule that ends in pure noise (Karras et al. 2022, table 1)
ENDLESS = 4 * KARRAS_TOP  # from here up, levels differ by nothing that can be seen: a cosine's last is 20,000, a flow's infinite


class Schedule(ABC):
    """Signal `alpha(t)` and noise `sigma(t)` at times t (any shape), and the map between times and noise levels."""

    default_prediction: str
    default_times: Times
    first: float  # the cleanest time
    last: float  # the noisiest time
    length: int | None = None  # how many distinct times there are, where they are countable

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal at times `t`."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise at times `t`."""

    @abstractmethod
    def time_of(self, level: Tensor) -> Tensor:
        """The time whose noise level sigma/alpha is `level` (the nearest one where it lies outside the schedule)."""

    @abstractmethod
    def at(self, u: Tensor) -> Tensor:
        """The training time at quantile `u` in [0, 1) of the uniform distribution over this schedule."""

    @abstractmethod
    def embedding(self, t: Tensor) -> Tensor:
        """What the network's time embedding is fed at `t`; about 0 .. 1000, the range sinusoidal embeddings are made for."""

    @abstractmethod
    def grid(self, steps: int) -> Tensor:
        """The `steps` times of an evenly spaced walk from noise, descending, float64; the walk then ends at the clean image."""

    def level(self, t: Tensor) -> Tensor:
        """Noise level sigma/alpha at `t`; infinite where no signal is left."""
        return self.sigma(t) / self.alpha(t)

    def scale_input(self, t: Tensor) -> Tensor | float:
        """Factor that brings x_t to about unit size for a network that has no preconditioning of its own."""
        return 1.0

    def prior_std(self) -> float:
        """Standard deviation of the noise that a walk over this schedule starts from."""
        return 1.0

    def leftover(self) -> float:
        """Share of the signal that is still there at the noisiest time; a walk from pure noise assumes it is 0."""
        return float(self.alpha(torch.tensor(self.last, dtype=torch.float64))) / self.prior_std()

    def karras(self, steps: int, rho: float = 7.0) -> Tensor:
        """`steps` descending times whose levels are evenly spaced in level^(1/rho) (Karras et al. 2022, eq. 5), float64."""
        last, first = self.level(torch.tensor([self.last, self.first], dtype=torch.float64))
        endless = bool(last > ENDLESS)  # one step leads from there to where levels mean something
        top = self.level(self.time_of(torch.full_like(last, KARRAS_TOP))) if endless else last
        start, end = top ** (1 / rho), first.clamp(min=2e-3) ** (1 / rho)
        ramp = torch.linspace(0, 1, steps - endless, dtype=torch.float64)
        times = self.time_of((start + ramp * (end - start)) ** rho)
        return torch.cat([torch.tensor([self.last], dtype=torch.float64), times]) if endless else times


class EDM(Schedule):
    """Noise added to an untouched image: alpha = 1, sigma(t) = t (Karras et al. 2022)."""

    default_prediction = "edm"
    default_times = LogNormalTimes()

    def __init__(self, sigma_min: PositiveFloat = 0.002, sigma_max: PositiveFloat = 80.0) -> None:
        if sigma_min >= sigma_max:
            raise UserError(f"scheduler.sigma_min must be below scheduler.sigma_max={sigma_max}; got {sigma_min}")
        self.first, self.last = sigma_min, sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time_of(self, level: Tensor) -> Tensor:
        return level.clamp(self.first, self.last)

    def at(self, u: Tensor) -> Tensor:
        return self.first * (self.last / self.first) ** u

    def embedding(self, t: Tensor) -> Tensor:
        """250 log(sigma): a thousand times the c_noise of Karras et al. 2022, table 1."""
        return 250 * t.log()

    def scale_input(self, t: Tensor) -> Tensor:
        return (1 + t**2).rsqrt()

    def prior_std(self) -> float:
        return self.last

    def grid(self, steps: int) -> Tensor:
        return self.karras(steps)


class Flow(Schedule):
    """The straight line from image to noise: alpha = 1 - t, sigma = t (Liu et al. 2022; Lipman et al. 2022)."""

    default_prediction = "flow"
    default_times = LogNormalTimes(0.0, 1.0)  # t is then logit-normal (Esser et al. 2024)
    first, last = 1e-3, 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time_of(self, level: Tensor) -> Tensor:
        return (1 / (1 + 1 / level)).clamp(self.first, self.last)

    def at(self, u: Tensor) -> Tensor:
        return u.clamp(min=self.first)

    def embedding(self, t: Tensor) -> Tensor:
        return 1000 * t

    def grid(self, steps: int) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
