"""The Frechet distance against closed forms, scipy and torch-fidelity, in one process and in several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.linalg import sqrtm, svdvals
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from facegen.metrics.frechet import Moments, bootstrap, extrapolated, frechet_distance


def features(count: int, dim: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Correlated, skewed, not centred: what a network's last layer gives."""
    mixing = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim) * np.arange(1, dim + 1) ** -0.5
    drawn = np.random.default_rng(seed).normal(size=(count, dim)) * scale
    return (np.abs(drawn @ mixing) + shift).astype(np.float32)


def moments(mean: np.ndarray, covariance: np.ndarray, n: int = 100) -> Moments:
    return Moments(n, n * mean, (n - 1) * covariance + n * np.outer(mean, mean))


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as written, with a matrix square root."""
    difference = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    first, second = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (a, b))
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2 * np.trace(sqrtm(first @ second)).real)


def test_moments_are_those_of_numpy() -> None:
    rows = features(2500, 7, 0)
    of = Moments.of(rows)
    np.testing.assert_allclose(of.mean, rows.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(of.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-9)


def test_gaussians_with_commuting_covariances_have_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    axes, mean = np.linalg.qr(rng.normal(size=(12, 12)))[0], rng.normal(size=(2, 12))
    spread = rng.uniform(0.1, 3, size=(2, 12))
    ours = frechet_distance(*(moments(m, axes * s**2 @ axes.T) for m, s in zip(mean, spread, strict=True)))
    assert ours == pytest.approx(np.sum((mean[0] - mean[1]) ** 2) + np.sum((spread[0] - spread[1]) ** 2), rel=1e-10)


def test_gaussians_with_covariances_that_do_not_commute_have_the_closed_form() -> None:
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[4.0, -1.0], [-1.0, 0.5]])
    assert np.abs(first @ second - second @ first).max() > 1
    product = first @ second  # of two rows: tr sqrt(P) = sqrt(tr P + 2 sqrt(det P))
    shared = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = 25 + np.trace(first) + np.trace(second) - 2 * shared
    assert frechet_distance(moments(np.array([3.0, 0.0]), first), moments(np.array([0.0, 4.0]), second)) == pytest.approx(
        expected, rel=1e-12
    )


def test_a_gaussian_along_one_line_has_the_closed_form() -> None:
    """S1 = u u^T has rank one: tr sqrt(S1 S2) = sqrt(u^T S2 u)."""
    u, root = np.random.default_rng(0).normal(size=9), np.random.default_rng(1).normal(size=(9, 9))
    second = root @ root.T
    expected = u @ u + np.trace(second) - 2 * np.sqrt(u @ second @ u)
    assert frechet_distance(moments(np.zeros(9), np.outer(u, u)), moments(np.zeros(9), second)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("count", [20, 400])
@pytest.mark.parametrize("prepared", [np.asarray, Moments.of])
def test_a_set_against_itself_is_zero(count: int, prepared) -> None:
    rows = prepared(features(count, 60, 0))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 31), (20, 300), (300, 20), (300, 400), (60, 61)])
@pytest.mark.parametrize("prepared", [np.asarray, Moments.of])
def test_the_distance_is_that_of_a_matrix_square_root(n: int, m: int, prepared) -> None:
    a, b = features(n, 60, 0), features(m, 60, 1, scale=1.3)
    ours = frechet_distance(prepared(a), prepared(b))
    theirs = [fid_features_to_statistics(torch.from_numpy(rows).double()) for rows in (a, b)]
    assert ours == pytest.approx(by_scipy(a, b), rel=1e-5)
    assert ours == pytest.approx(fid_statistics_to_metric(*theirs, False)["frechet_inception_distance"], rel=1e-5)


@pytest.mark.parametrize("count", [50, 200])
def test_equal_and_dead_features_take_nothing_from_the_accuracy(count: int) -> None:
    """Covariances of low rank, for which a matrix square root is inexact: the singular values of the roots are the oracle."""
    a, b = np.tile(features(count // 2, 100, 0), (2, 1)), features(count, 100, 1)
    a[:, 30:40] = b[:, 30:35] = 0.0
    first, second = ((rows - rows.mean(0, dtype=np.float64)) / np.sqrt(count - 1) for rows in (a, b))
    difference = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    expected = difference @ difference + (first**2).sum() + (second**2).sum() - 2 * svdvals(first @ second.T).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-6)


def test_the_distance_is_symmetric_and_takes_rows_beside_moments() -> None:
    a, b = features(33, 50, 0), features(120, 50, 1, scale=1.2)
    expected = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(Moments.of(a), b) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(a, Moments.of(b)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_moments_in_parts_and_in_another_order_give_the_same_distance(shift: float) -> None:
    a, b = features(101, 16, 0, shift=shift), features(90, 16, 1, scale=1.3, shift=shift)
    parts = [Moments.of(part) for part in np.split(a, [1, 1, 40])]
    backwards = parts[3] + (parts[2] + parts[1]) + parts[0]
    assert frechet_distance(backwards, Moments.of(b)) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def _rank(rank: int, ranks: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    a, b = features(101, 16, 0), features(90, 16, 1, scale=1.3)
    mine = slice(0, 0) if rank == 1 else slice(rank // 2, None, max(1, ranks - 1))  # rank 1 has none
    distance = frechet_distance(Moments.of(a[mine]).all_reduced(), Moments.of(b[mine]).all_reduced())
    Path(folder, str(rank)).write_text(f"{distance!r} {Moments.of(a[mine]).all_reduced().n}")
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_several_processes_give_the_distance_of_one(ranks: int, tmp_path: Path) -> None:
    expected = frechet_distance(features(101, 16, 0), features(90, 16, 1, scale=1.3))
    mp.start_processes(_rank, (ranks, str(tmp_path)), nprocs=ranks, start_method="fork")
    for rank in range(ranks):
        distance, count = (tmp_path / str(rank)).read_text().split()
        assert float(distance) == pytest.approx(expected, rel=1e-6)
        assert int(count) == 101


def test_without_other_processes_moments_stay_as_they_are() -> None:
    of = Moments.of(features(9, 3, 0))
    assert of.all_reduced() is of


@pytest.mark.parametrize("bad", [features(1, 4, 0), features(0, 4, 0), features(9, 5, 0), Moments.of(features(1, 4, 0))])
def test_what_has_no_covariance_or_other_dimensions_is_refused(bad: np.ndarray | Moments) -> None:
    with pytest.raises(ValueError, match=r"at least 2 features|dimensions"):
        frechet_distance(bad, features(9, 4, 1))


@pytest.mark.parametrize("dim", [4, 100])
def test_replicates_weigh_rows_as_if_they_were_repeated(dim: int) -> None:
    a, b = features(80, dim, 0), features(90, dim, 1, scale=1.2)
    ours = bootstrap(a, b, 5, 3)
    repeated = bootstrap(a, b, 5, 3, statistic=lambda x, y: frechet_distance(x, y))
    np.testing.assert_allclose(np.hstack(ours), np.hstack(repeated), rtol=1e-6)


def test_bootstrap_is_repeatable_and_keyed() -> None:
    a, b = features(80, 6, 0), features(90, 6, 1, scale=1.2)
    assert bootstrap(a, b, 10, 0) == bootstrap(a, b, 10, 0)
    assert bootstrap(a, b, 10, 0) != bootstrap(a, b, 10, 1)
    deviation, (low, high) = bootstrap(a, b, 50, 0)
    value = frechet_distance(a, b)
    assert low < value < high
    assert bootstrap(a, b, 50, 0, value=value + 1) == (deviation, (pytest.approx(low + 1), pytest.approx(high + 1)))
    with pytest.raises(ValueError, match="at least 2 draws; got 1"):
        bootstrap(a, b, 1, 0)


def test_the_deviation_and_the_interval_are_those_of_samples_drawn_anew() -> None:
    worlds = [(features(200, 4, 2 * seed), features(200, 4, 2 * seed + 1, scale=1.5)) for seed in range(60)]
    values = np.array([frechet_distance(*world) for world in worlds])
    told = [bootstrap(*world, 40, 0, value=value) for world, value in zip(worlds, values, strict=True)]
    assert np.mean([deviation for deviation, _ in told]) == pytest.approx(values.std(), rel=0.25)
    assert np.mean([low <= values.mean() <= high for _, (low, high) in told]) > 0.85


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 1))
    deviation, (low, high) = bootstrap(rows, rows, 1000, 0, statistic=lambda a, _: float(a.mean()))
    assert deviation == pytest.approx(rows.std() / 20, rel=0.1)
    assert (high - low) / 2 == pytest.approx(1.96 * rows.std() / 20, rel=0.1)


def test_extrapolation_of_one_distribution_is_nearer_to_zero_than_the_plain_distance() -> None:
    ratios = []
    for seed in range(5):
        a, b = features(1000, 32, 2 * seed), features(800, 32, 2 * seed + 1)
        found = extrapolated(a, b, 0)
        assert found.linear
        assert found == extrapolated(a, b, 0)
        ratios.append(abs(found.value) / frechet_distance(a, b))
    assert max(ratios) < 1
    assert np.mean(ratios) < 0.4


def test_extrapolation_finds_the_distance_of_known_gaussians() -> None:
    """N(0, 1) and N(0, 1.5^2) in 40 dimensions are 40 x 0.5^2 = 10 apart."""
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(1500, 40)), 1.5 * rng.normal(size=(1500, 40))
        errors.append((extrapolated(a, b, seed).value - 10, frechet_distance(a, b) - 10))
    assert abs(np.mean([after for after, _ in errors])) < 0.5 * abs(np.mean([before for _, before in errors]))


def test_extrapolation_says_where_the_bias_is_not_a_line_yet() -> None:
    many, few = extrapolated(features(200, 50, 0), features(500, 50, 1), 0), extrapolated(features(199, 50, 0), features(500, 50, 1), 0)
    assert (many.linear, few.linear) == (True, False)
    with pytest.raises(ValueError, match="needs at least 2 sizes"):
        extrapolated(features(3, 3, 0), features(50, 3, 1), 0)
