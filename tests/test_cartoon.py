"""The cartoon faces: repeatable, the same at every size, and labelled by what is in the picture."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from facegen.data import cartoon
from facegen.data.cartoon import Parameters
from facegen.data.cartoon.parameters import BLACK, BLOND, BROWN, FULL_BEARD, GOATEE, LONG, MUSTACHE, NEVER, NO_BEARD, RED, SHORT, STUBBLE
from facegen.errors import UserError

CELEBA = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair
Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache
Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair
Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
"""


@pytest.fixture(scope="module")
def crowd() -> Parameters:
    return cartoon.parameters(0, np.arange(20_000))


@pytest.fixture(scope="module")
def people() -> Parameters:
    return cartoon.parameters(1, np.arange(150))


def having(people: Parameters, **values: float) -> Parameters:
    """The same people with these parameters the same for all."""
    return replace(people, **{name: np.full(len(people), value) for name, value in values.items()})


def label(people: Parameters, name: str) -> np.ndarray:
    return cartoon.attributes(people)[:, cartoon.ATTRIBUTES.index(name)]


def largest_change(before: Parameters, after: Parameters) -> np.ndarray:
    """Per person, the largest change of a colour channel of a pixel at 32 pixels."""
    return np.abs(cartoon.render(before, 32).astype(int) - cartoon.render(after, 32)).max(axis=(1, 2, 3))


FLAGS = """
Arched_Eyebrows=arched_brows Bangs=bangs Big_Nose=big_nose Bushy_Eyebrows=bushy_brows Chubby=chubby Eyeglasses=glasses
Heavy_Makeup=makeup Male=male Mouth_Slightly_Open=mouth_open Rosy_Cheeks=rosy Smiling=smiling Wavy_Hair=wavy
Wearing_Earrings=earrings Wearing_Hat=hat Wearing_Lipstick=lipstick Wearing_Necklace=necklace Wearing_Necktie=necktie
"""
# For each attribute: parameters that turn it off, and what alone turns it on.
SWITCHES: dict[str, tuple[dict, dict]] = {
    **{name: ({flag: False}, {flag: True}) for name, flag in (pair.split("=") for pair in FLAGS.split())},
    "5_o_Clock_Shadow": ({"beard": NO_BEARD}, {"beard": STUBBLE}),
    "Bags_Under_Eyes": ({"bags_age": NEVER}, {"bags_age": 25}),
    "Bald": ({"balding_age": NEVER}, {"balding_age": 0}),
    "Black_Hair": ({"hair_colour": RED}, {"hair_colour": BLACK}),
    "Blond_Hair": ({"hair_colour": RED}, {"hair_colour": BLOND}),
    "Brown_Hair": ({"hair_colour": RED}, {"hair_colour": BROWN}),
    "Goatee": ({"beard": NO_BEARD}, {"beard": GOATEE}),
    "Gray_Hair": ({"greying_age": NEVER}, {"greying_age": 20}),
    "Mustache": ({"beard": NO_BEARD}, {"beard": MUSTACHE}),
    "No_Beard": ({"beard": FULL_BEARD}, {"beard": NO_BEARD}),
    "Pale_Skin": ({"skin": 1}, {"skin": 0}),
    "Receding_Hairline": ({"balding_age": NEVER}, {"balding_age": 28}),
    "Sideburns": ({"sideburns": False, "hair_style": SHORT, "beard": MUSTACHE}, {"sideburns": True}),
    "Straight_Hair": ({"wavy": True}, {"wavy": False}),
    "Young": ({"age": 60}, {"age": 30}),
}


def test_a_face_depends_on_seed_and_index_alone() -> None:
    indices = np.array([7, 100_000, 3, 2**40])
    together, reversed_order = cartoon.draw(4, indices, 32), cartoon.draw(4, indices[::-1], 32)
    assert np.array_equal(together, reversed_order[::-1])
    assert not np.array_equal(together, cartoon.draw(5, indices, 32))
    assert len({picture.tobytes() for picture in together}) == len(indices)


@pytest.mark.parametrize("resolution", [24, 32])
def test_a_picture_does_not_depend_on_the_batch_it_was_painted_in(resolution: int) -> None:
    indices = np.arange(300)
    alone = np.concatenate([cartoon.draw(2, indices[i : i + 1], resolution) for i in indices])
    assert np.array_equal(cartoon.draw(2, indices, resolution), alone)


@pytest.mark.parametrize("resolution", [1, 17, 32, 33, 64, 100])
def test_pictures_are_uint8_of_the_size_asked_for(resolution: int) -> None:
    pictures = cartoon.draw(0, np.arange(9), resolution)
    assert pictures.shape == (9, 3, resolution, resolution)
    assert pictures.dtype == np.uint8
    assert cartoon.draw(0, np.arange(0), resolution).shape == (0, 3, resolution, resolution)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_face_is_the_same_at_two_resolutions(people: Parameters, factor: int) -> None:
    small = cartoon.render(people, 32).astype(float)
    large = cartoon.render(people, 32 * factor).astype(float)
    shrunk = large.reshape(len(people), 3, 32, factor, 32, factor).mean(axis=(3, 5))
    itself = np.abs(small - shrunk).mean(axis=(1, 2, 3))
    another = np.abs(small - np.roll(shrunk, 1, axis=0)).mean(axis=(1, 2, 3))
    assert itself.mean() < 2.5
    assert np.all(itself * 3 < another)


def test_colours_do_not_wrap_around(people: Parameters) -> None:
    pictures = cartoon.render(having(people, hat=True, dx=0.0, dy=0.0, roll=0.0, scale=1.0, age=30), 64)
    assert pictures.min() < 45
    assert pictures.max() == 255
    assert pictures[:, :, 19:21, 32].min() > 230, "the brim of a hat is white"


def test_attributes_carry_celebas_names_in_celebas_order() -> None:
    assert list(cartoon.ATTRIBUTES) == [name for name in CELEBA.split() if name in cartoon.ATTRIBUTES]
    assert set(SWITCHES) == set(cartoon.ATTRIBUTES)


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_every_attribute_is_switched_by_its_parameter_and_seen_at_32_pixels(people: Parameters, name: str) -> None:
    off, on = SWITCHES[name]
    bare = {"age": 30, "hat": False, "balding_age": NEVER, "greying_age": NEVER}
    without = having(people, **(bare | off))
    with_it = having(without, **on)
    assert not label(without, name).any()
    assert label(with_it, name).all()
    change = largest_change(without, with_it)
    assert change.min() >= 5, f"invisible on person {change.argmin()}"
    assert np.median(change) >= 30


@pytest.mark.parametrize("name", [field.name for field in fields(Parameters)])
def test_no_parameter_changes_a_label_without_changing_the_picture(people: Parameters, name: str) -> None:
    values = getattr(people, name)
    changed = replace(people, **{name: ~values if values.dtype == bool else np.roll(values, 1)})
    relabelled = (cartoon.conditions(people) != cartoon.conditions(changed)).any(axis=1)
    assert np.all(largest_change(people, changed)[relabelled] > 0)


HIDDEN: dict[str, tuple[dict, dict]] = {
    "a beard, lipstick and make-up on a child": (
        {"age": 12, "beard": NO_BEARD, "sideburns": False, "lipstick": False, "makeup": False},
        {"beard": FULL_BEARD, "sideburns": True, "lipstick": True, "makeup": True},
    ),
    "the future hair of a baby": (
        {"age": 1, "hair_style": SHORT, "wavy": False, "bangs": False},
        {"hair_style": LONG, "wavy": True, "bangs": True},
    ),
    "a fringe under a hat": ({"hat": True, "bangs": False}, {"bangs": True}),
    "the style of a bald head": ({"age": 60, "balding_age": 30, "hair_style": LONG}, {"hair_style": SHORT}),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_what_does_not_show_is_not_labelled(people: Parameters, case: str) -> None:
    without, hidden = HIDDEN[case]
    before = having(people, **without)
    after = having(before, **hidden)
    assert np.array_equal(cartoon.attributes(before), cartoon.attributes(after))
    assert np.array_equal(cartoon.render(before, 32), cartoon.render(after, 32))


def test_conditions_are_attributes_and_two_one_hot_codes(crowd: Parameters) -> None:
    conditions = cartoon.conditions(crowd)
    assert conditions.dtype == np.float32
    assert conditions.shape == (len(crowd), len(cartoon.CONDITION_NAMES))
    assert len(set(cartoon.CONDITION_NAMES)) == len(cartoon.CONDITION_NAMES)
    attributes, ages, groups = np.split(conditions, [len(cartoon.ATTRIBUTES), -len(cartoon.GROUPS)], axis=1)
    assert set(np.unique(conditions)) == {0, 1}
    assert np.array_equal(attributes, cartoon.attributes(crowd))
    for one_hot, numbers in ((ages, cartoon.age_groups(crowd)), (groups, cartoon.groups(crowd))):
        assert np.array_equal(one_hot.argmax(axis=1), numbers)
        assert np.all(one_hot.sum(axis=1) == 1)


def test_an_age_lies_in_its_age_group() -> None:
    ages = np.arange(121)
    people = cartoon.with_age(cartoon.parameters(0, ages), ages)
    for age, group in zip(ages, cartoon.age_groups(people), strict=True):
        first, last = map(int, cartoon.AGE_GROUPS[group].split("-"))
        assert first <= age <= last


def test_every_label_is_frequent_enough_to_be_learned(crowd: Parameters) -> None:
    frequency = cartoon.conditions(crowd).mean(axis=0)
    assert {n: f for n, f in zip(cartoon.CONDITION_NAMES, frequency, strict=True) if not 0.03 <= f <= 0.97} == {}


def test_labels_that_exclude_each_other_do_not_meet(crowd: Parameters) -> None:
    hair = sum(label(crowd, f"{colour}_Hair") for colour in ("Black", "Blond", "Brown", "Gray"))
    assert np.all(hair + label(crowd, "Bald") <= 1)
    assert np.all(label(crowd, "Straight_Hair") + label(crowd, "Wavy_Hair") + label(crowd, "Bald") <= 1)
    assert np.all(label(crowd, "Bald") + label(crowd, "Receding_Hairline") + label(crowd, "Bangs") <= 1)
    bearded = sum(label(crowd, name) for name in ("5_o_Clock_Shadow", "Mustache", "Goatee"))
    assert np.array_equal(bearded, 1 - label(crowd, "No_Beard"))


def test_age_and_gender_are_plausible(crowd: Parameters) -> None:
    child, woman = crowd.age < 15, ~crowd.male
    for name in ("Gray_Hair", "Bald", "Receding_Hairline", "Heavy_Makeup", "Wearing_Lipstick", "Wearing_Necktie"):
        assert not label(crowd, name)[child].any()
    assert label(crowd, "No_Beard")[child | woman].all()


def test_parameters_are_independent_of_each_other(crowd: Parameters) -> None:
    numbers = [getattr(crowd, field.name) for field in fields(Parameters)]
    correlation = np.corrcoef([values for values in numbers if values.dtype == np.float32])
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.04


def test_another_age_keeps_the_person(people: Parameters) -> None:
    older = cartoon.with_age(people, 80)
    assert np.all(older.age == 80)
    assert [f.name for f in fields(people) if not np.array_equal(getattr(people, f.name), getattr(older, f.name))] == ["age"]
    assert np.array_equal(cartoon.render(cartoon.with_age(people, people.age), 32), cartoon.render(people, 32))
    for name in ("Male", "Pale_Skin", "Chubby", "Big_Nose", "Smiling", "Wearing_Hat"):
        assert np.array_equal(label(people, name), label(older, name))


def test_neighbouring_age_groups_look_different(people: Parameters) -> None:
    middles = [1, 5, 8, 12, 17, 25, 35, 45, 60, 85]
    for younger, older in itertools.pairwise(middles):
        assert largest_change(cartoon.with_age(people, younger), cartoon.with_age(people, older)).min() >= 5


@pytest.mark.parametrize("age", [-1, 121, 30.5, np.array([20, 500])])
def test_an_impossible_age_is_refused(age: int) -> None:
    with pytest.raises(UserError, match="0 to 120"):
        cartoon.with_age(cartoon.parameters(0, np.arange(2)), age)


def test_a_group_is_colour_of_backdrop_and_clothes_and_nothing_of_the_person(people: Parameters) -> None:
    bare = having(people, hat=False, necktie=False, hair_style=SHORT)
    pictures = [cartoon.render(having(bare, group=group), 32).astype(float) for group in range(3)]
    corners = [picture[:, :, 0, 0].mean(axis=0) for picture in pictures]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.array_equal(pictures[one][:, :, 12:20, 12:20], pictures[other][:, :, 12:20, 12:20])
        assert np.abs(corners[one] - corners[other]).max() > 60


def test_the_cartoon_needs_no_torch() -> None:
    script = "import sys, facegen.data.cartoon; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
