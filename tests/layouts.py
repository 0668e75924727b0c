"""Small data sets laid out as the public ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from facegen.data.celeba import ATTRIBUTES


def picture(number: int, size: tuple[int, int]) -> Image.Image:
    """A smooth picture of width and height `size`, another for each number."""
    width, height = size
    phase = np.random.default_rng(number).uniform(0, 6, size=(2, 3))
    y, x = np.mgrid[:height, :width, :1][:2] / 20
    return Image.fromarray((127 + 60 * np.sin(x + phase[0]) + 60 * np.cos(y + phase[1])).astype(np.uint8))


def save(path: Path, number: int, size: tuple[int, int]) -> None:
    """The picture as a file of the kind that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number, size).save(path)


def attributes(number: int) -> list[int]:
    """The 40 attributes of a picture, -1 or 1."""
    return list(np.random.default_rng(number).choice([-1, 1], size=len(ATTRIBUTES)))


def celeba(root: Path, count: int, images: str = "img_align_celeba", tables: str = "txt", newline: str = "\n") -> Path:
    """CelebA: every tenth image is held out and the one after it is for the test. `tables` is txt, csv or none."""
    names = [f"{number + 1:06d}.jpg" for number in range(count)]
    parts = {8: 1, 9: 2}
    for number, name in enumerate(names):
        save(root / images / name, number, (178, 218))
    if tables == "txt":
        rows = [f"{name} " + " ".join(f"{value:2d}" for value in attributes(i)) for i, name in enumerate(names)]
        _write(root / "list_attr_celeba.txt", [str(count), " ".join(ATTRIBUTES) + " ", *rows], newline)
        _write(root / "list_eval_partition.txt", [f"{name} {parts.get(i % 10, 0)}" for i, name in enumerate(names)], newline)
    elif tables == "csv":
        rows = [",".join(map(str, [name, *attributes(i)])) for i, name in enumerate(names)]
        _write(root / "list_attr_celeba.csv", [",".join(["image_id", *ATTRIBUTES]), *rows], newline)
        rows = [f"{name},{parts.get(i % 10, 0)}" for i, name in enumerate(names)]
        _write(root / "list_eval_partition.csv", ["image_id,partition", *rows], newline)
    return root


def _write(path: Path, lines: list[str], newline: str) -> None:
    path.write_bytes((newline.join(lines) + newline).encode())


def folder(root: Path, count: int, size: tuple[int, int] = (24, 24)) -> Path:
    """Pictures in two folders."""
    for number in range(count):
        save(root / f"{number % 2}" / f"{number:03d}.png", number, size)
    return root
