"""Hair of the head and of the face."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from facegen.data.cartoon import palette
from facegen.data.cartoon.anatomy import Face, pick
from facegen.data.cartoon.canvas import Layer, Patch
from facegen.data.cartoon.features import head_distance
from facegen.data.cartoon.parameters import BOB, BUN, FULL_BEARD, GOATEE, LONG, MUSTACHE, PIGTAILS, PUFF, QUIFF, SHORT, STUBBLE
from facegen.data.cartoon.shapes import box, ellipse, lens, ripple, squircle


def _waved(patch: Patch) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in which wavy hair is straight."""
    amount = pick(patch.face.people.wavy, 0.035, 0.0)
    return patch.x + amount * ripple(patch.y * 3.5), patch.y + amount * ripple(patch.x * 3.5 + 0.25)


def back(patch: Patch) -> None:
    """Hair that falls behind the neck."""
    face, style = patch.face, patch.face.people.hair_style
    x, y = _waved(patch)
    top = -face.crown - 0.5 * face.volume
    length = pick(style == LONG, 1.0, pick(style == BOB, 0.52, 0.36))
    width = face.width + pick(style == PUFF, 0.19, 0.11)
    square = pick(style == PUFF, 0.2, 0.75)
    patch.fill(squircle(x, y - (length + top) / 2, width, (length - top) / 2, square), face.hair_dark)


def bun(patch: Patch) -> None:
    """A knot on the crown."""
    face = patch.face
    x, y = _waved(patch)
    patch.fill(ellipse(x, y + face.crown + 0.16, 0.19, 0.17), face.hair_dark)
    patch.fill(ellipse(x + 0.02, y + face.crown + 0.18, 0.15, 0.12), face.hair)


def quiff(patch: Patch) -> None:
    """The rise of combed-up hair above the forehead."""
    x, y = _waved(patch)
    patch.fill(ellipse(x - 0.1, y + 0.5, 0.3, 0.17), patch.face.hair)


def pigtails(patch: Patch) -> None:
    """A tail of hair behind each ear, with its tie."""
    face = patch.face
    x, y = _waved(patch)
    x = np.abs(x) - face.width
    patch.fill(ellipse(x - 0.15, y - 0.28, 0.15, 0.27), face.hair)
    patch.fill(ellipse(x - 0.09, y - 0.03, 0.06, 0.055), face.accent)


def _window(patch: Patch, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to what the hair leaves free for the face, under a parting or a straight fringe."""
    face, people = patch.face, patch.face.people
    slant = pick(people.has_bangs, 0.04, 0.16) * people.parting
    square = pick(people.has_bangs, 0.9, 0.1)
    return squircle(x, y - 0.5 + slant * x, face.width * 0.9, 0.5 - face.hairline, square)


def _comb(patch: Patch, x: np.ndarray, y: np.ndarray, window: np.ndarray) -> None:
    """Paint the hair around `window`: the head's outline grown, down to where the style ends."""
    face, people, style = patch.face, patch.face.people, patch.face.people.hair_style
    tied = (style == BUN) | (style == PIGTAILS)
    end = pick(people.cropped, 0.02, pick(tied, 0.05, pick(style == LONG, 0.8, 0.42)))
    # Below the temples the outline of longer hair is stretched, so that it falls straight and does not follow the jaw.
    hanging = pick((y > 0) & ~people.cropped, 0.35, 1.0) * (y + 0.02)
    reach = face.width + pick(people.cropped, 0.01, 0.05) + 0.4 * face.volume
    outer = ellipse(x, hanging, reach, face.crown + face.volume)
    cap = np.maximum(np.maximum(outer, -window), y - end - 0.5 * (np.abs(x) - face.width))
    patch.fill(cap, face.hair)
    shine = lens(x + 0.05, y + face.crown - 0.06, 0.34, 0.035, -0.09)
    patch.fill(np.maximum(shine, cap), face.hair_light, opacity=0.8)
    strands = 0.03 - 0.05 * ripple((x + 0.3 * y) * 6)
    patch.fill(np.maximum(strands, cap), face.hair_dark, opacity=pick(people.wavy, 0.6, 0.0))


def front(patch: Patch) -> None:
    """Hair around the face, parted or in a fringe."""
    x, y = _waved(patch)
    _comb(patch, x, y, _window(patch, x, y))


def receding(patch: Patch) -> None:
    """Front hair that has left the temples; what stands behind the crown still shows above it."""
    x, y = _waved(patch)
    temples = ellipse(np.abs(x) - 0.21, y + 0.31, 0.2, 0.17)
    bare = np.maximum(np.minimum(_window(patch, x, y), temples), head_distance(patch, -0.02))
    _comb(patch, x, y, bare)


def tuft(patch: Patch) -> None:
    """A baby's few hairs."""
    face = patch.face
    x, y = patch.x, patch.y + face.crown
    curl = np.minimum(ellipse(x, y - 0.02, 0.2, 0.1), ellipse(x - 0.07, y + 0.05, 0.1, 0.09))
    patch.fill(curl, face.hair)


def scalp(patch: Patch) -> None:
    """The shine of a bald head."""
    patch.fill(ellipse(patch.x + 0.16, patch.y + 0.34, 0.12, 0.07), palette.WHITE, opacity=0.55, blur=0.05)


def _jaw(patch: Patch, grow: float) -> np.ndarray:
    """Distance to where a beard grows: the head below a line from the ears to above the mouth."""
    u = patch.x * (1 / patch.face.width)
    return np.maximum(head_distance(patch, grow), 0.28 - 0.14 * u * u - patch.y)


def stubble(patch: Patch) -> None:
    """The shadow of a beard."""
    patch.fill(_jaw(patch, -0.025), palette.STUBBLE, opacity=0.36, blur=0.05)


def full_beard(patch: Patch) -> None:
    """A beard over the whole jaw."""
    patch.fill(_jaw(patch, 0.05), patch.face.beard)


def goatee(patch: Patch) -> None:
    """A beard on the chin alone."""
    face = patch.face
    patch.fill(squircle(patch.x, patch.y - face.chin + 0.01, 0.14, 0.12, 0.4), face.beard)


def mustache(patch: Patch) -> None:
    """Hair on the upper lip."""
    face, side = patch.face, np.abs(patch.x)
    y = patch.y - face.mouth_y + 0.07
    patch.fill(lens(side - 0.1, y - 0.15 * side, 0.135, 0.045, -0.02), face.beard)


def sideburns(patch: Patch) -> None:
    """Hair before the ears."""
    face = patch.face
    strip = box(np.abs(patch.x) - face.width + 0.03, patch.y - 0.08, 0.05, 0.17)
    patch.fill(np.maximum(strip, head_distance(patch, 0.02)), face.beard)


def _styled(*styles: int) -> Callable[[Face], np.ndarray]:
    return lambda face: np.isin(face.people.hair_style, styles) & ~face.people.bald & ~face.people.tuft


def _bearded(*beards: int) -> Callable[[Face], np.ndarray]:
    return lambda face: np.isin(face.people.facial_hair, beards)


def _combed(*styles: int) -> Callable[[Face], np.ndarray]:
    return lambda face: _styled(*styles)(face) & ~face.people.receding


def _thinning(*styles: int) -> Callable[[Face], np.ndarray]:
    return lambda face: _styled(*styles)(face) & face.people.receding


_ENDS = {(SHORT, QUIFF): 0.2, (BUN, PIGTAILS): 0.25, (PUFF, BOB): 0.6, (LONG,): 1.0}
"""Down to where the front hair of some styles may reach, so that short hair is not looked for below the ears."""

BEHIND = (
    Layer(quiff, (-0.3, 0.5, -0.75, -0.28), lambda face: _styled(QUIFF)(face) & ~face.people.hat),
    Layer(back, (-0.8, 0.8, -0.75, 1.1), _styled(BOB, LONG, PUFF)),
    Layer(bun, (-0.3, 0.3, -0.9, -0.4), lambda face: _styled(BUN)(face) & ~face.people.hat),
    Layer(pigtails, (-0.9, 0.9, -0.1, 0.62), _styled(PIGTAILS)),
)
ON_HEAD = (
    Layer(scalp, (-0.4, 0.1, -0.5, -0.2), lambda face: face.people.bald & ~face.people.hat),
    Layer(tuft, (-0.3, 0.3, -0.7, -0.3), lambda face: face.people.tuft & ~face.people.hat),
    *(Layer(front, (-0.72, 0.72, -0.82, end), _combed(*styles)) for styles, end in _ENDS.items()),
    *(Layer(receding, (-0.72, 0.72, -0.82, end), _thinning(*styles)) for styles, end in _ENDS.items()),
)
ON_FACE = (
    Layer(stubble, (-0.6, 0.6, 0.0, 0.7), _bearded(STUBBLE)),
    Layer(sideburns, (-0.6, 0.6, -0.12, 0.3), lambda face: face.people.has_sideburns),
    Layer(full_beard, (-0.65, 0.65, 0.0, 0.75), _bearded(FULL_BEARD)),
    Layer(goatee, (-0.2, 0.2, 0.35, 0.8), _bearded(GOATEE)),
    Layer(mustache, (-0.3, 0.3, 0.1, 0.45), _bearded(MUSTACHE, FULL_BEARD)),
)
