"""Nearest neighbours against brute force; precision, recall, density and coverage where they are known."""

from __future__ import annotations

import numpy as np
import pytest

from facegen.metrics.manifold import density_coverage, nearest, precision_recall


def features(count: int, seed: int, dim: int = 16, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, dim)) + shift).astype(np.float32)


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All distances (N,M), from differences."""
    return np.linalg.norm(a[:, None].astype(np.float64) - b[None].astype(np.float64), axis=2)


def radii(rows: np.ndarray, k: int) -> np.ndarray:
    distances = apart(rows, rows)
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, 1)[:, k - 1]


@pytest.mark.parametrize("block", [1, 500, 1 << 23])
@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("k", [1, 4, 90])
def test_nearest_is_brute_force(block: int, shift: float, k: int) -> None:
    queries, gallery = features(33, 0, shift=shift), features(90, 1, shift=shift)
    distances, indices = nearest(queries, gallery, k, block=block)
    every = apart(queries, gallery)
    np.testing.assert_array_equal(indices, np.argsort(every, 1, kind="stable")[:, :k])
    np.testing.assert_allclose(distances, np.sort(every, 1)[:, :k], rtol=1e-12)


def test_nearest_is_brute_force_where_matrix_products_cancel() -> None:
    """Two clusters so far apart that |x|^2 - 2 x.y + |y|^2 is wrong by more than neighbours differ, whatever its origin."""
    sides = np.where(np.arange(90) % 2, 3e7, -3e7)[:, None]
    queries, gallery = features(90, 0).astype(np.float64) + sides, features(90, 1).astype(np.float64) + sides
    every = apart(queries, gallery)
    distances, indices = nearest(queries, gallery, 4)
    np.testing.assert_array_equal(indices, np.argsort(every, 1, kind="stable")[:, :4])
    np.testing.assert_allclose(distances, np.sort(every, 1)[:, :4], rtol=1e-12)


def test_equal_rows_are_nothing_apart_and_the_lower_index_comes_first() -> None:
    rows = features(40, 0, shift=1e3)
    gallery = np.concatenate([rows[::-1], rows, rows])
    distances, indices = nearest(rows, gallery, 3)
    assert (distances == 0).all()
    np.testing.assert_array_equal(indices, [[39 - i, 40 + i, 80 + i] for i in range(40)])


def test_ties_on_a_grid_go_by_index() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 2), -1).reshape(-1, 2).astype(np.float32)
    distances, indices = nearest(grid, grid, 9)
    every = apart(grid, grid)
    np.testing.assert_array_equal(indices, np.argsort(every, 1, kind="stable")[:, :9])
    np.testing.assert_array_equal(distances, np.sort(every, 1)[:, :9])


def test_images_as_bytes_have_neighbours_too() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 48), dtype=np.uint8)
    distances, indices = nearest(images, images[::-1], 1)
    assert (distances == 0).all()
    np.testing.assert_array_equal(indices[:, 0], 19 - np.arange(20))


@pytest.mark.parametrize("k", [0, 6])
def test_more_neighbours_than_features_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="neighbours among 5 features"):
        nearest(features(3, 0), features(5, 1), k)


def test_no_queries_have_no_neighbours() -> None:
    assert nearest(features(0, 0), features(5, 1), 2)[0].shape == (0, 2)


def test_disjoint_sets_have_no_precision_recall_density_or_coverage() -> None:
    fake, real = features(50, 0), features(60, 1, shift=100)
    assert precision_recall(fake, real) == (0, 0)
    assert density_coverage(fake, real) == (0, 0)


@pytest.mark.parametrize("copies", [1, 2, 6])
def test_equal_sets_have_all_precision_recall_and_coverage(copies: int) -> None:
    rows = np.tile(features(60, 0, shift=1e3), (copies, 1))  # six copies make balls without extent
    assert precision_recall(rows, rows[::-1]) == (1, 1)
    assert density_coverage(rows, rows[::-1])[1] == 1


def test_a_set_against_itself_has_the_density_of_its_neighbours() -> None:
    """Each ball holds its centre and the k neighbours that it reaches to: (k + 1) / k."""
    rows = features(60, 0)
    assert density_coverage(rows, rows, k=5)[0] == pytest.approx(6 / 5)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_density_and_coverage_are_their_definitions(k: int) -> None:
    fake, real = features(70, 0) * np.float32(0.8), features(90, 1)
    distances = apart(fake, real)
    in_real, in_fake = distances <= radii(real, k), distances <= radii(fake, k)[:, None]
    assert precision_recall(fake, real, k) == pytest.approx((in_real.any(1).mean(), in_fake.any(0).mean()))
    assert density_coverage(fake, real, k) == pytest.approx((in_real.sum() / (k * len(fake)), in_real.any(0).mean()))


def test_samples_of_half_the_modes_are_precise_and_recall_half() -> None:
    modes = np.where(np.arange(200) < 100, 0, 50)[:, None].astype(np.float32)
    real, fake = features(200, 0, dim=2) + modes, features(100, 1, dim=2)
    precision, recall = precision_recall(fake, real)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.05)
    assert density_coverage(fake, real)[1] == pytest.approx(0.5, abs=0.05)


def test_one_far_real_image_wins_no_density() -> None:
    """Naeem et al. 2020, fig. 1: an outlier's large ball raises precision to 1, and density hardly."""
    real = np.concatenate([features(100, 0, dim=2), [[1000, 1000]]]).astype(np.float32)
    fake = features(100, 1, dim=2, shift=500)
    assert precision_recall(fake, real)[0] == 1
    assert density_coverage(fake, real)[0] == pytest.approx(1 / 5)
