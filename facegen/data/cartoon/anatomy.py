"""From parameters to measures and colours: how a head of a certain age, gender and build is proportioned."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from facegen.data.cartoon import palette
from facegen.data.cartoon.parameters import FULL_BEARD, PUFF, Parameters


@dataclass(frozen=True)
class Face:
    """Measures (B,) and colours (3, B) of B heads.

    Lengths are in face units: the origin lies between the temples, y points down, and the picture of a grown-up spans about
    -0.9..0.9. `childish` falls from 1 at birth to 0 at 28, `aged` rises from 0 at 24 to 1 at 84.
    """

    people: Parameters
    childish: np.ndarray
    aged: np.ndarray
    width: np.ndarray
    crown: np.ndarray
    chin: np.ndarray
    jaw: np.ndarray
    eye_x: np.ndarray
    eye_y: np.ndarray
    eye_width: np.ndarray
    eye_height: np.ndarray
    brow_y: np.ndarray
    nose_y: np.ndarray
    mouth_y: np.ndarray
    mouth_width: np.ndarray
    hairline: np.ndarray
    volume: np.ndarray
    shoulders: np.ndarray
    skin: np.ndarray
    shade: np.ndarray
    hair: np.ndarray
    beard: np.ndarray
    hair_dark: np.ndarray
    hair_light: np.ndarray
    brow: np.ndarray
    eye: np.ndarray
    lips: np.ndarray
    backdrop: np.ndarray
    backdrop_low: np.ndarray
    halo: np.ndarray
    clothes: np.ndarray
    accent: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    scale: np.ndarray
    sin: np.ndarray
    cos: np.ndarray

    def select(self, rows: np.ndarray) -> Face:
        """The heads of these rows."""
        columns = {f.name: getattr(self, f.name)[..., rows] for f in fields(self) if f.name != "people"}
        return Face(people=self.people.select(rows), **columns)


def pick(condition: np.ndarray, yes: np.ndarray | float, no: np.ndarray | float) -> np.ndarray:
    """`np.where` in float32."""
    return np.where(condition, np.float32(yes), np.float32(no))


def mix(a: np.ndarray, b: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """`amount` of the way from `a` to `b`."""
    return a + (b - a) * amount


def face_of(people: Parameters) -> Face:
    """The measures and colours `people` are drawn with."""
    childish = np.interp(people.age, (0, 10, 20, 28), (1, 0.5, 0.1, 0)).astype(np.float32)
    aged = np.interp(people.age, (24, 84), (0, 1)).astype(np.float32)
    return Face(
        people=people,
        childish=childish,
        aged=aged,
        **_head(people, childish, aged),
        **_features(people, childish, aged),
        **_body_colours(people),
        **_group_colours(people),
        dx=people.dx,
        dy=people.dy + 0.14 * childish - 0.05,
        scale=people.scale * (1.12 - 0.14 * childish),
        sin=people.roll,
        cos=np.sqrt(1 - people.roll * people.roll),
    )


def _head(people: Parameters, childish: np.ndarray, aged: np.ndarray) -> dict[str, np.ndarray]:
    male = people.male * (1 - childish)
    chubby = people.chubby.astype(np.float32)
    fringe = pick(people.has_bangs, 0.14, 0.0) - pick(people.receding, 0.05, 0.0)
    volume = 0.03 + pick(people.hair_style == PUFF, 0.2, 0.09) * ~people.hat
    return {
        "width": 0.46 + 0.03 * childish + 0.05 * chubby + 0.01 * male,
        "crown": 0.5 + 0.02 * childish,
        "chin": 0.53 - 0.1 * childish + 0.02 * male + 0.03 * aged + 0.02 * people.face_length * (1 - childish),
        "jaw": 0.12 + 0.38 * male + 0.3 * chubby * (1 - 0.5 * male) + 0.1 * aged,
        "hairline": -0.3 + fringe - 0.03 * childish,
        "volume": pick(people.tuft, 0.03, volume),
        "shoulders": 0.68 - 0.2 * childish + 0.1 * male,
    }


def _features(people: Parameters, childish: np.ndarray, aged: np.ndarray) -> dict[str, np.ndarray]:
    eye = 1 + 0.32 * childish - 0.16 * aged
    eye_y = 0.04 + 0.08 * childish
    mouth_width = pick(people.smiling, 0.21, pick(people.mouth_open, 0.12, 0.16)) + 0.015 * people.mouth_width
    return {
        "eye_x": 0.205 + 0.008 * people.eye_distance,
        "eye_y": eye_y,
        "eye_width": 0.118 * eye,
        "eye_height": 0.105 * eye * pick(people.smiling, 0.94, 1.0),
        "brow_y": eye_y - 0.165 - 0.03 * childish + 0.015 * aged,
        "nose_y": 0.185 + 0.015 * childish + 0.01 * aged,
        "mouth_y": 0.325 - 0.025 * childish + 0.02 * aged,
        "mouth_width": mouth_width * (1 - 0.25 * childish),
    }


def _body_colours(people: Parameters) -> dict[str, np.ndarray]:
    skin = palette.SKIN[people.skin].T
    shade = skin * np.array([[0.84], [0.74], [0.7]], np.float32)
    years_grey = np.clip((people.age - people.greying_age).astype(np.float32) / 30, 0, 1)
    silver = mix(palette.GRAY_HAIR[0][:, None], palette.GRAY_HAIR[1][:, None], years_grey)
    hair = np.where(people.grey, silver, palette.HAIR[people.hair_colour].T)
    dark = hair * np.where(people.grey, np.float32(0.72), np.array([[0.76], [0.66], [0.6]], np.float32))
    redness = pick(people.facial_hair == FULL_BEARD, 0.7, pick(people.male, 0.25, 0.55))
    return {
        "skin": skin,
        "shade": shade,
        "hair": hair,
        "beard": np.where(people.grey, hair, mix(hair, dark, 0.75)),
        "hair_dark": dark,
        "hair_light": mix(hair, palette.WHITE, 0.28),
        "brow": mix(dark, palette.INK, 0.15),
        "eye": palette.EYES[people.eye_colour].T,
        "lips": np.where(people.has_lipstick, palette.LIPSTICK, mix(shade, palette.ROSE, redness)),
    }


def _group_colours(people: Parameters) -> dict[str, np.ndarray]:
    def of(ends: np.ndarray) -> np.ndarray:
        first, second = ends[people.group].transpose(1, 2, 0)
        return mix(first, second, people.shade)

    return {
        "backdrop": of(palette.BACKDROP_TOP),
        "backdrop_low": of(palette.BACKDROP_LOW),
        "halo": of(palette.HALO),
        "clothes": of(palette.CLOTHES),
        "accent": of(palette.ACCENT),
    }
