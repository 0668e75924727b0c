"""Ages and prompts: every way people say them comes to one group, or is told to be none."""

from __future__ import annotations

from itertools import pairwise

import pytest

from facegen.ages import AGE_GROUPS, FIRST_AGES, OLDEST, WORDS, group_of, middle, resolve, years
from facegen.errors import UserError
from facegen.prompts import GENDERS, gender_of, prompt, read


def test_every_age_is_in_the_one_group_whose_years_hold_it() -> None:
    for age in range(OLDEST + 1):
        holding = [group for group in AGE_GROUPS if years(group)[0] <= age <= years(group)[1]]
        assert holding == [group_of(age)] == [resolve(age).group]


def test_groups_follow_each_other_without_a_gap() -> None:
    ends = [years(group) for group in AGE_GROUPS]
    assert [first for first, _ in ends] == list(FIRST_AGES)
    assert all(last + 1 == first for (_, last), (first, _) in pairwise(ends))
    assert ends[-1][1] == OLDEST
    assert middle("20-29") == 24.5


@pytest.mark.parametrize(
    ("said", "group"),
    [
        (37, "30-39"),
        ("37", "30-39"),
        (37.0, "30-39"),
        ("37 years old", "30-39"),
        ("50-69", "50-69"),
        ("52 to 57", "50-69"),
        ("30s", "30-39"),
        ("thirties", "30-39"),
        ("teens", "15-19"),
        ("Middle-Aged", "40-49"),
        ("young adult", "20-29"),
        *WORDS.items(),
        *((group, group) for group in AGE_GROUPS),
    ],
)
def test_an_age_can_be_said_in_many_ways(said: object, group: str) -> None:
    assert resolve(said).group == group


def test_exact_years_are_kept() -> None:
    assert (resolve("37 years").years, resolve("child").years) == (37, None)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (121, r"^age must be 0 to 120 years; got 121; type age=60$"),
        (-3, r"^age must be 0 to 120 years; got -3"),
        (
            "eldery",
            r"^age must be an age; got eldery \(did you mean 'elderly'\?\); allowed: 0 to 120 years, .*, elderly, .*type age=60$",
        ),
        ("", r"got nothing"),
        (True, r"got True"),
        ("25-45", r"^age=25-45 lies in several age groups, 20-29 and 40-49; type one of 0-2, 3-6"),
        ("60-50", r"must be an age"),
        ("3.5", r"must be an age"),
    ],
)
def test_what_is_no_age_is_told_with_all_that_are(said: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(said)


@pytest.mark.parametrize("gender", [*GENDERS, None])
@pytest.mark.parametrize("group", AGE_GROUPS)
def test_a_prompt_of_training_is_read_back_as_what_it_was_made_of(gender: str | None, group: str) -> None:
    wish = read(prompt(gender, group))
    assert (wish.gender, wish.age.group) == (gender, group)
    assert wish.prompt() == prompt(gender, group)


def test_the_prompt_is_that_of_the_report() -> None:
    assert prompt("male", "50-69") == "make this male look 50-69 years old"


@pytest.mark.parametrize(
    ("text", "gender", "group"),
    [
        ("make this face 60", None, "50-69"),
        ("look 37 years old", None, "30-39"),
        ("a photo of an elderly woman", "female", "70-120"),
        ("turn him into a teenager", "male", "15-19"),
        ("Make her look in her twenties.", "female", "20-29"),
        ("make this man a 5-year-old boy", "male", "3-6"),
    ],
)
def test_people_may_write_as_they_speak(text: str, gender: str | None, group: str) -> None:
    wish = read(text)
    assert (wish.gender, wish.age.group) == (gender, group)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("make him smile", r"^prompt must say an age; got 'make him smile'; type prompt='make this male look 50-69 years old'$"),
        ("an old child", r"^prompt must say one age; got .*old.* and .*child|^prompt must say one age; got .*child.* and .*old"),
        ("a man and a woman of 60 years", r"^prompt must say one gender"),
        ("make him look 200 years old", r"^prompt must be 0 to 120 years; got 200"),
    ],
)
def test_a_prompt_that_says_no_age_or_two_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(text)


def test_a_gender_has_many_words_and_a_wrong_one_is_told() -> None:
    assert (gender_of("Woman"), gender_of("m")) == ("female", "male")
    with pytest.raises(UserError, match=r"^gender must be male or female; got femal \(did you mean 'female'\?\); type gender=female$"):
        gender_of("femal")
