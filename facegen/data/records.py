"""What a reader says about a data set on disk: which images, which split, which labels, and what is wrong with them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from facegen.data.columns import Columns
from facegen.data.decode import Picture
from facegen.errors import UserError, nearest
from facegen.seeding import mix

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
TRAIN, HELD_OUT, TEST = 0, 1, 2


class File(NamedTuple):
    """A file by its path under the root (with `/`) and what tells a changed one: its size in bytes and time in ns."""

    path: str
    size: int
    mtime: int

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return self.path.rpartition("/")[2]


class Problem(NamedTuple):
    """One thing wrong with a data set, at a file or a row of one.

    `effect` says what becomes of the image: `none`; `left out` of training; `stop`: an error, or left out with
    `data.on_bad=skip`. One that is `pruned` has nothing wrong with it: it is left out because an option asks for that.
    """

    kind: Literal["missing", "corrupt", "duplicated", "mis-sized", "mislabelled", "pruned"]
    file: str
    row: int | None
    what: str
    effect: Literal["none", "left out", "stop"] = "stop"


@dataclass
class Records:
    """The usable images of a data set in a fixed order.

    `split` (N,) uint8 is the official one, of TRAIN, HELD_OUT and TEST, or None where there is none;
    `labels` (N, K) float32 or None; `columns` says what they are where the data set itself names them, else the reader does.
    """

    paths: list[str]
    split: np.ndarray | None = None
    labels: np.ndarray | None = None
    problems: list[Problem] = field(default_factory=list)
    columns: Columns | None = None

    def select(self, rows: np.ndarray) -> Records:
        """The records of some rows."""
        split, labels = (None if a is None else a[rows] for a in (self.split, self.labels))
        return replace(self, paths=[self.paths[row] for row in rows], split=split, labels=labels)


class Reader:
    """Knows one layout on disk. `files` is quick and tells whether anything changed; `records` reads the labels.

    `version` is raised whenever the same files would be read differently. `condition_groups` names the columns that exclude each other:
    an image is in one of each group, or in none where that is not known. `label_file` is what holds the labels, beside the images.
    `switches` names the options of its data module, each true or false, by which the same files are read otherwise: arguments and
    attributes of the reader.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    layout: ClassVar[str]
    crops: ClassVar[tuple[str, ...]] = ("square",)
    condition_names: ClassVar[tuple[str, ...]] = ()
    condition_groups: ClassVar[dict[str, tuple[str, ...]]] = {}
    label_file: ClassVar[str] = ""
    switches: ClassVar[tuple[str, ...]] = ()

    def __init__(self, picture: Picture) -> None:
        if picture.crop not in self.crops:
            allowed = ", ".join(self.crops)
            raise UserError(f"data.crop must be one of {allowed}; got {picture.crop}{nearest(picture.crop, self.crops)}")
        self.picture = picture

    @property
    def settings(self) -> tuple[object, ...]:
        """What else the same files are read by, so far as that is not usual."""
        return ()

    def files(self, root: Path) -> list[File]:
        """Every file under `root` that the images or labels are read from."""
        raise NotImplementedError

    def records(self, root: Path, files: list[File]) -> Records:
        """The images and labels of `files`, as listed by this reader."""
        raise NotImplementedError

    def columns(self, root: str | Path | None) -> Columns:
        """What the labels at `root` are, where there are any; quick. Raises UserError where only `root` can tell and does not."""
        return Columns(self.condition_names, self.condition_groups)

    def scan(self, root: str | Path | None) -> Records:
        """The data set at `root`; raises UserError where there is none."""
        return self.records(*self.listed(root))

    def located(self, root: str | Path | None) -> Path:
        """The folder `root`; raises UserError where there is none, or nothing in it. Quick whatever the size of the data set."""
        return located(root, self.layout)

    def unlabelled(self, root: str | Path | None) -> str:
        """Why there are no labels at `root`, and what to type where they are needed."""
        if self.condition_names:
            return f"data.root={root} has none: {self.label_file} is missing; put it there, or type data=utkface64 or cartoon"
        return f"data={self.name} has none; type data=celeba64, utkface64 or cartoon"

    def listed(self, root: str | Path | None) -> tuple[Path, list[File]]:
        """`root` and its files; raises UserError where there is no root, or no image in it."""
        folder = self.located(root)
        files = sorted(self.files(folder))
        if not any(is_image(file) for file in files):
            raise UserError(f"data.root={root} holds no images; it must hold {self.layout}; type data.root=FOLDER")
        return folder, files


def located(root: str | Path | None, layout: str) -> Path:
    """The folder `root`, which must hold `layout`; raises UserError where there is none, or nothing in it."""
    if not root:
        raise UserError(f"data.root is not given; it must hold {layout}; type data.root=FOLDER")
    try:
        folder = Path(root).expanduser()
    except RuntimeError as error:
        raise UserError(f"data.root={root} cannot be found: there is no such user; type data.root=FOLDER") from error
    if not folder.is_dir():
        raise UserError(f"data.root={root} is no folder; it must hold {layout}; type data.root=FOLDER")
    try:
        if next(folder.iterdir(), None) is None:
            raise UserError(f"data.root={root} is empty; it must hold {layout}; type data.root=FOLDER")
    except OSError as error:
        raise UserError(f"data.root={root} cannot be read ({error.strerror}); type data.root=FOLDER") from error
    return folder


def is_image(file: File) -> bool:
    """Whether the name is that of an image."""
    return file.path.lower().endswith(IMAGE_SUFFIXES)


def list_files(root: Path, folder: str = "", deep: bool = True, above: tuple[str, ...] = ()) -> list[File]:
    """The files of `root/folder`, and with `deep` of the folders in it; hidden ones are passed over.

    A link back to one of the folders `above` (their real paths) is not followed again.
    """
    found: list[File] = []
    here = os.path.realpath(root / folder)
    if here in above:
        return found
    prefix = f"{folder}/" if folder else ""
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += list_files(root, prefix + entry.name, above=(*above, here)) if deep else ()
            else:
                found.append(_file(prefix + entry.name, entry))
    return found


def _file(path: str, entry: os.DirEntry[str]) -> File:
    try:
        stat = entry.stat()
    except OSError:  # a link to nowhere: reading it will say so
        return File(path, 0, 0)
    return File(path, stat.st_size, stat.st_mtime_ns)


def official(split: np.ndarray) -> np.ndarray | None:
    """The split where it has images to train on and images held out (a part of a data set may lack one), else None."""
    return split if {TRAIN, HELD_OUT} <= set(np.unique(split)) else None


def keyed_fraction(purpose: str, names: list[str]) -> np.ndarray:
    """A number in [0, 1) for each name, (N,) float64, that depends on nothing but the name: other files may come or go."""
    return np.array([mix(purpose, name) for name in names], dtype=np.float64) / 2.0**63
