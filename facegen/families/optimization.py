"""The optimizer and its learning rate, as functions of the step: nothing to restore, so a resumed run takes up where it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn

from facegen.errors import UserError
from facegen.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, ProperFraction

TAILS: dict[str, Callable[[float], float]] = {  # what is left of the learning rate at each share of the decay
    "constant": lambda part: 1.0,
    "linear": lambda part: 1.0 - part,
    "cosine": lambda part: (1.0 + math.cos(math.pi * part)) / 2,
}


class Adam:
    """Adam, or AdamW where `weight_decay` is above 0, with a learning rate that warms up, holds and decays.

    Args:
        lr: learning rate after warm-up.
        betas: two decay rates of Adam's moments, each in [0, 1).
        warmup: optimizer steps over which the rate rises linearly from 0.
        decay: `linear` and `cosine` fall to 0 between `decay_start` and the end of the run; `steps` multiplies by `gamma` at each
            of `milestones`.
        decay_start: share of the run (of its steps or its time, whichever is further) after which the decay begins.
        milestones: epochs, ascending.
        clip: gradients are scaled down to this norm; 0 leaves them alone.
        eight_bit: keep the moments in 8 bits (Dettmers et al. 2022), a quarter of their memory; needs the package bitsandbytes.
    """

    def __init__(
        self,
        lr: PositiveFloat = 2e-4,
        betas: list[float] = [0.9, 0.999],  # noqa: B006 (never changed)
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        warmup: NonNegativeInt = 0,
        decay: Literal["constant", "linear", "cosine", "steps"] = "constant",
        decay_start: ProperFraction = 0.0,
        milestones: list[int] = [],  # noqa: B006
        gamma: PositiveFloat = 0.1,
        clip: NonNegativeFloat = 1.0,
        eight_bit: bool = False,
    ) -> None:
        if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
            raise UserError(f"optimizer.betas must be two numbers in [0, 1); got {betas}; type optimizer.betas=[0.9,0.999]")
        self.lr, self.betas, self.eps, self.weight_decay = lr, (betas[0], betas[1]), eps, weight_decay
        self.warmup, self.decay, self.decay_start = warmup, decay, decay_start
        self.milestones, self.gamma, self.clip, self.eight_bit = milestones, gamma, clip, eight_bit

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer over `parameters`, fused into one kernel; raises UserError where bitsandbytes is asked for and not there."""
        if self.eight_bit:
            return self._in_eight_bits(parameters)
        kind = torch.optim.AdamW if self.weight_decay else torch.optim.Adam
        return kind(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=True)

    def _in_eight_bits(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        try:
            from bitsandbytes.optim import Adam8bit, AdamW8bit  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            line = "optimizer.eight_bit=true needs the package bitsandbytes; type pip install bitsandbytes, or optimizer.eight_bit=false"
            raise UserError(line) from error
        kind = AdamW8bit if self.weight_decay else Adam8bit
        return kind(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)

    def rate(self, step: int, progress: float, epoch: int) -> float:
        """The learning rate of optimizer step `step` (from 0), at `progress` in [0, 1] of the run and in `epoch` (from 0)."""
        warm = min((step + 1) / self.warmup, 1.0) if self.warmup else 1.0
        if self.decay == "steps":
            return self.lr * warm * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        part = min(max((progress - self.decay_start) / (1 - self.decay_start), 0.0), 1.0)
        return self.lr * warm * TAILS[self.decay](part)
