"""The Frechet distance between two sets of features, how far chance moves it, and what it tends to with ever more images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from scipy.linalg.lapack import dpstrf

from facegen.seeding import mix

BLOCK = 2048  # rows that are float64 at a time
SMALLEST = 2  # the smallest subset of `extrapolated` is one in so many images: fewer bend the line and gain no accuracy
COVERED = 0.95


@dataclass(frozen=True)
class Moments:
    """What the Frechet distance needs to know of `n` features: their sum (D,) and the sum of their outer products (D,D), float64."""

    n: int
    sum: np.ndarray
    outer: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """The moments of `features` (N,D); N may be 0."""
        total, outer = np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2)
        for start in range(0, len(features), BLOCK):
            rows = features[start : start + BLOCK].astype(np.float64)
            total += rows.sum(0)
            outer += rows.T @ rows
        return cls(len(features), total, outer)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        return Moments(self.n + other.n, self.sum + other.sum, self.outer + other.outer)

    @property
    def mean(self) -> np.ndarray:
        """(D,)"""
        return self.sum / self.n

    @property
    def covariance(self) -> np.ndarray:
        """(D,D), unbiased: divided by n - 1."""
        return (self.outer - np.outer(self.sum, self.mean)) / (self.n - 1)

    def all_reduced(self) -> Moments:
        """The moments of what all processes have together, in each of them; of this one where torch.distributed is not running."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        packed = torch.from_numpy(np.concatenate([[self.n], self.sum, self.outer.ravel()]))
        packed = packed.to("cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(packed)
        n, total, outer = np.split(packed.cpu().numpy(), [1, 1 + len(self.sum)])
        return Moments(int(n[0]), total, outer.reshape(self.outer.shape))


class Extrapolation(NamedTuple):
    """The distance at infinitely many images, the r.m.s. distance of the points from the line, and whether a line may be expected."""

    value: float
    residual: float
    linear: bool


class _Gaussian(NamedTuple):
    """A mean (D,), and a root (R,D) whose root.T @ root is the covariance."""

    mean: torch.Tensor
    root: torch.Tensor


def frechet_distance(a: np.ndarray | Moments, b: np.ndarray | Moments) -> float:
    """The squared Frechet distance of the Gaussians fitted to `a` and `b`, each features (N,D) or their moments.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2) (Dowson & Landau 1982; Heusel et al. 2017, eq. 6). The last trace is the sum of the
    singular values of root1 root2^T where S = root^T root, which holds for covariances of any rank, and costs the less the fewer
    rows there are. It lies above 0 but for rounding, so what is below is 0. Raises ValueError for fewer than 2 rows and for unequal D.
    """
    return _distance(_gaussian(a), _gaussian(b))


def bootstrap(
    fake: np.ndarray,
    real: np.ndarray,
    draws: int,
    seed: int,
    statistic: Callable[[np.ndarray, np.ndarray], float] = frechet_distance,
    value: float | None = None,
) -> tuple[float, tuple[float, float]]:
    """The standard deviation of `statistic` of `fake` (N,D) and `real` (M,D), and an interval that holds it 95 times in 100.

    Both sets are drawn anew with replacement `draws` times (Efron 1979). A replicate has fewer different images, which biases a
    Frechet distance upward, so only the replicates' spread about their own mean is used: the interval is `value` (by default
    computed) plus their quantiles less their mean. It is about what sets of this size give, not about infinitely many images. A
    replicate of the Frechet distance weighs the different rows instead of repeating them. Raises ValueError below 2 draws.
    """
    if draws < 2:
        raise ValueError(f"a deviation takes at least 2 draws; got {draws}")
    replicates = np.empty(draws)
    for i in range(draws):
        rng = np.random.default_rng(mix(seed, "bootstrap", i))
        drawn_fake, drawn_real = (rng.integers(0, len(rows), len(rows)) for rows in (fake, real))
        if statistic is frechet_distance:
            replicates[i] = _distance(_drawn(fake, drawn_fake), _drawn(real, drawn_real))
        else:
            replicates[i] = statistic(fake[drawn_fake], real[drawn_real])
    middle = statistic(fake, real) if value is None else value
    low, high = middle + np.quantile(replicates, [(1 - COVERED) / 2, (1 + COVERED) / 2]) - replicates.mean()
    return float(replicates.std(ddof=1)), (float(low), float(high))


def extrapolated(fake: np.ndarray, real: np.ndarray, seed: int, sizes: int = 10) -> Extrapolation:
    """The Frechet distance of `fake` (N,D) and `real` (M,D) at infinitely many images: FID-infinity (Chong & Forsyth 2020).

    The bias of the distance goes as 1/N + 1/M, so both sets are cut to the same fraction of their images, at `sizes` fractions with
    evenly spaced inverses from 1 to 2, and the line through the distances against the inverse fraction is read off at 0. The subsets
    are nested, in an order keyed by `seed`. The value may fall below 0. Where the smallest subset has fewer than 2 D images the bias
    is not yet a line, as `linear` says, and the value not to be trusted. Raises ValueError for fewer than 4 images or 2 sizes.
    """
    smallest = min(len(fake), len(real)) // SMALLEST
    if smallest < 2 or sizes < 2:
        raise ValueError(f"needs at least 2 sizes, and 2 images in the smallest subset; got {sizes} and {smallest}")
    inverses = np.linspace(SMALLEST, 1, sizes)
    grown, fractions = [], np.zeros(sizes)
    for name, rows in (("fake", fake), ("real", real)):
        order = np.random.default_rng(mix(seed, "extrapolate", name)).permutation(len(rows))
        counts = (len(rows) / inverses).astype(int)
        grown.append(_growing(rows, order, counts))
        fractions += len(rows) / counts / 2
    distances = np.array([frechet_distance(a, b) for a, b in zip(*grown, strict=True)])
    slope, value = np.polyfit(fractions, distances, 1)
    residual = np.sqrt(np.mean((distances - value - slope * fractions) ** 2))
    return Extrapolation(float(value), float(residual), smallest >= 2 * fake.shape[1])


def _growing(rows: np.ndarray, order: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray | Moments]:
    """The first of `counts` (ascending) rows in `order`: as rows while they are few, then as moments that are only added to."""
    moments, start = Moments.of(rows[:0]), 0
    for count in counts:
        if count < rows.shape[1]:
            yield rows[order[:count]]
        else:
            for begin in range(start, count, BLOCK):
                moments = moments + Moments.of(rows[order[begin : min(begin + BLOCK, count)]])
            start = count
            yield moments


def _gaussian(of: np.ndarray | Moments) -> _Gaussian:
    if not isinstance(of, Moments):
        return _fitted(of, np.ones(len(of)))
    if of.n < 2:
        raise ValueError(f"a covariance takes at least 2 features; got {of.n}")
    return _Gaussian(torch.from_numpy(of.mean), _root(of.covariance))


def _drawn(rows: np.ndarray, drawn: np.ndarray) -> _Gaussian:
    """The Gaussian of `rows[drawn]`."""
    times = np.bincount(drawn, minlength=len(rows))
    return _fitted(rows[times > 0], times[times > 0].astype(np.float64))


def _fitted(rows: np.ndarray, weights: np.ndarray) -> _Gaussian:
    """The Gaussian of `rows` (N,D), each repeated as often as `weights` (N,) says."""
    n, dim = weights.sum(), rows.shape[1]
    if n < 2:
        raise ValueError(f"a covariance takes at least 2 features; got {int(n)}")
    blocks = [slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)]
    mean = sum(weights[block] @ rows[block].astype(np.float64) for block in blocks) / n
    scales = np.sqrt(weights / (n - 1))[:, None]
    if len(rows) < dim:
        return _Gaussian(torch.from_numpy(mean), torch.from_numpy((rows - mean) * scales))
    covariance = np.zeros((dim, dim))
    for block in blocks:
        centred = (rows[block] - mean) * scales[block]
        covariance += centred.T @ centred
    return _Gaussian(torch.from_numpy(mean), _root(covariance))


def _root(covariance: np.ndarray) -> torch.Tensor:
    """The rows of a Cholesky factor with pivots, which ends where what is left is rounding: D eps of the largest variance."""
    factor, pivots, rank, info = dpstrf(covariance.T, lower=1)
    if info < 0:
        raise ValueError("the covariance is not finite")
    root = np.empty((rank, len(covariance)))
    root[:, pivots - 1] = np.tril(factor)[:, :rank].T
    return torch.from_numpy(root)


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    if len(a.mean) != len(b.mean):
        raise ValueError(f"the features have {len(a.mean)} and {len(b.mean)} dimensions")
    short, long = sorted((a.root, b.root), key=len)
    product = short @ long.T
    with _one_thread():  # reducing a matrix to three diagonals waits for memory: threads that wait for each other only add to it
        squares = torch.linalg.eigvalsh(product @ product.T)
    shared = squares.clamp_(min=0).sqrt_().sum()
    squared = (a.mean - b.mean).square().sum() + a.root.square().sum() + b.root.square().sum()
    return max(0.0, float(squared - 2 * shared))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
