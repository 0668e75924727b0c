"""Shapes as distances: negative inside, positive outside, in the units of the coordinates, so that an edge can be one pixel soft."""

from __future__ import annotations

import numpy as np

Number = np.ndarray | float

_TINY = np.float32(1e-6)
"""Keeps the middle of an ellipse, where the gradient is zero, inside it."""


def squircle(x: np.ndarray, y: np.ndarray, a: Number, b: Number, squareness: Number | None) -> np.ndarray:
    """Distance to p^2 + q^2 - s p^2 q^2 = 1 with p = x/a and q = y/b, where squareness s leads from ellipse (0) to rectangle (1).

    The distance is that of the first order, F / |grad F| (Taubin 1994), without the gradient of the term in s.
    """
    p, q = x * (1 / a), y * (1 / b)
    p *= p
    q *= q
    slope = p * (1 / (a * a))
    slope += q * (1 / (b * b))
    if squareness is not None:
        p *= 1 - squareness * np.minimum(q, 1)
    p += q
    p += _TINY
    slope += _TINY
    p -= np.sqrt(p)
    p /= np.sqrt(slope, out=slope)
    return p


def ellipse(x: np.ndarray, y: np.ndarray, a: Number, b: Number) -> np.ndarray:
    """Distance to an ellipse with half-axes `a` and `b`."""
    return squircle(x, y, a, b, None)


def box(x: np.ndarray, y: np.ndarray, a: Number, b: Number) -> np.ndarray:
    """Distance (the larger of the two) to a rectangle of half-width `a` and half-height `b`."""
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def lens(x: np.ndarray, y: np.ndarray, width: Number, height: Number, bend: Number = 0.0) -> np.ndarray:
    """Height above or below a stroke of half-length `width`, `height` thick on either side in the middle, pointed at its ends.

    Its middle line is a parabola that hangs down by `bend`, so one shape serves for lips, lids, brows, folds and a mustache.
    """
    u = x * (1 / width)
    u *= u
    np.subtract(1, u, out=u)
    d = np.abs(y - bend * u)
    u *= height
    d -= u
    return np.maximum(d, np.abs(x) - width, out=d)


def ripple(t: np.ndarray) -> np.ndarray:
    """A wave of period 1 between -1 and 1, made of parabolas: a sine's rounding may depend on the length of the array."""
    swing = t - np.floor(t)
    swing *= 2
    swing -= 1
    wave = np.abs(swing)
    np.subtract(1, wave, out=wave)
    wave *= swing
    wave *= 4
    return wave
