"""Photographs as people have them, any size and turned any way, brought to what a model takes: upright squares around a face."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegen.data.decode import FORMATS, BadImage, upright
from facegen.data.records import IMAGE_SUFFIXES
from facegen.errors import UserError
from facegen.regions import FFHQ, Box

Crop = str | Sequence[float]
Square = tuple[float, float, float]  # left, top and side, in pixels of the upright picture
Detect = Callable[[np.ndarray], list[Square]]
FACE, CENTER = "face", "center"
SMALLEST = 24  # pixels of a face that can still be told from another
FILLS = 0.55  # of the shorter side: a face as large as this is a picture of a face already
LOOKED_AT = 480  # pixels that the detector is given a picture at


@dataclass(frozen=True)
class Photograph:
    """A photograph as a model takes it: `pixels` (C,H,W) uint8 of the square `box` (left, top, right, bottom) of the upright picture.

    A `note` says where that was not what was asked for. `name` is another for each of those read together.
    """

    name: str
    path: Path
    pixels: np.ndarray
    box: Box
    note: str | None = None


def photographs(
    source: str | Sequence[str], resolution: int, channels: int, crop: Crop = FACE, frame: Box = FFHQ.face, detect: Detect | None = None
) -> list[Photograph]:
    """The photographs of a file, of a folder (not of the folders in it), or of a list of these, in (channels, resolution, resolution).

    Args:
        crop: `face` finds the largest face and frames it as the pictures that a model was trained on are framed; where there is none, or
            the picture is square and of a face alone, and with `center`, it is the largest centred square. Or left, top, right and bottom.
        frame: where in a training picture the square around the face lies, as fractions of its side.
        detect: finds the faces in a grey picture (H,W) uint8; None is `faces`.

    Raises UserError where something is no photograph, or too small.
    """
    sources = [source] if isinstance(source, str) else list(source)
    if not sources:
        raise UserError("edit must name photographs; got []; type edit=FILE, or edit=FOLDER")
    found = [_read(path, resolution, channels, crop, frame, detect or faces) for path in _files(sources)]
    taken: dict[str, int] = {}
    for number, photograph in enumerate(found):
        taken[photograph.name] = taken.get(photograph.name, 0) + 1
        if (count := taken[photograph.name]) > 1:
            found[number] = replace(photograph, name=f"{photograph.name}-{count}")
    return found


def _files(sources: Sequence[str]) -> list[Path]:
    files = []
    for source in sources:
        path = Path(source).expanduser()
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
        pictures = [entry for entry in inside if entry.suffix.lower() in IMAGE_SUFFIXES]
        if not pictures:
            raise UserError(f"edit={source} is a folder without images; allowed: {', '.join(FORMATS)}; type edit=FILE, or another folder")
        if len(pictures) < len(inside):
            print(f"{source}: {len(inside) - len(pictures)} files that are no images are passed over", file=sys.stderr)
        files += pictures
    return files


def _read(path: Path, resolution: int, channels: int, crop: Crop, frame: Box, detect: Detect) -> Photograph:
    try:
        image = upright(path.read_bytes(), "L" if channels == 1 else "RGB")
    except OSError as error:
        raise UserError(f"edit={path} cannot be read ({error.strerror}); type edit=FILE, a photograph") from error
    except BadImage as error:
        raise UserError(f"edit={path} is not an image that can be read: {error}; allowed: {', '.join(FORMATS)}; type edit=FILE") from error
    (left, top, side), note = _square(image, crop, frame, detect, path)
    if side < (least := max(SMALLEST, resolution // 4)):
        what = f"shows a square of {side:.0f} pixels, no face-sized image; the model draws {resolution} and takes {least} or more"
        raise UserError(f"edit={path} {what}; type edit=FILE, a larger photograph")
    if side < resolution:
        note = "; ".join(filter(None, (note, f"{side:.0f} pixels were enlarged to {resolution}")))
    box = (left, top, left + side, top + side)
    small = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(small).reshape(resolution, resolution, channels).transpose(2, 0, 1)
    return Photograph(path.stem, path, np.ascontiguousarray(pixels), box, note)


def _square(image: Image.Image, crop: Crop, frame: Box, detect: Detect, path: Path) -> tuple[Square, str | None]:
    width, height = image.size
    whole = min(width, height)
    centred = (width - whole) / 2, (height - whole) / 2, float(whole)
    if not isinstance(crop, str):
        return _given(crop, width, height, path), None
    if crop == CENTER:
        return centred, None
    if crop != FACE:
        raise UserError(f"crop must be face, center or [left,top,right,bottom]; got {crop}; type crop=face")
    found = _found(image, detect)
    if found is None:
        return centred, None if width == height else "no face was found: the centred square is taken"
    if width == height and found[2] >= FILLS * whole:
        return centred, None
    return _framed(found, frame, width, height), None


def _given(crop: Sequence[float], width: int, height: int, path: Path) -> Square:
    inside = len(crop) == 4 and 0 <= crop[0] < crop[2] <= width and 0 <= crop[1] < crop[3] <= height
    if not inside or abs((crop[2] - crop[0]) - (crop[3] - crop[1])) > 1:
        got = f"crop=[{','.join(f'{edge:g}' for edge in crop)}]"
        raise UserError(
            f"{got} must be left, top, right and bottom of a square in {path}, which has {width} x {height} pixels; type crop=face"
        )
    return crop[0], crop[1], min(crop[2] - crop[0], crop[3] - crop[1])


def _found(image: Image.Image, detect: Detect) -> Square | None:
    """The largest face, looked for in a picture of modest size."""
    scale = max(1.0, max(image.size) / LOOKED_AT)
    width, height = (max(1, round(side / scale)) for side in image.size)
    grey = np.asarray(image.convert("L").resize((width, height)))
    found = max(detect(grey), key=lambda square: square[2], default=None)
    return found and (found[0] * scale, found[1] * scale, found[2] * scale)


def _framed(found: Square, frame: Box, width: int, height: int) -> Square:
    """The square that has the face where `frame` says, moved and at last shrunk to lie within the picture."""
    left, top, side = found
    whole = min(side / (frame[2] - frame[0]), width, height)
    x, y = left + side / 2 - whole * (frame[0] + frame[2]) / 2, top + side / 2 - whole * (frame[1] + frame[3]) / 2
    return min(max(x, 0.0), width - whole), min(max(y, 0.0), height - whole), whole


def faces(grey: np.ndarray) -> list[Square]:
    """The frontal faces in a grey picture (H,W) uint8, by scikit-image's cascade of local binary patterns (Ahonen et al. 2006)."""
    shortest = min(grey.shape)
    if shortest < SMALLEST:
        return []
    found = _cascade().detect_multi_scale(
        img=grey, scale_factor=1.15, step_ratio=1, min_size=(max(SMALLEST, shortest // 8),) * 2, max_size=(shortest,) * 2
    )
    return [(float(face["c"]), float(face["r"]), float(face["width"])) for face in found]


@cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())
