"""CelebA (Liu et al. 2015), aligned: as published, or as Kaggle packs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facegen.data.records import HELD_OUT, TEST, TRAIN, File, Problem, Reader, Records, is_image, list_files, official
from facegen.data.table import Table, read_table
from facegen.errors import UserError

_NAMES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
ATTRIBUTES = tuple(_NAMES.split())
_IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba", "")
_TABLES = ("", "Anno", "Eval")
_ATTRIBUTES, _PARTITION = "list_attr_celeba", "list_eval_partition"
_FIRST_HELD_OUT, _FIRST_TEST = 162_771, 182_638  # the official partition, by the number in the name


class CelebAReader(Reader):
    """Images `img_align_celeba/000001.jpg`; attributes (0/1) and the official partition where their tables are there.

    Without the partition's table the split is by number, as published.
    """

    name = "celeba"
    layout = "img_align_celeba/000001.jpg ... and, where wanted, list_attr_celeba.txt or .csv"
    crops = ("d2c", "center140", "center148", "center178", "center108", "squash")
    condition_names = ATTRIBUTES
    label_file = "list_attr_celeba.txt or .csv"

    def files(self, root: Path) -> list[File]:
        """The images of the first folder that has any, and the tables; raises UserError where one of these is there twice."""
        beside = [f for place in _TABLES if (root / place).is_dir() for f in list_files(root, place, deep=False)]
        tables: list[File] = []
        for stem in (_ATTRIBUTES, _PARTITION):
            found = [f for f in beside if f.name.lower() in (f"{stem}.txt", f"{stem}.csv")]
            if len(found) > 1:
                both = " and ".join(sorted(f.path for f in found))
                raise UserError(f"data.root={root} holds {both}, and only one of them can be meant; remove one of them")
            tables += found
        for place in _IMAGES:
            if (root / place).is_dir() and (images := [*filter(is_image, list_files(root, place, deep=False))]):
                return images + tables
        return []

    def records(self, root: Path, files: list[File]) -> Records:
        """The images that every table there has a good row for."""
        images = {file.name: file.path for file in files if is_image(file)}
        attributes = self._table(root, files, _ATTRIBUTES, ATTRIBUTES, {"-1": 0, "1": 1}, {"0": 0, "1": 1})
        partition = self._table(root, files, _PARTITION, ("partition",), {"0": TRAIN, "1": HELD_OUT, "2": TEST})
        problems: list[Problem] = []
        for table in filter(None, (attributes, partition)):
            problems += table.problems
            problems += _unmatched(table, images)
        tables = [table.rows for table in (attributes, partition) if table]
        names = [name for name in images if all(rows.get(name) is not None for rows in tables)]
        labels = np.array([attributes.rows[n] for n in names], dtype=np.float32) if attributes else None
        split = np.array([partition.rows[n] for n in names], dtype=np.uint8).ravel() if partition else _by_number(names)
        return Records([images[n] for n in names], None if split is None else official(split), labels, problems)

    @staticmethod
    def _table(root: Path, files: list[File], stem: str, columns: tuple[str, ...], *spellings: dict[str, int]) -> Table | None:
        path = next((file.path for file in files if file.name.lower().startswith(f"{stem}.")), None)
        return read_table(root, path, columns, *spellings) if path else None


def _unmatched(table: Table, images: dict[str, str]) -> list[Problem]:
    absent = [
        Problem("missing", name, row, f"row {row} of {table.file} names it; there is no such image", "none")
        for name, row in table.where.items()
        if name not in images
    ]
    what = f"has no row in {table.file}"
    return absent + [Problem("mislabelled", path, None, what, "stop") for name, path in images.items() if name not in table.where]


def _by_number(names: list[str]) -> np.ndarray | None:
    stems = [name.partition(".")[0] for name in names]
    if not all(stem.isdigit() for stem in stems):
        return None
    return np.searchsorted([_FIRST_HELD_OUT, _FIRST_TEST], [int(s) for s in stems], side="right").astype(np.uint8)
