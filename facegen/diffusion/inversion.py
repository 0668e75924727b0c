r"""DDIM inversion: the noise that a deterministic walk leads back from to a given image (Song et al. 2021, section 4.3).

A step of the walk from t to s, with the denoiser's answer x_0 at x_t, is

    x_s = r x_t + (alpha_s - r alpha_t) x_0(x_t, t)        r = sigma_s / sigma_t

To go back from x_s to x_t one has to know the answer at x_t. The usual approximation asks at x_s instead; asking again at what that gives
(a fixed point of the step, Pan et al. 2023) makes up for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facegen.diffusion.denoiser import CleanImage
from facegen.diffusion.sampler import DDIM, Walk, Watch

REFINEMENTS = 2


@torch.no_grad()
def invert(
    denoiser: CleanImage, x_0: Tensor, sampler: DDIM, *, until: int = 0, refinements: int = REFINEMENTS, watch: Watch | None = None
) -> Tensor:
    """The image (B,C,H,W) that the walk of `sampler` passes before its step `until` on its way to `x_0` (B,C,H,W).

    The last step of a walk is the denoiser's answer at its cleanest time. What leads to x_0 from there is taken to be x_0 with the noise
    that the denoiser sees in it, so that a round trip is as exact as that time is clean.

    Args:
        until: with 0 it is the noise that the walk begins with.
        refinements: how often a step asks again; each costs as much as the walk.
        watch: sees the number of each step, from the last to `until`, the image and the denoiser's answer.
    """
    walk = Walk.over(sampler.times(denoiser.schedule), denoiser, None)
    x = x_0
    for i in range(sampler.steps - 1, until - 1, -1):
        there = _back(walk, i, x, walk.alpha[i] * x_0 if walk.ends(i) else x)
        for _ in range(refinements):
            there = _back(walk, i, x, there)
        if watch is not None:
            watch(i, there, walk.ask(there, i))
        x = there
    return x


def _back(walk: Walk, i: int, x: Tensor, guess: Tensor) -> Tensor:
    """The image at time i from which the step to i + 1 leads to `x`, as far as the answer at `guess` is that at the image itself."""
    answer = walk.ask(guess, i)
    if walk.ends(i):  # the step leads to the answer itself: its noise is what the guess has beside it
        return walk.alpha[i] * x + (guess - walk.alpha[i] * answer)
    ratio = walk.sigma[i + 1] / walk.sigma[i]
    return (x - (walk.alpha[i + 1] - ratio * walk.alpha[i]) * answer) / ratio
