"""From the bytes of an image file to pixels at their final size: right, or refused."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

FILTER = "Pillow LANCZOS; a JPEG is first shrunk by 2, 4 or 8 in its DCT where it stays no smaller than the result"
DECODING = "EXIF rotation honoured, transparency on white, 16-bit grey scaled to 8, colour profiles ignored"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 64 << 20

Box = tuple[float, float, float, float]
_ALIGNED = (178, 218)
_WINDOWS = {  # left, top and side in CelebA's aligned 178 x 218 pictures
    "d2c": (25, 57, 128),
    "center108": (35, 55, 108),
    "center140": (19, 39, 140),
    "center148": (15, 35, 148),
    "center178": (0, 20, 178),
}


class BadImage(Exception):
    """An image that cannot be used, and the kind of its problem."""

    def __init__(self, kind: Literal["corrupt", "mis-sized"], what: str) -> None:
        super().__init__(what)
        self.kind: Literal["corrupt", "mis-sized"] = kind


@dataclass(frozen=True)
class Picture:
    """What a file becomes: uint8 (channels, resolution, resolution); channels 3 is RGB, 1 is grey (ITU-R 601 luma).

    Crops: `square` takes the whole picture and refuses one that is not square; `center` the largest centred square;
    `squash` the whole picture whatever its shape; the others are squares of CelebA's aligned pictures, never comparable
    with each other: `d2c` (128 pixels around x 89, y 121) and `centerN` (the central N pixels).
    """

    resolution: int
    channels: int
    crop: str = "square"


def decode(data: bytes, picture: Picture) -> np.ndarray:
    """The picture of an image file's bytes; raises BadImage where it is damaged, of the wrong size or of unknown range.

    EXIF rotation is honoured, transparency laid on white, 16-bit grey scaled to 8; colour profiles are ignored.
    """
    with _told():
        return _decode(data, picture)


def upright(data: bytes, mode: str) -> Image.Image:
    """An image file's bytes as a whole picture in Pillow's `mode`, RGB or L, decoded and refused as by `decode`."""
    with _told():
        image = _open(data)
        ImageOps.exif_transpose(image, in_place=True)
        return _eight_bits(image, mode)


@contextmanager
def _told() -> Iterator[None]:
    """Tells whatever goes wrong with a file as a BadImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes, which `_open` checks, and of odd metadata
            yield
    except BadImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise BadImage("corrupt", f"is no {', '.join(FORMATS)} image") from error
    except Image.DecompressionBombError as error:
        raise BadImage("mis-sized", f"more than {MAX_PIXELS >> 20} million pixels") from error
    except Exception as error:  # every format fails in its own way: OSError, SyntaxError, ValueError, struct.error, ...
        raise BadImage("corrupt", f"{error}" or type(error).__name__) from error


def _decode(data: bytes, picture: Picture) -> np.ndarray:
    image = _open(data)
    mode, size = ("RGB", "L")[picture.channels == 1], (picture.resolution, picture.resolution)
    width, height = image.size[::-1] if _is_turned(image) else image.size
    box = crop_box(picture.crop, width, height)
    side = int(min(box[2] - box[0], box[3] - box[1]))
    if side < picture.resolution:
        raise BadImage("mis-sized", f"{side} pixels after the crop are too few for resolution={picture.resolution}")
    shrunk = _shrink(image, mode, side // picture.resolution)
    ImageOps.exif_transpose(image, in_place=True)
    left, top, right, bottom = (edge / shrunk for edge in box)
    small = _eight_bits(image, mode).resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    return np.asarray(small).reshape(*size, picture.channels).transpose(2, 0, 1)


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise BadImage("mis-sized", f"more than {MAX_PIXELS >> 20} million pixels")
    return image


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(ExifTags.Base.Orientation, 1) >= 5


def crop_box(crop: str, width: int, height: int) -> Box:
    """Left, top, right and bottom of `crop` in a picture of width x height; raises BadImage where it does not fit."""
    if crop in _WINDOWS:
        if (width, height) != _ALIGNED:
            raise BadImage("mis-sized", f"{width} x {height} pixels; aligned CelebA pictures have 178 x 218")
        left, top, side = _WINDOWS[crop]
        return left, top, left + side, top + side
    if crop == "square" and width != height:
        raise BadImage("mis-sized", f"{width} x {height} pixels; this data set has square pictures")
    if crop in ("square", "squash"):
        return 0, 0, width, height
    side = min(width, height)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


def _shrink(image: Image.Image, mode: str, factor: int) -> float:
    """Ask a JPEG's decoder for a picture smaller by up to `factor`; returns how much smaller it will be."""
    width, height = image.size
    if factor < 2 or image.format not in ("JPEG", "MPO"):
        return 1.0
    scale = max(s for s in (2, 4, 8) if s <= factor)
    drafted = image.draft(mode, (width // scale, height // scale))
    return width / drafted[1][2] if drafted else 1.0


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImage("corrupt", f"32-bit pixels (Pillow mode {image.mode}) do not say what white is")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)
