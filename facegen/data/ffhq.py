"""FFHQ (Karras et al. 2019): thumbnails, full size, resized copies and flat mirrors."""

from __future__ import annotations

import re
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
        numbered: dict[int, str] = {}
        problems: list[Problem] = []
        for file in files:
            stem = file.name.rpartition(".")[0]
            if not stem.isdigit():
                problems.append(Problem("mislabelled", file.path, None, "the name is no number", "left out"))
            elif int(stem) in numbered:
                what = f"has the number of {numbered[int(stem)]}"
                problems.append(Problem("mislabelled", file.path, None, what))
            else:
                numbered[int(stem)] = file.path
        numbers = sorted(numbered)
        split = (np.array(numbers) >= _FIRST_HELD_OUT).astype(np.uint8)
        return Records([numbered[n] for n in numbers], official(split), None, problems)
