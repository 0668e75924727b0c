"""What an edit is asked for in words: the prompts of report 1, and what other words for an age and a gender mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from facegen.ages import WORDS, Age, resolve
from facegen.errors import UserError, nearest

GENDERS = ("male", "female")
_MEANS = {
    "male": ("male", "man", "boy", "guy", "gentleman", "he", "him", "his", "m"),
    "female": ("female", "woman", "girl", "lady", "she", "her", "f"),
}
_GENDER_OF = {word: gender for gender, words in _MEANS.items() for word in words}
_LETTERS = ("m", "f")  # of an option, not of a sentence
_NUMBER = r"\d{1,3}(?:\s*(?:-|–|to)\s*\d{1,3})?"
_OLD = re.compile(rf"({_NUMBER}|[1-9]0s)(?:\s*-?\s*(?:years?|yrs?)(?:\s*-?\s*old)?)", re.IGNORECASE)
_TENS = re.compile(r"\b([1-9]0s|(?:twen|thir|for|fif|six|seven|eigh|nine)ties)\b", re.IGNORECASE)
_BEFORE = "look|looks|looking|be|aged?|at|face|person|him|her|them|man|woman|male|female"
_LAST = re.compile(rf"(?:{_BEFORE})\s+(?:like\s+)?({_NUMBER})\s*[.!]?$", re.IGNORECASE)
_WORD = re.compile(rf"\b({'|'.join(sorted((word.replace(' ', '[ -]') for word in WORDS), key=len, reverse=True))})\b", re.IGNORECASE)
EXAMPLE = "prompt='make this male look 50-69 years old'"


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for; no `gender` where it names none."""

    gender: str | None
    age: Age

    def prompt(self) -> str:
        """The same as a model was trained with it."""
        return prompt(self.gender, self.age.group)


def prompt(gender: str | None, age_group: str) -> str:
    """The prompt of report 1; without a gender it speaks of a person."""
    return f"make this {gender or 'person'} look {age_group} years old"


def gender_of(value: object, option: str = "gender") -> str:
    """`male` or `female`, by any word for one; raises UserError for all else."""
    word = str(value).strip().lower()
    if word not in _GENDER_OF:
        raise UserError(f"{option} must be male or female; got {value}{nearest(word, _GENDER_OF)}; type {option}=female")
    return _GENDER_OF[word]


def read(text: str, option: str = "prompt") -> Wish:
    """What a prompt asks for; raises UserError where it says no age, several, or both genders."""
    rest, ages = text, []
    for pattern in (_OLD, _TENS, _LAST, _WORD):
        ages += [found[1] for found in pattern.finditer(rest)]
        rest = pattern.sub(" ", rest)
    meant = {age.group: age for age in (resolve(said, option) for said in ages)}
    if not meant:
        raise UserError(f"{option} must say an age; got '{text}'; type {EXAMPLE}")
    if len(meant) > 1:
        raise UserError(f"{option} must say one age; got {' and '.join(age.said for age in meant.values())}; type {EXAMPLE}")
    words = re.findall(r"[a-z]+", text.lower())
    genders = {_GENDER_OF[word] for word in words if word in _GENDER_OF and word not in _LETTERS}
    if len(genders) > 1:
        raise UserError(f"{option} must say one gender; got both in '{text}'; type {EXAMPLE}")
    return Wish(next(iter(genders), None), next(iter(meant.values())))
