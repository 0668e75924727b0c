"""Ages as people say them, in years, groups and words, and the ten groups of FFHQ-Aging (Or-El et al. 2020) that they fall into."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from facegen.errors import UserError, nearest

AGE_GROUPS = ("0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70-120")
FIRST_AGES = (0, 3, 7, 10, 15, 20, 30, 40, 50, 70)
OLDEST = 120
WORDS = {
    "newborn": "0-2",
    "baby": "0-2",
    "infant": "0-2",
    "toddler": "0-2",
    "preschooler": "3-6",
    "kid": "7-9",
    "child": "7-9",
    "preteen": "10-14",
    "teen": "15-19",
    "teenager": "15-19",
    "adolescent": "15-19",
    "young": "20-29",
    "young adult": "20-29",
    "adult": "30-39",
    "middle aged": "40-49",
    "mature": "50-69",
    "old": "70-120",
    "senior": "70-120",
    "elderly": "70-120",
    "grandparent": "70-120",
}
_DECADES = ("teens", "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")
_TENS = {name: 10 * (number + 1) for number, name in enumerate(_DECADES)}
_RANGE = re.compile(r"(\d{1,3})\s*(?:-|–|to)\s*(\d{1,3})")
_AFTER = re.compile(r"\s*(?:years?(?: old)?|yrs?|y/?o)\.?$")


@dataclass(frozen=True)
class Age:
    """An age that is asked for: its `group`, the exact `years` where they were said, and what was `said`."""

    group: str
    years: int | None
    said: str


def group_of(age: int) -> str:
    """The age group of a person of `age` whole years, 0 to 120; raises UserError for any other age."""
    if not 0 <= age <= OLDEST:
        raise UserError(f"age must be 0 to {OLDEST} years; got {age}; type age=60")
    return AGE_GROUPS[bisect_right(FIRST_AGES, age) - 1]


def years(group: str) -> tuple[int, int]:
    """The first and the last year of an age group."""
    first, _, last = group.partition("-")
    return int(first), int(last)


def middle(group: str) -> float:
    """The age in the middle of an age group, in years."""
    return sum(years(group)) / 2


def resolve(value: object, option: str = "age") -> Age:
    """The age that `value` means: whole years (37, "37 years old"), a group or a range within one ("50-59"), tens ("30s", "thirties"), or
    a word ("child", "middle-aged").

    Raises UserError, in a line that begins with `option`, where it means no age, or more than one group.
    """
    said = str(value).strip()
    plain = " ".join(said.lower().replace("_", " ").replace("-", " ").split())
    if isinstance(value, bool) or not said:
        raise UserError(_unknown(option, said))
    bare = _AFTER.sub("", said.lower()).strip()
    if found := _RANGE.fullmatch(bare):
        return _ranged(int(found[1]), int(found[2]), said, option)
    if re.fullmatch(r"-?\d+(\.0+)?", bare):
        return _exact(int(float(bare)), said, option)
    if re.fullmatch(r"[1-9]0s", bare) or bare in _TENS:
        first = _TENS.get(bare) or int(bare[:2])
        return _ranged(first, first + 9, said, option)
    if plain in WORDS:
        return Age(WORDS[plain], None, said)
    raise UserError(_unknown(option, said))


def _exact(age: int, said: str, option: str) -> Age:
    if not 0 <= age <= OLDEST:
        raise UserError(f"{option} must be 0 to {OLDEST} years; got {said}; type {option}=60")
    return Age(group_of(age), age, str(age))


def _ranged(first: int, last: int, said: str, option: str) -> Age:
    """The group that holds a range; `teens` are those of 15-19, as people use the word."""
    if (first, last) == (10, 19):
        return Age("15-19", None, said)
    if first > last or last > OLDEST:
        raise UserError(_unknown(option, said))
    if group_of(first) != group_of(last):
        both = f"{group_of(first)} and {group_of(last)}"
        raise UserError(f"{option}={said} lies in several age groups, {both}; type one of {', '.join(AGE_GROUPS)}")
    return Age(group_of(first), None, said)


def _unknown(option: str, said: str) -> str:
    choices = (*AGE_GROUPS, *WORDS)
    allowed = f"0 to {OLDEST} years, {', '.join(AGE_GROUPS)}, {', '.join(WORDS)}"
    return f"{option} must be an age; got {said or 'nothing'}{nearest(said, choices)}; allowed: {allowed}; type {option}=60"
