"""What people wear: hat, glasses, earrings, necklace and necktie."""

from __future__ import annotations

import numpy as np

from facegen.data.cartoon import palette
from facegen.data.cartoon.canvas import Layer, Patch
from facegen.data.cartoon.shapes import box, ellipse, lens, squircle


def hat(patch: Patch) -> None:
    """A knitted hat with a turned-up brim and a bobble."""
    face, x, y = patch.face, patch.x, patch.y
    width = face.width + 0.07
    patch.fill(ellipse(x, y + face.crown + 0.18, 0.11, 0.11), palette.WOOL)
    patch.fill(np.maximum(ellipse(x, y + 0.25, width, face.crown - 0.08), y + 0.25), face.accent)
    patch.fill(box(x, y + 0.28 + 0.06 * x * x, width + 0.02, 0.08), palette.WOOL)


def glasses(patch: Patch) -> None:
    """Rims with a bridge, temples and a trace of glass."""
    face, side = patch.face, np.abs(patch.x)
    y = patch.y - face.eye_y - 0.01
    rim = squircle(side - face.eye_x, y, 0.165, 0.15, 0.5)
    patch.fill(rim, palette.WHITE, opacity=0.18)
    bar = np.abs(y + 0.03) - 0.02
    bridge = np.maximum(side - face.eye_x + 0.14, bar)
    temple = np.maximum(np.maximum(face.eye_x + 0.15 - side, side - face.width), bar)
    patch.fill(np.minimum(np.abs(rim) - 0.022, np.minimum(bridge, temple)), palette.FRAME)


def earrings(patch: Patch) -> None:
    """A gold ball under each ear."""
    x = np.abs(patch.x) - patch.face.width - 0.01
    patch.fill(ellipse(x, patch.y - 0.24, 0.06, 0.06), palette.GOLD)


def necklace(patch: Patch) -> None:
    """A gold string with a pendant."""
    x, y = patch.x, patch.y - patch.face.chin
    string = lens(x, y - 0.06, 0.25, 0.035, 0.17)
    patch.fill(np.minimum(string, ellipse(x, y - 0.25, 0.05, 0.055)), palette.GOLD)


def necktie(patch: Patch) -> None:
    """A tie over a white shirt."""
    face, side = patch.face, np.abs(patch.x)
    y = patch.y - face.chin - 0.11
    shirt = np.maximum(side - 0.3 + 0.5 * y, 0.05 - 0.35 * side - y)
    patch.fill(shirt, palette.WHITE)
    knot = np.maximum(side - 0.075 + 0.3 * y, np.abs(y - 0.04) - 0.05)
    blade = np.maximum(side - 0.04 - 0.16 * y, 0.07 - y)
    patch.fill(np.minimum(knot, blade), face.accent)


HAT = Layer(hat, (-0.65, 0.65, -0.9, -0.1), lambda face: face.people.hat)
GLASSES = Layer(glasses, (-0.6, 0.6, -0.2, 0.32), lambda face: face.people.glasses)
EARRINGS = Layer(earrings, (-0.7, 0.7, 0.15, 0.35), lambda face: face.people.earrings)
NECKLACE = Layer(necklace, (-0.3, 0.3, 0.4, 1.0), lambda face: face.people.necklace)
NECKTIE = Layer(necktie, (-0.4, 0.4, 0.45, 1.3), lambda face: face.people.necktie)
