"""Who is drawn: the parameters of cartoon faces, the only truth that pictures and labels are made from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from facegen.ages import OLDEST
from facegen.errors import UserError

BLACK, BROWN, BLOND, RED = range(4)
SHORT, QUIFF, PUFF, BOB, LONG, BUN, PIGTAILS = range(7)
NO_BEARD, STUBBLE, MUSTACHE, GOATEE, FULL_BEARD = range(5)

BALDING_YEARS = 14
"""From a receding hairline to a bald head."""

NEVER = 1000
"""The age of what does not happen."""


@dataclass(frozen=True)
class Parameters:
    """B people, one array of shape (B,) per field.

    What a person is: `male`, `group` (0..2), `shade` (0..1, where in the group's palette), `skin` (0..5, 0 is pale),
    `hair_colour`, `hair_style` and `beard` (the constants above), `eye_colour` (0..3), `wavy`, `bangs`, the ages at which hair
    turns grey, at which it recedes (bald `BALDING_YEARS` later) and at which bags appear under the eyes (or `NEVER`), flags of
    features, and proportions in -1..1. What may change from picture to picture: `age` in whole years (0..120), the expression,
    the gaze (-1..1), what is worn, and the pose: `dx` and `dy` in half picture widths, `scale`, and `roll`, the sine of an angle.

    A trait may wait for its age: a beard shows from 18, make-up and lipstick from 15, hair is a tuft before 3. The properties say
    what shows at `age`; painting and labels both ask them, so labels cannot disagree with pictures.
    """

    male: np.ndarray
    group: np.ndarray
    shade: np.ndarray
    skin: np.ndarray
    hair_colour: np.ndarray
    hair_style: np.ndarray
    wavy: np.ndarray
    bangs: np.ndarray
    parting: np.ndarray
    greying_age: np.ndarray
    balding_age: np.ndarray
    bags_age: np.ndarray
    eye_colour: np.ndarray
    arched_brows: np.ndarray
    bushy_brows: np.ndarray
    big_nose: np.ndarray
    chubby: np.ndarray
    rosy: np.ndarray
    beard: np.ndarray
    sideburns: np.ndarray
    lipstick: np.ndarray
    makeup: np.ndarray
    face_length: np.ndarray
    eye_distance: np.ndarray
    mouth_width: np.ndarray
    age: np.ndarray
    smiling: np.ndarray
    mouth_open: np.ndarray
    gaze_x: np.ndarray
    gaze_y: np.ndarray
    glasses: np.ndarray
    hat: np.ndarray
    earrings: np.ndarray
    necklace: np.ndarray
    necktie: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    scale: np.ndarray
    roll: np.ndarray

    def __len__(self) -> int:
        return len(self.age)

    def select(self, rows: np.ndarray | slice) -> Parameters:
        """The people of these rows."""
        return Parameters(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def tuft(self) -> np.ndarray:
        """A baby's tuft of hair, whatever the style will be."""
        return self.age < 3

    @property
    def bald(self) -> np.ndarray:
        return self.age >= self.balding_age + BALDING_YEARS

    @property
    def receding(self) -> np.ndarray:
        """A receding hairline, unless a hat hides it."""
        return (self.age >= self.balding_age) & ~self.bald & ~self.tuft & ~self.hat

    @property
    def grey(self) -> np.ndarray:
        return self.age >= self.greying_age

    @property
    def has_bangs(self) -> np.ndarray:
        return self.bangs & ~self.tuft & ~self.hat & (self.age < self.balding_age)

    @property
    def cropped(self) -> np.ndarray:
        """Hair that ends above the ears."""
        return self.tuft | (self.hair_style == SHORT) | (self.hair_style == QUIFF)

    @property
    def hair_shows(self) -> np.ndarray:
        """Whether there is hair that no hat hides."""
        return ~self.bald & ~(self.hat & self.tuft)

    @property
    def texture_shows(self) -> np.ndarray:
        """Whether one sees if the hair is straight or wavy."""
        return ~self.bald & ~self.tuft & ~(self.hat & (self.cropped | (self.hair_style == BUN)))

    @property
    def facial_hair(self) -> np.ndarray:
        """The `beard` that shows."""
        return np.where(self.age >= 18, self.beard, NO_BEARD)

    @property
    def has_sideburns(self) -> np.ndarray:
        """Sideburns, unless long hair hangs over them."""
        return (self.age >= 18) & (self.sideburns | (self.beard == FULL_BEARD)) & (self.cropped | self.bald)

    @property
    def has_bags(self) -> np.ndarray:
        return self.age >= self.bags_age

    @property
    def has_lipstick(self) -> np.ndarray:
        return self.lipstick & (self.age >= 15)

    @property
    def has_makeup(self) -> np.ndarray:
        return self.makeup & (self.age >= 15)


def with_age(people: Parameters, age: int | np.ndarray) -> Parameters:
    """The same people, dressed and posed the same, at another `age` in whole years (0..120; one for all, or (B,)).

    Raises `UserError` for other ages.
    """
    ages = np.asarray(age)
    if not np.issubdtype(ages.dtype, np.integer) or np.any((ages < 0) | (ages > OLDEST)):
        raise UserError(f"age: whole years from 0 to {OLDEST} are allowed, not {age}; try with_age(people, 70)")
    return replace(people, age=np.broadcast_to(ages, people.age.shape).astype(people.age.dtype))
