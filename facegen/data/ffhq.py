"""FFHQ (Karras et al. 2019): thumbnails, full size, resized copies and flat mirrors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from facegen.data.records import File, Problem, Reader, Records, is_image, list_files, official

_FOLDER = re.compile(r"(?:thumbnails|images)(\d+)x\1")
_FIRST_HELD_OUT = 60_000  # the official categories: training below, validation from here on


class FFHQReader(Reader):
    """Square images whose stem is their number, in `thumbnails128x128`, `images1024x1024`, any `imagesNxN`, or the root.

    Of several sizes the smallest is read that is not below the resolution.
    """

    name = "ffhq"
    layout = "thumbnails128x128/00000/00000.png ... (or images1024x1024, or the numbered images themselves)"

    def files(self, root: Path) -> list[File]:
        """The images of one size."""
        sizes = {int(m[1]): folder.name for folder in root.iterdir() if (m := _FOLDER.fullmatch(folder.name))}
        enough = [size for size in sizes if size >= self.picture.resolution]
        place = sizes[min(enough) if enough else max(sizes)] if sizes else ""
        return [file for file in list_files(root, place) if is_image(file)]

    def records(self, root: Path, files: list[File]) -> Records:
        """The numbered images in the order of their numbers."""
        numbered, problems = by_number(files)
        return Records([*numbered.values()], official_split(numbered), None, problems)


def by_number(images: Iterable[File]) -> tuple[dict[int, str], list[Problem]]:
    """The path of each image by its number, in the order of the numbers, and what is wrong with the other names."""
    numbered: dict[int, str] = {}
    problems: list[Problem] = []
    for file in images:
        stem = file.name.rpartition(".")[0]
        if not stem.isdecimal():
            problems.append(Problem("mislabelled", file.path, None, "the name is no number", "left out"))
        elif int(stem) in numbered:
            what = f"has the number of {numbered[int(stem)]}"
            problems.append(Problem("mislabelled", file.path, None, what))
        else:
            numbered[int(stem)] = file.path
    return dict(sorted(numbered.items())), problems


def official_split(numbers: Iterable[int]) -> np.ndarray | None:
    """The official split (N,) uint8 of the images of these numbers, None where they are of one side only."""
    return official(np.array([number >= _FIRST_HELD_OUT for number in numbers], dtype=np.uint8))
