"""The kernel distance between two sets of features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from facegen.seeding import mix

BLOCK = 512  # rows of the kernel matrix at a time
GROUPS, LEAST = 10, 10  # parts that a standard error is made of, and images in each at least


def kid(fake: np.ndarray, real: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation, over `subsets` pairs of subsets of `fake` (N,D) and `real` (M,D), of the unbiased squared MMD.

    The kernel is (x.y / D + 1)^3 (Binkowski et al. 2018, sec. 4); the mean may fall below 0. The subsets are those that torch-fidelity
    draws with fake as its input 1. Raises ValueError for subsets larger than a set or below 2, and for unequal D.
    """
    if fake.shape[1] != real.shape[1]:
        raise ValueError(f"the features have {fake.shape[1]} and {real.shape[1]} dimensions")
    if not 2 <= subset_size <= min(len(fake), len(real)) or subsets < 1:
        raise ValueError(f"cannot draw {subsets} subsets of {subset_size} out of {len(fake)} and {len(real)} features")
    rng = np.random.RandomState(seed)
    drawn = [[rng.choice(len(rows), subset_size, replace=False) for rows in (fake, real)] for _ in range(subsets)]
    if len(fake) ** 2 + len(real) ** 2 + len(fake) * len(real) <= 3 * subsets * subset_size**2:
        values = _mmd(_double(fake), _double(real), _members(drawn, 0, len(fake)), _members(drawn, 1, len(real)))
    else:  # the kernel of all pairs costs more than the kernels of the subsets one by one
        every = torch.ones(subset_size, 1, dtype=torch.float64)
        values = torch.cat([_mmd(_double(fake[i]), _double(real[j]), every, every) for i, j in drawn])
    return float(values.mean()), float(values.std(correction=0))


def standard_error(fake: np.ndarray, real: np.ndarray, seed: int) -> float | None:
    """Standard error of the squared MMD of `fake` (N,D) and `real` (M,D): from `GROUPS` parts of both that share no image.

    It is that of the parts' mean, and so a little more than the one of all images together; None for parts of fewer than `LEAST`.
    """
    size = min(len(fake), len(real)) // GROUPS
    if size < LEAST:
        return None
    parts = []
    for name, rows in (("fake", fake), ("real", real)):
        order = np.random.default_rng(mix(seed, "groups", name)).permutation(len(rows))
        parts.append([rows[np.sort(order[i * size : (i + 1) * size])] for i in range(GROUPS)])
    every = torch.ones(size, 1, dtype=torch.float64)
    values = torch.cat([_mmd(_double(x), _double(y), every, every) for x, y in zip(*parts, strict=True)])
    return float(values.std(correction=1)) / GROUPS**0.5


def _double(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.astype(np.float64))


def _members(drawn: list[list[np.ndarray]], side: int, total: int) -> Tensor:
    """(N,S) float64: 1 where row n is in subset s."""
    members = torch.zeros(total, len(drawn), dtype=torch.float64)
    for s, pair in enumerate(drawn):
        members[pair[side], s] = 1
    return members


def _mmd(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """The unbiased squared MMD (S,) of the subsets `in_x` (N,S) of `x` (N,D) and `in_y` (M,S) of `y` (M,D), which are of one size."""
    size = in_x[:, 0].sum()
    own = _pairs(x, x, in_x, in_x) - _itself(x, in_x) + _pairs(y, y, in_y, in_y) - _itself(y, in_y)
    return own / (size * (size - 1)) - 2 * _pairs(x, y, in_x, in_y) / size**2


def _pairs(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """The sum (S,) of the kernel over the pairs of each subset: an indicator on either side of the matrix picks them all at once."""
    total = torch.zeros(in_x.shape[1], dtype=torch.float64)
    for rows, chosen in zip(x.split(BLOCK), in_x.split(BLOCK), strict=True):
        kernel = torch.addmm(torch.ones((), dtype=torch.float64), rows, y.T, alpha=1 / x.shape[1])
        total += (chosen * (kernel * kernel * kernel @ in_y)).sum(0)
    return total


def _itself(x: Tensor, in_x: Tensor) -> Tensor:
    return (x.square().mean(1) + 1) ** 3 @ in_x
