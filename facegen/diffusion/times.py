"""How training times are drawn, as maps of uniform numbers: what is random stays with the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from facegen.errors import UserError

if TYPE_CHECKING:
    from facegen.diffusion.schedule import Schedule


class UniformTimes:
    """Every time of the schedule equally often."""

    def __call__(self, schedule: Schedule, u: Tensor) -> Tensor:
        """Times (B,) for independent uniform draws `u` (B,) in [0, 1)."""
        return schedule.at(u)


class StratifiedTimes:
    """Uniform times, one from each of B equal parts, which lowers the variance of the loss (Kingma et al. 2021, appendix I.1)."""

    def __call__(self, schedule: Schedule, u: Tensor) -> Tensor:
        """Times (B,) for independent uniform draws `u` (B,) in [0, 1)."""
        return schedule.at((torch.arange(len(u), device=u.device) + u) / len(u))


class LogNormalTimes:
    """Noise levels whose logarithm is normal (Karras et al. 2022, table 1): effort where there is something to learn."""

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        if std <= 0:
            raise UserError(f"model.times.std must be above 0; got {std}")
        self.mean, self.std = mean, std

    def __call__(self, schedule: Schedule, u: Tensor) -> Tensor:
        """Times (B,) for independent uniform draws `u` (B,) in [0, 1)."""
        normal = torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9)).to(u.dtype)
        return schedule.time_of((self.mean + self.std * normal).exp())


Times = UniformTimes | StratifiedTimes | LogNormalTimes
