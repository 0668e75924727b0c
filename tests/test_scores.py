"""Inception score and memorization against torch-fidelity, torchmetrics and what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from facegen.metrics.frechet import frechet_distance
from facegen.metrics.scores import inception_score, memorization_distance, mifid


def positive(count: int, seed: int, dim: int = 12) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(size=(count, dim)))


@pytest.mark.parametrize(("count", "splits"), [(103, 10), (103, 1), (7, 7), (100, 3)])
def test_the_inception_score_is_that_of_torch_fidelity(count: int, splits: int) -> None:
    logits = (4 * np.random.default_rng(0).normal(size=(count, 30))).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=False)
    expected = (theirs["inception_score_mean"], theirs["inception_score_std"])
    assert inception_score(logits, splits) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_sure_classifier_of_equally_many_classes_scores_their_number() -> None:
    logits = 2000 * np.eye(10, 16)[np.arange(200) % 10]  # probabilities of exactly 0, also of whole classes
    assert inception_score(logits, 10) == pytest.approx((10, 0))


def test_a_classifier_that_sees_no_difference_scores_one() -> None:
    assert inception_score(np.ones((50, 16)), 5) == pytest.approx((1, 0))


def test_fewer_logits_than_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot part 5 logits into 10"):
        inception_score(np.ones((5, 3)))


@pytest.mark.parametrize("near", [True, False])
def test_memorization_is_that_of_torchmetrics(near: bool) -> None:
    real = positive(60, 0)
    fake = real[:50] + 0.1 * positive(50, 1) if near else positive(50, 1) ** 8
    real[7] = 0
    theirs = MemorizationInformedFrechetInceptionDistance(feature=nn.Identity())
    theirs.update(torch.from_numpy(real), real=True)
    theirs.update(torch.from_numpy(fake), real=False)
    distance = memorization_distance(fake, real)
    assert (distance < 0.1) == near
    assert mifid(frechet_distance(fake, real), distance) == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_copies_are_no_distance_away_whatever_their_length() -> None:
    real = positive(40, 0)
    assert memorization_distance(3 * real[::-1], real) == pytest.approx(0, abs=1e-12)
    assert memorization_distance(-real, real) == pytest.approx(0, abs=1e-12)


def test_features_at_right_angles_are_one_away() -> None:
    assert memorization_distance(np.eye(6)[:3], np.eye(6)[3:]) == 1


def test_only_a_distance_below_the_threshold_tells_in_mifid() -> None:
    assert mifid(5.0, 0.05) == pytest.approx(100)
    assert mifid(5.0, 0.1) == pytest.approx(5)
    assert mifid(5.0, 0.3, threshold=0.5) == pytest.approx(5 / 0.3)
    assert mifid(1e-9, 0.0) == 0


def test_zeros_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="all features are zero"):
        memorization_distance(np.zeros((3, 4)), positive(5, 0, 4))
