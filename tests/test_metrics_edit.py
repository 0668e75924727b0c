"""The numbers of an edit, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facegen.metrics import edit
from facegen.metrics.paired import psnr

MIDDLES = np.array([5.0, 25.0, 60.0])
BOX = (0.25, 0.25, 0.75, 0.75)


def pictures(count: int = 6, side: int = 16, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def read(*groups: int) -> np.ndarray:
    return np.eye(3)[list(groups)] * 0.7 + 0.1


def test_ages_that_are_read_as_asked_are_right_and_nothing_off() -> None:
    asked = np.array([0, 1, 2, 2])
    table = edit.ages(asked, read(0, 1, 2, 2), MIDDLES)
    assert (table["right"], table["near"], table["years"], table["count"]) == (1.0, 1.0, 0.0, 4)
    assert table["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 2]]


def test_ages_that_are_read_otherwise_are_off_by_the_distance_of_the_middles() -> None:
    asked, seen = np.array([0, 1, 2]), read(1, 1, 0)
    table = edit.ages(asked, seen, MIDDLES)
    assert table["right"] == pytest.approx(1 / 3)
    assert table["near"] == pytest.approx(2 / 3)
    assert table["years"] == pytest.approx((20 + 0 + 55) / 3)
    assert edit.off(asked, seen, MIDDLES).tolist() == [20, 0, 55]
    assert table["expected_years"] == pytest.approx(np.abs(seen @ MIDDLES - MIDDLES[asked]).mean())
    assert np.sum(table["confusion"]) == 3


def test_an_edit_that_changes_nobody_is_found_and_one_that_swaps_people_is_not() -> None:
    features = np.random.default_rng(0).normal(size=(20, 8)) + 3
    same = edit.identity(features, features)
    assert same["cosine"] == pytest.approx(1)
    assert same["found"] == 1
    swapped = edit.identity(features, np.roll(features, 1, axis=0))
    assert swapped["found"] == 0
    others = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for i, a in enumerate(features - features.mean(0)) for j, b in
              enumerate(features - features.mean(0)) if i != j]  # fmt: skip
    assert same["strangers"] == pytest.approx(np.mean(others))


def test_what_is_common_to_all_faces_is_no_likeness() -> None:
    features = np.random.default_rng(0).normal(size=(50, 8)) + 100
    assert abs(edit.identity(features, np.roll(features, 1, axis=0))["cosine"]) < 0.3


def test_the_true_pictures_stand_beside_the_edits() -> None:
    features = np.random.default_rng(0).normal(size=(20, 8))
    table = edit.identity(features, features, np.roll(features, 1, axis=0))
    assert (table["same_person_found"], table["found"]) == (0, 1)
    assert table["same_person"] < table["cosine"]


def test_outside_the_face_only_what_lies_there_counts() -> None:
    a = pictures()
    inside, outside = a.copy(), a.copy()
    inside[:, :, 6:10, 6:10] = 0
    outside[:, :, 0, 0] = 255 - outside[:, :, 0, 0]
    assert (edit.outside_psnr(a, inside, BOX) == 100).all()
    assert (edit.outside_psnr(a, outside, BOX) < 100).all()
    by_hand = ((a[:, :, 0, 0].astype(float) - outside[:, :, 0, 0]) ** 2).sum(1) / (3 * (256 - 64))
    np.testing.assert_allclose(edit.outside_psnr(a, outside, BOX), 10 * np.log10(255**2 / by_hand))


def test_over_the_whole_picture_it_is_the_ratio_that_torchmetrics_computes() -> None:
    a, b = pictures(seed=1), pictures(seed=2)
    np.testing.assert_allclose(edit.psnr(a, b), psnr(torch.from_numpy(a), torch.from_numpy(b)), rtol=1e-6)


def test_a_covered_face_is_grey_and_the_rest_as_it_was() -> None:
    a = pictures()
    hidden = edit.covered(a, BOX)
    assert (hidden[:, :, 4:12, 4:12] == edit.GREY).all()
    assert (edit.outside_psnr(a, hidden, BOX) == 100).all()


def test_drift_counts_what_came_and_what_went() -> None:
    before = np.array([[0, 1], [0, 1], [1, 1], [1, 0]])
    after = np.array([[1, 1], [0, 1], [1, 0], [1, 0]])
    table = edit.drift(["Hat", "Beard"], before, after, truth=after)
    assert table["names"]["Hat"] == {"kept": 0.75, "gained": 0.25, "lost": 0.0, "right": 1.0}
    assert table["names"]["Beard"] == {"kept": 0.75, "gained": 0.0, "lost": 0.25, "right": 1.0}
    assert table["mean_kept"] == 0.75
    assert "right" not in edit.drift(["Hat"], before, after)["names"]["Hat"]


@pytest.mark.parametrize("channels", [1, 3])
def test_smeared_eyes_are_less_sharp_and_a_flat_picture_has_no_sharpness(channels: int) -> None:
    a = pictures(channels=channels)
    smeared = a.copy()
    smeared[:, :, 4:12, 4:12] = smeared[:, :, 4:12, 4:12].mean(axis=(2, 3), keepdims=True).astype(np.uint8)
    assert edit.eyes(a, a, BOX) == {"ratio": 1.0, "lost": 0.0}
    assert edit.eyes(a, smeared, BOX)["lost"] == 1.0
    assert (edit.sharpness(np.full_like(a, 77), BOX) < 1e-6).all()


def test_the_sharpness_of_a_single_bright_point_is_that_of_its_laplacian() -> None:
    point = np.zeros((1, 1, 16, 16), np.uint8)
    point[0, 0, 8, 8] = 10
    assert edit.sharpness(point, BOX)[0] == pytest.approx((40**2 + 4 * 10**2) / 64)


def test_an_edit_is_nearest_to_the_age_whose_picture_it_is() -> None:
    true = np.stack([pictures(seed=s) for s in range(3)], axis=1)
    asked = np.array([0, 1, 2, 0, 1, 2])
    edits = true[np.arange(6), asked].astype(int) + np.random.default_rng(0).integers(-20, 20, (6, 3, 16, 16))
    assert edit.nearest(edits.clip(0, 255).astype(np.uint8), true).tolist() == asked.tolist()


def test_the_best_points_are_those_that_no_other_one_beats() -> None:
    points = [{"years": 1.0, "cosine": 0.2}, {"years": 2.0, "cosine": 0.5}, {"years": 3.0, "cosine": 0.4}, {"years": 1.0, "cosine": 0.2}]
    assert edit.pareto(points, "years", "cosine") == [True, True, False, True]
