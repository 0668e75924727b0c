r"""Guidance wraps a denoiser that is told a condition and is itself a denoiser: the sampler never knows.

With c_1 .. c_P the conditions, w_k their shares (their sum is 1) and u the estimate that is told nothing (Ho and Salimans 2022, eq. 6,
written for clean images, to which noise predictions are tied by a linear map whose coefficients cancel):

    x_0 = u + W (sum_k w_k x_0(c_k) - u)

One condition with share 1 is plain classifier-free guidance; several are composed (Liu et al. 2022, eq. 11) or, by `switch`, take turns
along the walk, the first one first. Autoguidance (Karras et al. 2024) puts a weaker model, told the same, in the place of u.

A model that edits is shown a source image I as well, and has a weight W_I for it (Brooks et al. 2023, eq. 3); with u shown no image:

    x_0 = u + W_I (x_0(I) - u) + W (sum_k w_k x_0(c_k, I) - x_0(I))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from facegen.diffusion.schedule import Schedule


class Tellable(Protocol):
    """A denoiser that can be told something: a clean image (B,C,H,W) for x_t at t (B,), a condition (B,K) and the source (B,C,H,W) that
    it is an edit of, None where it takes none; a row of NaN says nothing."""

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor, *told: Tensor | None) -> Tensor: ...


@dataclass(frozen=True)
class Told:
    """What each of B images is told: P conditions, (B,P,K) in all, and the shares (B,P) of each, whose sum is 1.

    A condition may have more axes than one. `source` (B, ...) is what an image is an edit of, as the denoiser sees images; `nothing`, like
    one condition, is what is told where nothing is, such as a negative prompt; None is NaN.
    """

    conditions: Tensor
    shares: Tensor
    source: Tensor | None = None
    nothing: Tensor | None = None

    @classmethod
    def plainly(cls, conditions: Tensor) -> Told:
        """One condition (B,K) for each image."""
        return cls(conditions[:, None], torch.ones(len(conditions), 1))

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, rows: slice | list[int]) -> Told:
        return replace(
            self, conditions=self.conditions[rows], shares=self.shares[rows], source=None if self.source is None else self.source[rows]
        )

    def to(self, device: torch.device) -> Told:
        """The same on `device`."""
        source, nothing = (None if part is None else part.to(device) for part in (self.source, self.nothing))
        return Told(self.conditions.to(device), self.shares.to(device), source, nothing)


@dataclass(frozen=True)
class Guidance:
    """How a denoiser is guided.

    Args:
        weight: W above: 1 is off, 0 unconditional, more than 1 extrapolates.
        interval: the noise levels sigma / alpha, lowest and highest, within which `weight` holds; elsewhere it is 1 (Kynkaanniemi et al.
            2024).
        rescale: share of the way back to the standard deviation that the image would have unguided, in [0, 1] (Lin et al. 2024, eq. 15).
        way: what becomes of several conditions: `compose` adds up their estimates, `switch` follows one after the other.
        weak: the weaker model of autoguidance; None guides away from what is told nothing.
        image_weight: W_I above, of models that edit: 1 is off, more keeps closer to the source.
    """

    weight: float = 1.0
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0
    way: Literal["compose", "switch"] = "compose"
    weak: Tellable | None = None
    image_weight: float = 1.0


class Guided:
    """`denoiser`, told and guided, as an estimate of the clean image; `levels` (steps,) are the noise levels of the walk, descending.

    Both halves of guidance are asked in one call, and only for the images and conditions that have a share in the answer.
    """

    def __init__(self, denoiser: Tellable, told: Told | None, guidance: Guidance, levels: Tensor) -> None:
        self.denoiser, self.told, self.guidance, self.levels = denoiser, told, guidance, levels
        self.schedule = denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        level = self.schedule.level(t)
        shares = self._shares(level)
        lowest, highest = self.guidance.interval
        weight = torch.where((level >= lowest) & (level <= highest), self.guidance.weight, 1.0).to(x_t)
        image_weight, weak = self.guidance.image_weight, self.guidance.weak
        shown = image_weight != 1 and self.told is not None and self.told.source is not None
        guided = bool((weight != 1).any()) or shown
        if not guided:
            return self._asked(self.denoiser, x_t, t, shares)[0]
        told, nothing, unshown = self._asked(self.denoiser, x_t, t, shares, and_nothing=weak is None, and_unshown=shown)
        if weak is not None:
            nothing = self._asked(weak, x_t, t, shares)[0]
        weight = weight.reshape((-1,) + (1,) * (x_t.ndim - 1))
        base = unshown + image_weight * (nothing - unshown) if shown else nothing
        further = self._rescaled(base + weight * (told - nothing), told)
        return further if shown else torch.where(weight == 1, told, further)

    def _shares(self, level: Tensor) -> Tensor:
        """The share (B,P) that each condition has at the noise `level` (B,)."""
        if self.told is None:
            return torch.ones(len(level), 1, device=level.device)
        if self.guidance.way == "compose":
            return self.told.shares
        step = (self.levels.to(level) > level[:, None] * (1 + 1e-6)).sum(dim=1)
        ends = self.told.shares.cumsum(dim=1) * len(self.levels)
        turn = (ends[:, :-1] <= step[:, None] + 0.5).sum(dim=1)
        return torch.nn.functional.one_hot(turn, self.told.shares.shape[1]).to(self.told.shares)

    def _asked(
        self, denoiser: Tellable, x_t: Tensor, t: Tensor, shares: Tensor, *, and_nothing: bool = False, and_unshown: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `denoiser` says in one call: of what is told, weighted by `shares` (B,P), of nothing, and of nothing without the source
        too, where these are wanted (else zeros)."""
        extra = shares.new_tensor([and_nothing, and_unshown], dtype=torch.bool).expand(len(shares), 2)
        asked = torch.cat([shares != 0, extra], dim=1)
        rows, parts = asked.nonzero(as_tuple=True)
        said = denoiser(x_t[rows], t[rows], *self._told(rows, parts))
        answers = said.new_zeros(*asked.shape, *x_t.shape[1:])
        answers[rows, parts] = said
        factors = shares.to(said).reshape(*shares.shape, *(1,) * (x_t.ndim - 1))
        return (factors * answers[:, :-2]).sum(dim=1), answers[:, -2], answers[:, -1]

    def _told(self, rows: Tensor, parts: Tensor) -> tuple[Tensor, ...]:
        """The condition of each of `parts` of the images `rows` and, where there is one, the source; the last two parts are nothing, and
        nothing without the source."""
        if self.told is None:
            return ()
        known, source = self.told.conditions, self.told.source
        nothing = known.new_tensor(math.nan) if self.told.nothing is None else self.told.nothing
        conditions = torch.cat([known, nothing.expand_as(known[:, :1]), nothing.expand_as(known[:, :1])], dim=1)[rows, parts]
        if source is None:
            return (conditions,)
        unshown = (parts == known.shape[1] + 1).reshape(-1, *(1,) * (source.ndim - 1))
        return conditions, source[rows].masked_fill(unshown, math.nan)

    def _rescaled(self, guided: Tensor, told: Tensor) -> Tensor:
        if not self.guidance.rescale:
            return guided
        dims = tuple(range(1, guided.ndim))
        factor = told.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return guided * (1 + self.guidance.rescale * (factor - 1))
