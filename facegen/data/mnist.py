"""MNIST (LeCun et al. 1998), and whatever else has its form: digits of 28 x 28 pixels in IDX files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from facegen.data.in_memory import DIGITS, InMemory, check_side, held_out
from facegen.data.records import Problem, located
from facegen.errors import UserError

SIDE = 28
LAYOUT = "MNIST/raw/train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz), and those of t10k, which are held out"
_PLACES = ("MNIST/raw", "raw", "")
_KINDS = {"images": 3, "labels": 1}  # with how many dimensions
_MAGIC = 0x0800  # bytes, unsigned; the number of dimensions is added


class BadIdx(UserError):
    """An IDX file that cannot be used, with its `problem`."""

    def __init__(self, path: Path, what: str, row: int | None = None) -> None:
        self.problem = Problem("corrupt" if row is None else "mislabelled", str(path), row, what)
        super().__init__(f"data.root: {path}{'' if row is None else f':{row}'} {what}; put a sound copy of the file in its place")


def find(root: str | Path | None) -> list[tuple[Path, Path]]:
    """The files of images and of labels to train on and, where they are there, those held out.

    Raises UserError where there are none, or where one of a pair is missing. Quick.
    """
    folder = located(root, LAYOUT)
    for place in _PLACES:
        found = {part: [_named(folder / place, part, kind) for kind in _KINDS] for part in ("train", "t10k")}
        if any(map(any, found.values())):
            return [_whole(folder / place, part, pair) for part, pair in found.items() if part == "train" or any(pair)]
    raise UserError(f"data.root={root} holds no MNIST; it must hold {LAYOUT}; type data.root=FOLDER")


def _named(folder: Path, part: str, kind: str) -> Path | None:
    stems = [f"{part}-{kind}{sign}idx{_KINDS[kind]}-ubyte" for sign in "-."]  # as published, and as Kaggle has it
    return next((path for stem in stems for end in ("", ".gz") if (path := folder / f"{stem}{end}").is_file()), None)


def _whole(folder: Path, part: str, pair: list[Path | None]) -> tuple[Path, Path]:
    images, labels = pair
    if images and labels:
        return images, labels
    missing = next(f"{part}-{kind}-idx{_KINDS[kind]}-ubyte" for kind, path in zip(_KINDS, pair, strict=True) if not path)
    raise UserError(f"data.root: {folder / missing} (or .gz) is missing; put it there, or type data.root=FOLDER")


def open_mnist(root: str | Path | None, resolution: int, val_fraction: float) -> tuple[InMemory, np.ndarray, np.ndarray]:
    """The digits, with the numbers of those to train on and of those held out: the files of t10k or, without them, `val_fraction`.

    Raises UserError where the files are not there, and BadIdx where one is damaged or does not go with the other.
    """
    check_side(resolution, SIDE)
    parts = [read_pair(*pair) for pair in find(root)]
    images, classes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    away = np.arange(len(images)) >= len(parts[0][0]) if len(parts) == 2 else held_out(images, val_fraction)
    return InMemory(images, classes, resolution), np.flatnonzero(~away), np.flatnonzero(away)


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """The digits (N, 28, 28) uint8 of one file and their classes (N,) of the other; raises BadIdx."""
    digits, classes = read_idx(images, _KINDS["images"]), read_idx(labels, _KINDS["labels"])
    if digits.shape[1:] != (SIDE, SIDE):
        raise BadIdx(images, f"holds images of {digits.shape[2]} x {digits.shape[1]} pixels, not {SIDE} x {SIDE}")
    if len(digits) != len(classes):
        raise BadIdx(labels, f"holds {len(classes)} labels, and {images.name} {len(digits)} images")
    if (strange := np.flatnonzero(classes >= len(DIGITS))).size:
        raise BadIdx(labels, f"the label is {classes[strange[0]]}, and must be one of 0 to 9", int(strange[0]) + 1)
    return digits, classes


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an IDX file of bytes, packed by gzip or not; raises BadIdx where it is not whole or has other `dimensions`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            magic, *shape = np.frombuffer(file.read(4 + 4 * dimensions).ljust(4 + 4 * dimensions, b"\0"), ">u4").tolist()
            if magic != _MAGIC + dimensions:
                raise BadIdx(path, f"is no IDX file of {dimensions} dimensions: its magic number is {magic}, not {_MAGIC + dimensions}")
            size = int(np.prod(shape, dtype=object))
            data = file.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadIdx(path, f"is damaged ({error})") from error
    except OSError as error:
        raise BadIdx(path, f"cannot be read ({error.strerror})") from error
    if len(data) != size:
        raise BadIdx(path, f"announces {size} bytes and holds {'more' if len(data) > size else len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)
