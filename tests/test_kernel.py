"""The kernel distance against torch-fidelity and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from facegen.metrics.kernel import kid


def features(count: int, seed: int, scale: float = 1.0, dim: int = 24) -> np.ndarray:
    return (np.abs(np.random.default_rng(seed).normal(size=(count, dim))) * scale).astype(np.float32)


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Over every pair of different rows, one after the other."""

    def kernel(u: np.ndarray, v: np.ndarray) -> float:
        return float((u @ v / len(u) + 1) ** 3)

    within = [np.mean([kernel(u, v) for i, u in enumerate(rows) for j, v in enumerate(rows) if i != j]) for rows in (x, y)]
    return float(within[0] + within[1] - 2 * np.mean([kernel(u, v) for u in x for v in y]))


@pytest.mark.parametrize(("subsets", "size"), [(100, 50), (3, 50), (1, 200), (7, 2)])
@pytest.mark.parametrize("seed", [2020, 7])
def test_the_distance_is_that_of_torch_fidelity(subsets: int, size: int, seed: int) -> None:
    fake, real = features(230, 0, scale=1.2), features(310, 1)
    theirs = kid_features_to_metric(
        *(torch.from_numpy(rows).double() for rows in (fake, real)), kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    expected = (theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"])
    assert kid(fake, real, subsets=subsets, subset_size=size, seed=seed) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_single_precision_of_torch_fidelity_is_within_a_millionth() -> None:
    fake, real = features(1500, 0, dim=512), features(1200, 1, scale=1.1, dim=512)
    theirs = kid_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), kid_subsets=5, verbose=False)
    expected = (theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"])
    assert kid(fake, real, subsets=5) == pytest.approx(expected, abs=1e-6)


def test_a_subset_that_is_the_whole_set_is_the_definition() -> None:
    fake, real = features(12, 0, scale=1.3).astype(np.float64), features(12, 1).astype(np.float64)
    mean, deviation = kid(fake, real, subsets=4, subset_size=12)
    assert mean == pytest.approx(by_definition(fake, real), rel=1e-12)
    assert deviation == pytest.approx(0, abs=1e-12)


def test_one_distribution_is_zero_but_for_chance() -> None:
    mean, deviation = kid(features(2000, 0), features(2000, 1), subsets=50, subset_size=200)
    apart, _ = kid(features(2000, 0), features(2000, 1, scale=1.2), subsets=50, subset_size=200)
    assert abs(mean) < deviation
    assert apart > 10 * deviation


@pytest.mark.parametrize("options", [{"subset_size": 31}, {"subset_size": 1}, {"subsets": 0, "subset_size": 10}])
def test_impossible_subsets_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="cannot draw"):
        kid(features(30, 0), features(40, 1), **options)
