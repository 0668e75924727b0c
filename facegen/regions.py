"""Where faces and eyes lie in the aligned pictures of each data set, as fractions of their side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Regions(NamedTuple):
    """`face` is the square that a frontal face detector (LBP cascade, forehead to chin) finds in the pictures, `eyes` a strip over both."""

    face: Box
    eyes: Box


# FFHQ puts the eyes at 0.47 of the height, a quarter of the side apart (Karras et al. 2019, recreate_aligned_images). UTKFace's chips are
# what the detector itself takes for a face: median over 35 faces of 40. Cartoon faces are drawn so (facegen.data.cartoon.anatomy).
FFHQ = Regions((0.17, 0.23, 0.83, 0.89), (0.25, 0.39, 0.75, 0.55))
UTKFACE = Regions((0.0, 0.0, 1.0, 0.93), (0.12, 0.24, 0.88, 0.46))
CARTOON = Regions((0.2, 0.2, 0.8, 0.86), (0.25, 0.4, 0.75, 0.66))
_ALIGNED_FACE, _ALIGNED_EYES = (40, 75, 137, 172), (52, 98, 126, 124)  # in CelebA's aligned 178 x 218: eyes 39 px apart at y 111
_WINDOWS = {
    "d2c": (25, 57, 128),
    "center108": (35, 55, 108),
    "center140": (19, 39, 140),
    "center148": (15, 35, 148),
    "center178": (0, 20, 178),
}


def regions(data: Mapping[str, Any]) -> Regions:
    """Those of the data module with this configuration; of pictures that are aligned in no known way those of FFHQ."""
    name = str(data.get("_target_", "")).rpartition(".")[2]
    if name == "CelebA" and data.get("crop") in _WINDOWS:
        return Regions(*(_within(box, *_WINDOWS[str(data["crop"])]) for box in (_ALIGNED_FACE, _ALIGNED_EYES)))
    return {"UTKFace": UTKFACE, "Cartoon": CARTOON}.get(name, FFHQ)


def _within(box: tuple[int, ...], x: int, y: int, side: int) -> Box:
    left, top, right, bottom = box
    return (left - x) / side, (top - y) / side, (right - x) / side, (bottom - y) / side


def inside(box: Box, side: int) -> tuple[slice, slice]:
    """The rows and columns of pixels that `box` covers in a picture of `side` pixels, so far as it lies in it; one at least."""
    left, top, right, bottom = (min(max(round(edge * side), 0), side) for edge in box)
    return slice(min(top, side - 1), max(bottom, min(top, side - 1) + 1)), slice(min(left, side - 1), max(right, min(left, side - 1) + 1))
