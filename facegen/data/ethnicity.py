"""Faces in one folder for each class: the names of the classes are those of the folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facegen.data.columns import Columns
from facegen.data.records import HELD_OUT, TRAIN, File, Problem, Reader, Records, is_image, list_files, official
from facegen.errors import UserError, nearest

GROUP = "class"
_TRAIN = "train"
_HELD_OUT = ("val", "valid", "validation")
_TEST = "test"
_TAKEN = ("none", "null", "true", "false")  # what is typed after condition= means something else


class EthnicityReader(Reader):
    """Folders of images, one for each class, in the order of their names: `European/*.jpg`, `Indian/*.jpg`, `Oriental/*.jpg`.

    With a folder `train` the classes lie in it, and in `val` (valid, validation) those of the images held out; `test` is not read. The
    case of these names does not matter.
    """

    name = "ethnicity"
    layout = "European/1.jpg, Indian/1.jpg ... (a folder of images for each class), or train/European/1.jpg ... and val/European/1.jpg ..."
    crops = ("center", "squash")

    def columns(self, root: str | Path | None) -> Columns:
        """The classes.

        Raises UserError where there are fewer than two, where one is held out that is not trained on, or cannot be asked for by its name.
        """
        folder = self.located(root)
        parts = list(_parts(folder))
        classes = {part: _folders(folder / part) for part in parts}
        names = next(iter(classes.values()))
        if taken := next((name for name in names if name.lower() in _TAKEN), None):
            raise UserError(
                f"data.root={root}: the folder {taken} is named like a word that means something else in condition=; rename the folder"
            )
        if len(names) < 2:
            found = f"only one folder of a class, {names[0]}" if names else "no folders of classes"
            raise UserError(f"data.root={root} has {found}; it must hold {self.layout}; type data=folder for images without labels")
        for part, found in classes.items():
            if strange := next((name for name in found if name not in names), None):
                what = f"{part}/{strange} is a class that {parts[0]} has no folder of{nearest(strange, names)}"
                raise UserError(f"data.root={root}: {what}; rename it, remove it, or put images to train on into {parts[0]}/{strange}")
        return _columns(names)

    def files(self, root: Path) -> list[File]:
        """The images of every class, and those that lie beside the folders of classes; raises UserError where a class has none."""
        self.columns(root)
        found: list[File] = []
        for part in _parts(root):
            for name in _folders(root / part):
                place = f"{part}/{name}".lstrip("/")
                images = [file for file in list_files(root, place) if is_image(file)]
                if not images:
                    raise UserError(f"data.root: the folder {root / place} holds no images; put images there or remove it")
                found += images
            found += filter(is_image, list_files(root, part, deep=False))
        return found + ([] if "" in _parts(root) else [*filter(is_image, list_files(root, deep=False))])

    def records(self, root: Path, files: list[File]) -> Records:
        """The images that lie in the folder of a class, at any depth."""
        parts = _parts(root)
        depth = 0 if "" in parts else 1
        steps = {file.path: file.path.split("/") for file in files}
        usable = {path: folders for path, (*folders, _) in steps.items() if len(folders) > depth}
        problems = [Problem("mislabelled", path, None, "lies in no folder of a class", "left out") for path in steps if path not in usable]
        names = sorted({folders[depth] for folders in usable.values()})
        classes = np.array([names.index(folders[depth]) for folders in usable.values()], dtype=int)
        split = np.array([parts[folders[0] if depth else ""] for folders in usable.values()], dtype=np.uint8)
        return Records(list(usable), official(split), np.eye(len(names), dtype=np.float32)[classes], problems, _columns(names))


def _columns(names: list[str]) -> Columns:
    return Columns(tuple(names), {GROUP: tuple(names)})


def _parts(root: Path) -> dict[str, int]:
    """The folders that the classes lie in, with the split of each, whatever the case of their names; first one to train on.

    Raises UserError where there is one held out and none to train on.
    """
    folders = _folders(root)
    if train := [name for name in folders if name.lower() == _TRAIN]:
        return {**dict.fromkeys(train, TRAIN), **{name: HELD_OUT for name in folders if name.lower() in _HELD_OUT}}
    if beside := next((name for name in folders if name.lower() in (*_HELD_OUT, _TEST)), None):
        raise UserError(
            f"data.root={root} has a folder {beside} and no folder train; put the folders of the classes to train on into train"
        )
    return {"": TRAIN}


def _folders(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
