"""Labels read off the parameters a face was drawn from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from facegen.ages import AGE_GROUPS, FIRST_AGES
from facegen.data.cartoon.parameters import (
    BLACK,
    BLOND,
    BROWN,
    FULL_BEARD,
    GOATEE,
    MUSTACHE,
    NO_BEARD,
    STUBBLE,
    Parameters,
)

GROUPS = ("Amber", "Teal", "Violet")
"""Abstract groups: each has its own colours of backdrop, clothes, hat and necktie, and nothing else."""


def _hair(colour: int) -> Callable[[Parameters], np.ndarray]:
    return lambda people: people.hair_shows & ~people.grey & (people.hair_colour == colour)


_RULES: dict[str, Callable[[Parameters], np.ndarray]] = {
    "5_o_Clock_Shadow": lambda people: people.facial_hair == STUBBLE,
    "Arched_Eyebrows": lambda people: people.arched_brows,
    "Bags_Under_Eyes": lambda people: people.has_bags,
    "Bald": lambda people: people.bald,
    "Bangs": lambda people: people.has_bangs,
    "Big_Nose": lambda people: people.big_nose,
    "Black_Hair": _hair(BLACK),
    "Blond_Hair": _hair(BLOND),
    "Brown_Hair": _hair(BROWN),
    "Bushy_Eyebrows": lambda people: people.bushy_brows,
    "Chubby": lambda people: people.chubby,
    "Eyeglasses": lambda people: people.glasses,
    "Goatee": lambda people: people.facial_hair == GOATEE,
    "Gray_Hair": lambda people: people.hair_shows & people.grey,
    "Heavy_Makeup": lambda people: people.has_makeup,
    "Male": lambda people: people.male,
    "Mouth_Slightly_Open": lambda people: people.mouth_open,
    "Mustache": lambda people: np.isin(people.facial_hair, (MUSTACHE, FULL_BEARD)),
    "No_Beard": lambda people: people.facial_hair == NO_BEARD,
    "Pale_Skin": lambda people: people.skin == 0,
    "Receding_Hairline": lambda people: people.receding,
    "Rosy_Cheeks": lambda people: people.rosy,
    "Sideburns": lambda people: people.has_sideburns,
    "Smiling": lambda people: people.smiling,
    "Straight_Hair": lambda people: people.texture_shows & ~people.wavy,
    "Wavy_Hair": lambda people: people.texture_shows & people.wavy,
    "Wearing_Earrings": lambda people: people.earrings,
    "Wearing_Hat": lambda people: people.hat,
    "Wearing_Lipstick": lambda people: people.has_lipstick,
    "Wearing_Necklace": lambda people: people.necklace,
    "Wearing_Necktie": lambda people: people.necktie,
    "Young": lambda people: people.age < 40,
}

ATTRIBUTES: tuple[str, ...] = tuple(_RULES)
"""CelebA's names for what is drawn, in CelebA's order."""

CONDITION_NAMES: tuple[str, ...] = (*ATTRIBUTES, *AGE_GROUPS, *GROUPS)
"""What the columns of `conditions` stand for."""


def attributes(people: Parameters) -> np.ndarray:
    """The `ATTRIBUTES` of each person, (B, K) uint8 of 0 and 1."""
    return np.stack([rule(people) for rule in _RULES.values()], axis=1).astype(np.uint8)


def age_groups(people: Parameters) -> np.ndarray:
    """The number in `AGE_GROUPS` of each person's age, (B,) int64."""
    return np.searchsorted(FIRST_AGES, people.age, side="right") - 1


def groups(people: Parameters) -> np.ndarray:
    """The number in `GROUPS` of each person, (B,) int64."""
    return people.group


def conditions(people: Parameters) -> np.ndarray:
    """Attributes as 0/1, then age groups and groups one-hot: (B, K) float32 with the columns `CONDITION_NAMES`."""
    age = np.eye(len(AGE_GROUPS))[age_groups(people)]
    group = np.eye(len(GROUPS))[groups(people)]
    return np.concatenate([attributes(people), age, group], axis=1).astype(np.float32)
