r"""A sampler walks noise back to an image by asking a denoiser for the clean image at each time.

All are written for any schedule in terms of alpha and sigma. With x_0 the denoiser's answer, eps = (x_t - alpha_t x_0) / sigma_t.
Every walk ends at the clean image itself, alpha = 1 and sigma = 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from facegen.diffusion.denoiser import CleanImage
from facegen.diffusion.schedule import ENDLESS, Schedule
from facegen.types import Fraction, PositiveFloat, PositiveInt

Draw = Callable[[], Tensor]
Watch = Callable[[int, Tensor, Tensor], None]


@dataclass
class Walk:
    """A walk under way: its times (steps,), alpha and sigma at each and at the end (steps + 1,), and what its steps may ask for."""

    times: list[float]
    alpha: list[float]
    sigma: list[float]
    denoiser: CleanImage
    draw: Draw | None
    previous: Tensor | None = None  # the denoiser's last answer, for multistep samplers

    @classmethod
    def over(cls, times: Tensor, denoiser: CleanImage, draw: Draw | None) -> Walk:
        """The walk through `times` (steps,) float64, descending, down to the clean image."""
        alpha, sigma = denoiser.schedule.alpha(times), denoiser.schedule.sigma(times)
        return cls(times.tolist(), [*alpha.tolist(), 1.0], [*sigma.tolist(), 0.0], denoiser, draw)

    def ask(self, x: Tensor, i: int) -> Tensor:
        """The denoiser's estimate of the clean image for `x` at the i-th time."""
        return self.denoiser(x, x.new_full((len(x),), self.times[i]))

    def ends(self, i: int) -> bool:
        """Whether the step from the i-th time is the last one, to the clean image."""
        return self.sigma[i + 1] == 0

    def ddim(self, i: int, x: Tensor, x_0: Tensor) -> Tensor:
        """The deterministic step from time i to i + 1, which keeps the estimate of the noise (Euler's step in the noise level)."""
        ratio = self.sigma[i + 1] / self.sigma[i]
        return ratio * x + (self.alpha[i + 1] - ratio * self.alpha[i]) * x_0

    def fresh_std(self, i: int) -> float:
        """Standard deviation of q(x_s | x_t, x_0) from time i to i + 1: the noise that DDPM adds (Ho et al. 2020, eq. 7)."""
        shrink = self.alpha[i] / self.alpha[i + 1]
        gained = max(self.sigma[i] ** 2 - (shrink * self.sigma[i + 1]) ** 2, 0.0)
        return math.sqrt(gained) * self.sigma[i + 1] / self.sigma[i]

    def noise(self) -> Tensor:
        """Fresh standard normal noise."""
        return drawn(self.draw)


def drawn(draw: Draw | None) -> Tensor:
    """What `draw` returns; raises ValueError where a sampler that needs noise was given none."""
    if draw is None:
        raise ValueError("this sampler adds noise at every step: give it draw, a function that returns noise like x")
    return draw()


class Sampler(ABC):
    """What walks from noise to image in `steps` steps."""

    def __init__(self, steps: PositiveInt = 50) -> None:
        self.steps = steps

    @abstractmethod
    def __call__(self, denoiser: CleanImage, x: Tensor, draw: Draw | None = None, watch: Watch | None = None, start: int = 0) -> Tensor:
        """Images like x (B,C,H,W), which is noise of the schedule's `prior_std`.

        `draw` returns fresh standard normal noise like x (the stochastic samplers alone need it); `watch(i, x_t, x_0)` sees each step. The
        first `start` steps are left out: x is then an image with the signal and noise that `entry` says.
        """

    def entry(self, schedule: Schedule, start: int) -> tuple[float, float]:
        """alpha and sigma, in the scale of `schedule`, of the image that the walk passes before the step `start`."""
        time = self.times(schedule)[start]
        return float(schedule.alpha(time)), float(schedule.sigma(time))

    def start_for(self, strength: float) -> int:
        """How many steps are left out where a `strength` in (0, 1] of the walk is gone (Meng et al. 2022); one at least is gone."""
        return self.steps - max(1, min(int(self.steps * strength), self.steps))

    def times(self, schedule: Schedule) -> Tensor:
        """The times this sampler visits on `schedule`, (steps,) float64, descending."""
        return schedule.grid(self.steps)


class Stepwise(Sampler):
    """Base of the samplers that repeat one `step` along the times of a schedule."""

    @torch.no_grad()
    def __call__(self, denoiser: CleanImage, x: Tensor, draw: Draw | None = None, watch: Watch | None = None, start: int = 0) -> Tensor:
        walk = Walk.over(self.times(denoiser.schedule), denoiser, draw)
        for i in range(start, self.steps):
            x_0 = walk.ask(x, i)
            if watch is not None:
                watch(i, x, x_0)
            x = x_0 if walk.ends(i) else self.step(walk, i, x, x_0)
            walk.previous = x_0
        return x

    @abstractmethod
    def step(self, walk: Walk, i: int, x: Tensor, x_0: Tensor) -> Tensor:
        """x at time i + 1, given x and the denoiser's answer `x_0` at time i; never called for the last step."""


class DDPM(Stepwise):
    """Ancestral sampling from the posterior q(x_s | x_t, x_0) (Ho et al. 2020, eq. 6 and 7), on any subset of the times."""

    def __init__(self, steps: PositiveInt = 1000) -> None:
        super().__init__(steps)

    def step(self, walk: Walk, i: int, x: Tensor, x_0: Tensor) -> Tensor:
        shrink = walk.alpha[i] / walk.alpha[i + 1]
        keep = shrink * (walk.sigma[i + 1] / walk.sigma[i]) ** 2
        mean = keep * x + (walk.alpha[i + 1] - keep * walk.alpha[i]) * x_0
        return mean + walk.fresh_std(i) * walk.noise()


class DDIM(Stepwise):
    """Song et al. 2021, eq. 12: deterministic at `eta` 0, DDPM's variance at 1."""

    def __init__(self, steps: PositiveInt = 50, eta: Fraction = 0.0) -> None:
        super().__init__(steps)
        self.eta = eta

    def step(self, walk: Walk, i: int, x: Tensor, x_0: Tensor) -> Tensor:
        if self.eta == 0:
            return walk.ddim(i, x, x_0)
        fresh = self.eta * walk.fresh_std(i)
        eps = (x - walk.alpha[i] * x_0) / walk.sigma[i]
        return walk.alpha[i + 1] * x_0 + math.sqrt(walk.sigma[i + 1] ** 2 - fresh**2) * eps + fresh * walk.noise()


class DPMpp2M(Stepwise):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order from one network call a step, by remembering the last answer."""

    def __init__(self, steps: PositiveInt = 20) -> None:
        super().__init__(steps)

    def step(self, walk: Walk, i: int, x: Tensor, x_0: Tensor) -> Tensor:
        if walk.previous is None:
            return walk.ddim(i, x, x_0)
        before, here, there = (_log_snr(walk.alpha[j], walk.sigma[j]) for j in (i - 1, i, i + 1))
        ratio = (here - before) / (there - here)
        return walk.ddim(i, x, x_0 + (x_0 - walk.previous) / (2 * ratio))


def _log_snr(alpha: float, sigma: float) -> float:
    return math.log(alpha / sigma) if alpha > 0 else -math.inf


class Heun(Stepwise):
    """Heun's second-order walk over Karras levels (Karras et al. 2022, algorithm 1): 2 steps - 1 network calls."""

    def __init__(self, steps: PositiveInt = 18, rho: PositiveFloat = 7.0) -> None:
        super().__init__(steps)
        self.rho = rho

    def times(self, schedule: Schedule) -> Tensor:
        return schedule.karras(self.steps, self.rho)

    def step(self, walk: Walk, i: int, x: Tensor, x_0: Tensor) -> Tensor:
        euler = walk.ddim(i, x, x_0)
        if walk.sigma[i] > ENDLESS * walk.alpha[i]:  # a slope averaged over an endless step would count its far end as half of it
            return euler
        slope = (x - walk.alpha[i] * x_0) / walk.sigma[i]
        slope_ahead = (euler - walk.alpha[i + 1] * walk.ask(euler, i + 1)) / walk.sigma[i + 1]
        width = walk.sigma[i + 1] - walk.alpha[i + 1] * walk.sigma[i] / walk.alpha[i]
        return euler + width * (slope_ahead - slope) / 2
