"""The bust, the head and what is in the face, from back to front."""

from __future__ import annotations

import numpy as np

from facegen.data.cartoon import palette
from facegen.data.cartoon.anatomy import mix, pick
from facegen.data.cartoon.canvas import Layer, Patch
from facegen.data.cartoon.shapes import box, ellipse, lens, squircle


def head_distance(patch: Patch, grow: float = 0.0) -> np.ndarray:
    """Distance to the outline of the head, `grow` units outside it."""
    face = patch.face
    below = patch.y > 0
    height = np.where(below, face.chin + grow, face.crown + grow)
    return squircle(patch.x, patch.y, face.width + grow, height, face.jaw * below)


def halo(patch: Patch) -> None:
    """A disc of the group's colour behind the head, up to the frame."""
    radius = 0.88 / patch.face.scale
    patch.fill(ellipse(patch.x, patch.y, radius, radius), patch.face.halo)


def body(patch: Patch) -> None:
    """Shoulders, collar and neck, with the shade of the chin."""
    face, x = patch.face, patch.x
    y = patch.y - face.chin
    neck = pick(face.people.male, 0.19, 0.15) - pick(face.people.male, 0.07, 0.03) * face.childish
    patch.fill(squircle(x, y - 0.57, face.shoulders, 0.48, 0.6), face.clothes)
    patch.fill(ellipse(x, y - 0.12, neck + 0.13, 0.165), face.accent)
    patch.fill(ellipse(x, y - 0.12, neck + 0.09, 0.12), face.skin)
    patch.fill(box(x, y, neck, 0.14), face.skin)
    patch.fill(box(x, y, neck, 0.08), face.shade, blur=0.06)


def ears(patch: Patch) -> None:
    """Ears at the height of the eyes."""
    face, x = patch.face, np.abs(patch.x) - patch.face.width
    patch.fill(ellipse(x, patch.y - 0.08, 0.085, 0.12), face.skin)
    patch.fill(ellipse(x - 0.01, patch.y - 0.08, 0.04, 0.07), face.shade)


def head(patch: Patch) -> None:
    """A head in the shade, and the light that falls on all but its rim."""
    face = patch.face
    outline = head_distance(patch)
    patch.fill(outline, face.shade)
    lit = squircle(patch.x + 0.015, patch.y + 0.02, face.width - 0.01, face.chin, 0.5 * face.jaw)
    patch.fill(np.maximum(lit, outline), face.skin, blur=0.08)


def cheeks(patch: Patch) -> None:
    """The blush of rosy cheeks."""
    blush = ellipse(np.abs(patch.x) - 0.28, patch.y - 0.215, 0.11, 0.085)
    patch.fill(blush, palette.ROSE, opacity=0.72, blur=0.07)


def wrinkles(patch: Patch) -> None:
    """Lines on the forehead, from nose to mouth and beside the eyes, deeper with every year."""
    face, side, y = patch.face, np.abs(patch.x), patch.y
    strength = np.minimum(face.aged * 1.3, 1)
    patch.fill(lens(side, y + 0.2, 0.2, 0.012, -0.03), face.shade, opacity=strength)
    patch.fill(lens(side, y + 0.27, 0.15, 0.012, -0.03), face.shade, opacity=strength)
    fold = lens(y - 0.29, side - 0.2 - 0.6 * (y - 0.29), 0.11, 0.018, 0.025)
    patch.fill(fold, face.shade, opacity=strength)
    patch.fill(lens(side - 0.385, y - face.eye_y - 0.03, 0.06, 0.035), face.shade, opacity=0.8 * strength)


def bags(patch: Patch) -> None:
    """Dark folds below the eyes."""
    face = patch.face
    below = patch.y - face.eye_y - face.eye_height - 0.02
    patch.fill(lens(np.abs(patch.x) - face.eye_x, below, 0.9 * face.eye_width, 0.026, 0.05), face.shade * 0.72, opacity=0.9)


def eyeshadow(patch: Patch) -> None:
    """Colour above the eyes."""
    face = patch.face
    x, y = np.abs(patch.x) - face.eye_x - 0.01, patch.y - face.eye_y + 0.05
    patch.fill(ellipse(x, y, face.eye_width + 0.035, face.eye_height), palette.EYESHADOW, opacity=0.85)


def eyes(patch: Patch) -> None:
    """Whites, iris and pupil with its light, looking where the person does, under the upper lid."""
    face, people = patch.face, patch.face.people
    y = patch.y - face.eye_y
    side = pick(patch.x < 0, -1.0, 1.0)
    mirrored = patch.x * side - face.eye_x
    inside = ellipse(mirrored, y, face.eye_width, face.eye_height)
    patch.fill(inside, palette.WHITE)
    x, gazed = mirrored * side - 0.03 * people.gaze_x, y - 0.015 * people.gaze_y
    radius = 0.74 * face.eye_height
    iris = ellipse(x, gazed, radius, radius)
    patch.fill(np.maximum(iris, inside), face.eye)
    patch.fill(np.maximum(iris + 0.42 * radius, inside), palette.INK)
    patch.fill(ellipse(x + 0.32 * radius, gazed + 0.36 * radius, 0.26 * radius, 0.26 * radius), palette.WHITE)
    lid = lens(mirrored, y, face.eye_width + 0.02, pick(people.male, 0.016, 0.024), -face.eye_height - 0.008)
    patch.fill(lid, palette.INK)


def lashes(patch: Patch) -> None:
    """A flick at the outer corner of each eye."""
    face = patch.face
    x, y = np.abs(patch.x) - face.eye_x - face.eye_width, patch.y - face.eye_y + 0.55 * face.eye_height
    patch.fill(lens(x - 0.01, y + 0.7 * x, 0.05, 0.022), palette.INK)


def brows(patch: Patch) -> None:
    """Brows: thin or bushy, flat or arched."""
    face, people = patch.face, patch.face.people
    x = np.abs(patch.x) - face.eye_x - 0.01
    thickness = pick(people.bushy_brows, 0.055, pick(people.male, 0.027, 0.021))
    bend = pick(people.arched_brows, -0.11, -0.025)
    slope = pick(people.arched_brows, 0.1, 0.0)
    patch.fill(lens(x, patch.y - face.brow_y - slope * x, 0.13, thickness, bend), face.brow)


def nose(patch: Patch) -> None:
    """The tip of the nose, large and red or small, under its light."""
    face, big = patch.face, patch.face.people.big_nose
    width = pick(big, 0.125, 0.06) * (1 - 0.3 * face.childish)
    y = patch.y - face.nose_y
    patch.fill(ellipse(patch.x, y, width, width * 0.75), mix(face.shade, palette.ROSE, pick(big, 0.45, 0.0)), opacity=0.85)
    patch.fill(ellipse(patch.x + 0.01, y + 0.25 * width, width * 0.75, width * 0.55), face.skin, blur=0.02)


def mouth(patch: Patch) -> None:
    """Lips, curved in a smile and parted with teeth where the person does so."""
    face, people = patch.face, patch.face.people
    x, y, width = patch.x, patch.y - face.mouth_y, face.mouth_width
    gap = pick(people.mouth_open, 0.07, 0.0)
    bend = pick(people.smiling, 0.11, 0.0) * (1 - 0.25 * face.childish)
    patch.fill(lens(x, y, width, gap + pick(people.has_lipstick, 0.05, 0.03), bend + 0.6 * gap), face.lips)
    inner = lens(x, y, width * 0.92, np.maximum(gap, 0.013), bend + 0.6 * gap)
    patch.fill(inner, palette.MOUTH)
    teeth = np.maximum(inner + 0.012, lens(x, y, width, 0.03 + 0.25 * gap, bend - 0.3 * gap))
    patch.fill(teeth, palette.WHITE, opacity=pick(people.mouth_open & people.smiling, 1.0, 0.0))


HALO = Layer(halo, (-0.95, 0.95, -0.95, 0.95))
BODY = Layer(body, (-0.9, 0.9, 0.25, 1.3))
FACE = (
    Layer(ears, (-0.66, 0.66, -0.06, 0.22)),
    Layer(head, (-0.58, 0.58, -0.57, 0.64)),
    Layer(wrinkles, (-0.5, 0.5, -0.32, 0.42), lambda face: face.aged > 0),
    Layer(cheeks, (-0.46, 0.46, 0.1, 0.38), lambda face: face.people.rosy),
    Layer(bags, (-0.38, 0.38, 0.08, 0.32), lambda face: face.people.has_bags),
    Layer(eyeshadow, (-0.42, 0.42, -0.16, 0.16), lambda face: face.people.has_makeup),
    Layer(eyes, (-0.46, 0.46, -0.14, 0.28)),
    Layer(lashes, (-0.48, 0.48, -0.14, 0.15), lambda face: ~face.people.male),
)
NOSE = Layer(nose, (-0.16, 0.16, 0.06, 0.32))
BROWS = Layer(brows, (-0.4, 0.4, -0.3, 0.02))
MOUTH = Layer(mouth, (-0.28, 0.28, 0.2, 0.65))
