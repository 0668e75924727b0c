"""What is typed as a condition is what a model is told; what is left open is as in the data."""

from __future__ import annotations

import pytest
import torch

from facegen.asking import Asker, between
from facegen.errors import UserError
from facegen.families.labels import Labels

NAMES = ["Male", "Smiling", "European", "Indian", "Oriental", "20-29", "7"]
GROUPS = {"race": ["European", "Indian", "Oriental"], "other": ["20-29", "7"]}
EXAMPLES = torch.tensor([[1, 1, 1, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 0, 1], [0, 0, 0, 1, 0, 1, 0]], dtype=torch.float32)
ASKER = Asker(Labels(NAMES, GROUPS), EXAMPLES)


def rows(value: object, seeds: range = range(40), mixed: bool = True) -> torch.Tensor:
    told = ASKER.told([ASKER.blend(value)] * len(seeds), seeds, mixed=mixed)
    assert told.shares.shape == (len(seeds), 1)
    return told.conditions[:, 0]


def column(name: str) -> int:
    return NAMES.index(name)


def test_where_nothing_is_asked_every_image_is_told_the_labels_of_a_training_image() -> None:
    found = rows(None)
    assert {tuple(row.tolist()) for row in found} == {tuple(row.tolist()) for row in EXAMPLES}


def test_none_says_nothing_at_all() -> None:
    assert rows("none").isnan().all()


@pytest.mark.parametrize("value", ["Indian", {"Indian": 1}, {"Indian": True}, {"Indian": 1.0, "European": 0}])
def test_a_class_is_told_alone_in_its_group_and_the_rest_is_that_of_images_of_the_class(value: object) -> None:
    found = rows(value)
    assert (found[:, 2:5] == torch.tensor([0.0, 1.0, 0.0])).all()
    assert {tuple(row.tolist()) for row in found} == {tuple(EXAMPLES[i].tolist()) for i in (1, 3)}


@pytest.mark.parametrize("value", [7, "7", {7: 1}, {"7": 1}])
def test_a_class_may_have_a_number_for_a_name(value: object) -> None:
    assert (rows(value)[:, column("7")] == 1).all()


def test_attributes_are_told_as_they_are_asked_also_where_no_training_image_is_like_that() -> None:
    found = rows({"Male": 1, "Smiling": 0, "Indian": 1})
    assert (found[:, :5] == torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0])).all()


def test_a_blend_mixed_into_one_condition_is_the_sum_of_its_parts_by_their_shares() -> None:
    found = rows({"European": 0.25, "Indian": 0.75, "Smiling": 0.5})
    torch.testing.assert_close(found[:, 2:5], torch.tensor([0.25, 0.75, 0.0]).expand(40, -1))
    torch.testing.assert_close(found[:, 1], torch.full((40,), 0.5))


def test_the_parts_of_a_blend_stay_pure_side_by_side_in_the_order_they_were_typed() -> None:
    blend = ASKER.blend({"Indian": 0.3, "European": 0.7})
    told = ASKER.told([blend], [0], mixed=False)
    assert [name for _, wish in blend for name in wish or {}] == ["Indian", "European"]
    torch.testing.assert_close(told.shares, torch.tensor([[0.3, 0.7]]))
    assert told.conditions[0, :, 2:5].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert torch.equal(told.conditions[0, 0, [0, 1, 5, 6]], told.conditions[0, 1, [0, 1, 5, 6]])  # all else is the same


def test_two_blends_at_once_are_every_combination() -> None:
    blend = ASKER.blend({"European": 0.5, "Indian": 0.5, "Male": 0.2})
    assert [round(share, 3) for share, _ in blend] == [0.1, 0.4, 0.1, 0.4]
    assert sum(share for share, _ in blend) == pytest.approx(1)


def test_between_two_conditions_the_ends_are_the_conditions_themselves() -> None:
    first, second = ASKER.blend("European"), ASKER.blend({"Indian": 1, "Male": 1})
    assert between(first, second, 0.0) == first
    assert between(first, second, 1.0) == second
    assert between(first, first, 0.3) == [(pytest.approx(1.0), {"European": 1.0})]


def test_what_is_left_open_can_be_filled_like_another_condition_so_that_a_pair_differs_in_what_is_asked() -> None:
    off, on = ASKER.blend({"Male": 0}), ASKER.blend({"Male": 1})
    told = ASKER.told([off, on], [5, 5], mixed=True, like=[on, on])
    difference = told.conditions[1, 0] - told.conditions[0, 0]
    assert difference.tolist() == [1, 0, 0, 0, 0, 0, 0]


WRONG = [
    ("Indan", r"condition: Indan is nothing that this model was told \(did you mean 'Indian'\?\); allowed: Male, .*, none"),
    (
        {"Indian": 0.5, "European": 0.4},
        r"the weights of one face's race must add up to 1; got 0.9; the classes are European, Indian, Oriental",
    ),
    ({"Indian": 0}, r"must add up to 1; got 0"),
    ({"Male": 2}, r"condition: Male must be a number from 0 to 1; got 2; type 'condition=\{Male:1\}'"),
    ({"Male": "yes"}, r"Male must be a number from 0 to 1; got yes"),
    ("European:0.5", r"'condition=\{European:0.5,...\}'"),
    (
        {"European": 0.4, "Indian": 0.3, "Oriental": 0.3, "20-29": 0.5, "7": 0.5, "Male": 0.5, "Smiling": 0.5},
        r"blends 24 conditions; at most 16",
    ),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=[str(value) for value, _ in WRONG])
def test_a_mistake_is_one_line_that_lists_what_exists(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ASKER.blend(value)
    assert len(caught.value.lines) == 1


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        ASKER.blend({"Nobody": 1, "Male": 3, "Indian": 0.5})
    assert len(caught.value.lines) == 3


def test_nothing_cannot_be_mixed_with_something() -> None:
    blend = between(ASKER.blend("none"), ASKER.blend("Indian"), 0.5)
    with pytest.raises(UserError, match="blend=prediction"):
        ASKER.told([blend], [0], mixed=True)
    assert ASKER.told([blend], [0], mixed=False).conditions.isnan().any(dim=2).tolist() == [[True, False]]
