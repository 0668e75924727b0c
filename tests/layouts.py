"""Small data sets laid out as the public ones are."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
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


AGING = {  # the columns of FFHQ-Aging's table in their order, with what a row has where nothing else is said
    "image_number": 0,
    "age_group": "20-29",
    "age_group_confidence": 1.0,
    "gender": "female",
    "gender_confidence": 1.0,
    "head_pitch": 1.5,
    "head_roll": -2.25,
    "head_yaw": -3.0,
    "left_eye_occluded": 0.125,
    "right_eye_occluded": 0.0,
    "glasses": "None",
}


def ffhq_aging(root: Path, people: Mapping[int, Mapping[str, object]], size: tuple[int, int] = (16, 16)) -> Path:
    """FFHQ-Aging: a thumbnail and a row of the table for each number, which says what differs from `AGING`."""
    for number in people:
        save(root / f"thumbnails128x128/{number // 1000 * 1000:05d}/{number:05d}.png", number, size)
    aging_table(root, [{**AGING, "image_number": number, **row} for number, row in people.items()])
    return root


def aging_table(root: Path, rows: Iterable[Mapping[str, object]], newline: str = "\n") -> None:
    """FFHQ-Aging's table; the columns are those of the first row, in its order."""
    rows = list(rows)
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    _write(root / "ffhq_aging_labels.csv", lines, newline)


def folder(root: Path, count: int, size: tuple[int, int] = (24, 24)) -> Path:
    """Pictures in two folders."""
    for number in range(count):
        save(root / f"{number % 2}" / f"{number:03d}.png", number, size)
    return root


def classes(root: Path, counts: dict[str, int], size: tuple[int, int] = (24, 24)) -> Path:
    """Pictures in a folder for each class, so many in each; no two are alike."""
    number = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for place in range(count):
            save(root / name / f"{place:03d}.png", number, size)
            number += 1
    return root


def mnist(folder: Path, count: int = 30, part: str = "train", packed: bool = False) -> Path:
    """MNIST's two files of a part: digit i is of class i % 10, and its upper left pixel is i + 1."""
    digits = np.random.default_rng(len(part)).integers(0, 256, (count, 28, 28)).astype(np.uint8)
    digits[:, 0, 0] = np.arange(count) + 1
    idx(folder / f"{part}-images-idx3-ubyte", digits, packed)
    idx(folder / f"{part}-labels-idx1-ubyte", np.arange(count) % 10, packed)
    return folder


def idx(path: Path, array: np.ndarray, packed: bool = False) -> Path:
    """An array of bytes as an IDX file, packed by gzip or not."""
    path = path.with_name(path.name + ".gz" * packed)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes() + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path
