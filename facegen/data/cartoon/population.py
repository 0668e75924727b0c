"""How often what is drawn: people drawn from (seed, index), with the correlations one would expect of people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegen.ages import FIRST_AGES
from facegen.data.cartoon.parameters import NEVER, NO_BEARD, PUFF, Parameters
from facegen.seeding import uniform

OLDEST_DRAWN = 99
_AGE_WEIGHTS = (0.06, 0.07, 0.06, 0.07, 0.09, 0.17, 0.16, 0.12, 0.12, 0.08)
_SKIN_WEIGHTS = (0.16, 0.22, 0.2, 0.16, 0.14, 0.12)
_HAIR_COLOUR_WEIGHTS = (0.32, 0.32, 0.24, 0.12)
_WOMEN_STYLE_WEIGHTS = (0.08, 0.0, 0.12, 0.25, 0.33, 0.12, 0.1)
_MEN_STYLE_WEIGHTS = (0.5, 0.26, 0.12, 0.06, 0.06, 0.0, 0.0)
_BEARD_WEIGHTS = (0.34, 0.17, 0.17, 0.15, 0.17)


@dataclass(frozen=True)
class _Dice:
    """Keyed draws for the people `indices` of `seed`: each feature has its own stream, so that none depends on another."""

    seed: int
    indices: np.ndarray

    def number(self, feature: str) -> np.ndarray:
        return uniform(self.indices, self.seed, "cartoon", feature)

    def between(self, feature: str, low: float, high: float) -> np.ndarray:
        return (low + (high - low) * self.number(feature)).astype(np.float32)

    def whole(self, feature: str, low: int | np.ndarray, high: int | np.ndarray) -> np.ndarray:
        return low + (self.number(feature) * (high - low)).astype(np.int64)

    def chance(self, feature: str, probability: np.ndarray | float) -> np.ndarray:
        return self.number(feature) < probability

    def choice(self, feature: str, weights: tuple[float, ...]) -> np.ndarray:
        return np.searchsorted(np.cumsum(weights)[:-1], self.number(feature), side="right")


def parameters(seed: int, indices: np.ndarray) -> Parameters:
    """The people `indices` (B,) of the data set `seed`; each is a function of (seed, its index) alone."""
    dice = _Dice(seed, np.asarray(indices))
    male = dice.chance("male", 0.5)
    group = dice.choice("age group", _AGE_WEIGHTS)
    age = dice.whole("age", np.array(FIRST_AGES)[group], np.append(FIRST_AGES[1:], OLDEST_DRAWN + 1)[group])
    return Parameters(male=male, age=age, **_identity(dice), **_looks(dice, male, age), **_moment(dice, male, age))


def _identity(dice: _Dice) -> dict[str, np.ndarray]:
    """What depends on neither gender nor age."""
    return {
        "group": dice.whole("group", 0, 3),
        "shade": dice.between("shade", 0, 1),
        "skin": dice.choice("skin", _SKIN_WEIGHTS),
        "hair_colour": dice.choice("hair colour", _HAIR_COLOUR_WEIGHTS),
        "parting": dice.between("parting", -1, 1),
        "greying_age": dice.whole("greying age", 38, 66),
        "bags_age": np.where(dice.chance("bags", 0.7), dice.whole("bags age", 25, 75), NEVER),
        "eye_colour": dice.whole("eye colour", 0, 4),
        "big_nose": dice.chance("big nose", 0.2),
        "chubby": dice.chance("chubby", 0.18),
        "face_length": dice.between("face length", -1, 1),
        "eye_distance": dice.between("eye distance", -1, 1),
        "mouth_width": dice.between("mouth width", -1, 1),
    }


def _looks(dice: _Dice, male: np.ndarray, age: np.ndarray) -> dict[str, np.ndarray]:
    """What is likelier for some: for men or women, of rosy cheeks for children, of waves for full hair."""
    women_style = dice.choice("hair style", _WOMEN_STYLE_WEIGHTS)
    style = np.where(male, dice.choice("hair style", _MEN_STYLE_WEIGHTS), women_style)
    return {
        "hair_style": style,
        "wavy": dice.chance("wavy", np.where(style == PUFF, 0.9, 0.35)),
        "bangs": dice.chance("bangs", np.where(male, 0.15, 0.4)),
        "balding_age": np.where(male & dice.chance("balding", 0.68), dice.whole("balding age", 24, 66), NEVER),
        "arched_brows": dice.chance("arched brows", np.where(male, 0.15, 0.45)),
        "bushy_brows": dice.chance("bushy brows", np.where(male, 0.4, 0.08)),
        "rosy": dice.chance("rosy", np.where(age < 10, 0.45, np.where(male, 0.1, 0.25))),
        "beard": np.where(male, dice.choice("beard", _BEARD_WEIGHTS), NO_BEARD),
        "sideburns": male & dice.chance("sideburns", 0.3),
        "lipstick": ~male & dice.chance("lipstick", 0.5),
        "makeup": ~male & dice.chance("makeup", 0.35),
    }


def _moment(dice: _Dice, male: np.ndarray, age: np.ndarray) -> dict[str, np.ndarray]:
    """What a person does and wears in this picture, and how the picture is framed."""
    return {
        "smiling": dice.chance("smiling", 0.55),
        "mouth_open": dice.chance("mouth open", 0.4),
        "gaze_x": dice.between("gaze x", -1, 1),
        "gaze_y": dice.between("gaze y", -1, 1),
        "glasses": dice.chance("glasses", np.where(age < 3, 0.02, np.where(age < 50, 0.16, 0.35))),
        "hat": dice.chance("hat", 0.12),
        "earrings": dice.chance("earrings", np.where(male, 0.04, np.where(age < 7, 0.1, 0.4))),
        "necklace": ~male & dice.chance("necklace", np.where(age < 7, 0.05, 0.35)),
        "necktie": male & (age >= 18) & dice.chance("necktie", 0.3),
        "dx": dice.between("dx", -0.05, 0.05),
        "dy": dice.between("dy", -0.03, 0.03),
        "scale": dice.between("scale", 0.95, 1.03),
        "roll": dice.between("roll", -0.07, 0.07),
    }
