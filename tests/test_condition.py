"""Whether images show what their model was told: the numbers against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facegen.metrics import condition
from facegen.metrics.condition import Questions, shared
from facegen.metrics.frechet import frechet_distance

QUESTIONS = Questions(["Male", "Smiling"], {"kind": ["A", "B", "C"]})
CLASS = np.eye(3)


def rows(male: list[float], smiling: list[float], kinds: list[int]) -> np.ndarray:
    return np.column_stack([male, smiling, [CLASS[k] if k >= 0 else np.zeros(3) for k in kinds]])


def test_logits_are_read_as_chances_that_sum_to_one_within_a_group() -> None:
    logits = np.array([[0.0, np.log(3), np.log(1), np.log(2), np.log(5)], [-900.0, 900.0, 1e4, 0.0, -1e4]], np.float32)
    assert QUESTIONS.probabilities(logits) == pytest.approx(np.array([[0.5, 0.75, 1 / 8, 2 / 8, 5 / 8], [0, 1, 1, 0, 0]]))


def test_columns_are_found_by_name_whatever_their_order() -> None:
    names = ["C", "Hat", "Smiling", "A", "B", "Male"]
    assert QUESTIONS.of(np.arange(6)[None], names).tolist() == [[5, 2, 3, 4, 0]]


def test_questions_are_shared_where_the_probe_knows_the_name_and_all_classes_of_a_group() -> None:
    theirs = Questions(["Smiling", "Hat"], {"sort": ["C", "B", "A", "D"]})
    questions, notes = shared(QUESTIONS, theirs)
    assert (questions.attributes, questions.groups) == (["Smiling"], QUESTIONS.groups)
    assert notes == ["the probe cannot read Male"]
    fewer, notes = shared(QUESTIONS, Questions(["Male", "Smiling"], {"kind": ["A", "B"]}))
    assert fewer.groups == {}
    assert notes == ["the probe cannot read kind"]


def test_an_attribute_counts_both_sides_alike_however_rare_it_is() -> None:
    told = rows([1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 1, 1, 2])
    read = rows([0.4, 0.1, 0.1, 0.9, 0.1], [0.9, 0.9, 0.9, 0.1, 0.2], [0, 1, 1, 1, 2])
    answers = condition.answered(QUESTIONS, told, read)
    assert answers["attributes"]["Male"] == {"balanced": 0.375, "found": 0.0, "not_found": 0.75, "told": 1, "not_told": 4}
    assert answers["attributes"]["Smiling"]["balanced"] == pytest.approx((0.75 + 1) / 2)
    assert answers["groups"]["kind"]["accuracy"] == pytest.approx(0.8)
    assert answers["groups"]["kind"]["confusion"] == [[1, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert answers["groups"]["kind"]["classes"]["A"] == {"hit": 0.5, "count": 2}
    assert (answers["of_groups"], answers["of_attributes"]) == (pytest.approx(0.8), pytest.approx(0.625))
    assert answers["value"] == pytest.approx((0.375 + 0.875 + 0.8) / 3)


def test_what_no_image_was_told_does_not_count() -> None:
    told = rows([1, 1], [1, 0], [-1, -1])
    answers = condition.answered(QUESTIONS, told, told)
    assert answers["groups"]["kind"]["accuracy"] is None
    assert answers["groups"]["kind"]["count"] == 0
    assert (answers["attributes"]["Male"]["balanced"], answers["attributes"]["Male"]["found"]) == (None, 1.0)
    assert answers["value"] == answers["of_attributes"] == 1
    assert answers["of_groups"] is None


def test_rare_attributes_are_listed_with_how_often_they_were_found() -> None:
    told = rows([1, 1, 0], [1, 0, 0], [0, 1, 2])
    answers = condition.answered(QUESTIONS, told, rows([0.9, 0.2, 0], [1, 0, 0], [0, 1, 2]))
    assert condition.rare(answers, {"Male": 0.04, "Smiling": 0.05}) == {"Male": {"share": 0.04, "coverage": 0.5, "told": 2}}


def test_the_deviation_is_that_of_a_share() -> None:
    only, rng = Questions([], {"kind": ["A", "B"]}), np.random.default_rng(0)
    told, right = np.eye(2)[rng.integers(0, 2, 400)], rng.random(400) < 0.8
    read = np.where(right[:, None], told, 1 - told)
    assert condition.deviation(only, told, read) == pytest.approx(np.sqrt(right.mean() * (1 - right.mean()) / 400), rel=0.25)
    assert condition.deviation(only, told, told) == 0


def test_a_leak_is_found_in_the_row_of_what_was_asked_and_the_column_of_what_changed() -> None:
    without = np.zeros((2, 4, 5))
    with_it = without.copy()
    with_it[0, :, 0] = with_it[1, :, 1] = 1  # as asked
    with_it[0, :2, 3] = 0.5  # half of the faces with Male become B somewhat
    with_it[1, :, 0] = -0.1
    leak = condition.leakage(QUESTIONS, without, with_it)
    assert np.allclose(leak["matrix"], [[1, 0, 0, 0.25, 0], [-0.1, 1, 0, 0, 0]])
    assert leak["mean_asked"] == 1
    assert leak["mean_leak"] == pytest.approx(0.35 / 8)
    assert [(one["asked"], one["changes"]) for one in leak["largest"][:2]] == [("Male", "B"), ("Smiling", "Male")]


def test_nothing_leaks_where_there_is_one_question() -> None:
    leak = condition.leakage(Questions(["Male"], {}), np.zeros((1, 4, 1)), np.ones((1, 4, 1)))
    assert (leak["matrix"], leak["mean_leak"], leak["largest"]) == ([[1.0]], 0.0, [])


def test_diversity_is_the_ratio_of_variances_within_classes_and_not_between_them() -> None:
    rng = np.random.default_rng(1)
    told = rows([0] * 300, [0] * 300, [0, 1, 2] * 100)
    real = rng.standard_normal((300, 6)) + 50 * told[:, [2]]
    drawn = 0.5 * (real - real.mean(0)) - 1000 * told[:, [3]]
    assert condition.diversity(QUESTIONS, "kind", told, drawn, told, real) == pytest.approx(0.25)
    assert condition.diversity(QUESTIONS, "kind", told, real, told, real) == pytest.approx(1)
    alone = Questions(["Male", "Smiling"], {})
    assert condition.diversity(alone, None, told[:, :2], 2 * real, told[:, :2], real) == pytest.approx(4)
    assert condition.diversity(QUESTIONS, "kind", told[:1], drawn[:1], told, real) is None


def test_the_group_that_is_read_best_is_the_one_most_often_right() -> None:
    groups = {"age": {"accuracy": 0.5}, "race": {"accuracy": 0.8}, "unseen": {"accuracy": None}}
    assert condition.best_read({"groups": groups}) == "race"
    assert condition.best_read({"groups": {}}) is None


def test_the_distance_of_a_class_is_the_frechet_distance_of_its_rows() -> None:
    rng = np.random.default_rng(2)
    told, labels = rows([0] * 40, [0] * 40, [0, 1] * 20), rows([0] * 60, [0] * 60, [0, 1, 2] * 20)
    drawn, real = rng.standard_normal((40, 4)), rng.standard_normal((60, 4)) + 1
    found = condition.distances(QUESTIONS, told, drawn, labels, real)["kind"]
    assert found["B"] == {"distance": frechet_distance(drawn[1::2], real[1::3]), "told": 20, "real": 20}
    assert found["C"] == {"distance": None, "told": 0, "real": 20}


@pytest.mark.parametrize(
    ("shares", "of_means", "pooled"),
    [
        ([[0.0, 0.2, 0.7], [0.0, 0.2, 0.7]], 1, 1),
        ([[0.9, 0.5, 0.1]], -1, -1),
        ([[0.4, 0.4, 0.4], [0.4, 0.4, 0.4]], 0, 0),
        ([[0.400, 0.404, 0.409]], 0, 0),
        ([[0.1, 0.2, 0.3], [0.3, 0.2, 0.105]], 0, 0),
        ([[0.400, 0.404, 0.411]], 1, 1),
        ([[0.0, 0.1, 0.2], [0.7, 0.8, 0.9]], 1, 0.4781),
    ],
)
def test_blends_are_monotone_by_their_ranks_and_not_where_the_mean_hardly_moves(shares: Any, of_means: float, pooled: float) -> None:
    found = condition.monotone([0, 0.5, 1], np.array(shares))
    assert found["spearman"] == pytest.approx(of_means)
    assert found["pooled"] == pytest.approx(pooled, abs=1e-4)
    assert found["shares"] == pytest.approx(np.mean(shares, axis=0).tolist())
