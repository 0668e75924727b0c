"""Data whose diffusion is known in closed form: independent pixels of N(MEAN, STD^2), and what a sampler makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from facegen.diffusion.denoiser import CleanImage
from facegen.diffusion.discrete import Cosine, Linear, Quadratic, ScaledLinear, Sigmoid
from facegen.diffusion.sampler import Sampler, Stepwise
from facegen.diffusion.schedule import EDM, Flow, Schedule

MEAN, STD = 0.3, 0.4

SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "linear": Linear,
    "scaled_linear": ScaledLinear,
    "cosine": Cosine,
    "quadratic": Quadratic,
    "sigmoid": Sigmoid,
    "linear_zero_snr": lambda: Linear(beta_scaling="zero_snr"),
    "linear_200": lambda: Linear(200),
    "cosine_200": lambda: Cosine(200),
    "edm": EDM,
    "flow": Flow,
}


def double(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


class Ideal:
    """The best denoiser there is for this data: E[x_0 | x_t]."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        shape = (-1,) + (1,) * (x_t.ndim - 1)
        alpha, sigma = self.schedule.alpha(t).reshape(shape), self.schedule.sigma(t).reshape(shape)
        return MEAN + STD**2 * alpha * (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


def flow_error(sampler: Stepwise, schedule: Schedule) -> float:
    """How far at most a deterministic sampler takes noise of -2 to 2 standard deviations from where the exact flow takes it.

    The exact flow keeps how many standard deviations an image is from the mean of its time, down to the last time the sampler visits;
    the denoiser's answer there ends the walk.
    """
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1) * schedule.prior_std()
    ends = torch.stack([double(schedule.last)[0], sampler.times(schedule)[-1]])
    alpha, std = schedule.alpha(ends), torch.hypot(schedule.alpha(ends) * STD, schedule.sigma(ends))
    there = alpha[1] * MEAN + std[1] * (x - alpha[0] * MEAN) / std[0]
    return (sampler(Ideal(schedule), x) - Ideal(schedule)(there, ends[1].expand(5))).abs().max().item()


def moments(sampler: Sampler, denoiser: CleanImage) -> tuple[float, float]:
    """Mean and standard deviation of all that a sampler draws, without drawing.

    With the ideal denoiser an image is a weighted sum of the noise it started from and of every noise that was added. Row 0 of the batch
    is given no noise at all, each other row a single one of them: the differences are the weights.
    """
    rows = 2 * sampler.steps + 4
    drawn = 0

    def only_one(row: int) -> Tensor:
        noise = torch.zeros(rows, 1, 1, 1, dtype=torch.float64)
        noise[row] = 1
        return noise

    def draw() -> Tensor:
        nonlocal drawn
        drawn += 1
        return only_one(1 + drawn)

    images = sampler(denoiser, only_one(1) * denoiser.schedule.prior_std(), draw).flatten()
    assert drawn + 1 < rows
    return images[0].item(), (images[1:] - images[0]).norm().item()
