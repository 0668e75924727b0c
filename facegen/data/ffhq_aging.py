"""FFHQ-Aging (Or-El et al. 2020): FFHQ's images with gender, glasses and age group from the table that was published for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from facegen.ages import AGE_GROUPS
from facegen.data.decode import Picture
from facegen.data.ffhq import FFHQReader, by_number, official_split
from facegen.data.records import File, Problem, Records, is_image, list_files
from facegen.data.table import column_order
from facegen.errors import UserError

LABELS = "ffhq_aging_labels.csv"
_MASKS = "parsings"  # folders of segmentations under the numbers of the images, where the authors' scripts were run
_MISSING = ("", "-1")
_NUMBER = "image_number"
_WORDS = {"age_group": AGE_GROUPS, "gender": ("male", "female"), "glasses": ("None", "Normal", "Dark")}
_MEASURES = ("age_group_confidence", "gender_confidence", "head_pitch", "head_yaw", "left_eye_occluded", "right_eye_occluded")
_COLUMNS = (_NUMBER, *_WORDS, *_MEASURES)

_Row = Mapping[str, str]  # its entries by column


@dataclass(frozen=True)
class Pruning:
    """What the authors of the table did not train on (create_dataset.py of their Lifespan Age Transformation Synthesis).

    Args:
        age_confidence, gender_confidence: labels that are not surer than this, in [0, 1].
        pitch, yaw: heads turned so many degrees to either side.
        both_eyes, one_eye: from how much on, of 100, both eyes are hidden too far, or one of them.
        dark_glasses: whether people who wear them stay.
    """

    age_confidence: float = 0.6
    gender_confidence: float = 0.66
    pitch: float = 30
    yaw: float = 40
    both_eyes: float = 50
    one_eye: float = 90
    dark_glasses: bool = False

    def why(self, row: _Row) -> str | None:
        """Why a row is left out, None where it is not; what was not measured hides nothing."""
        measure = {column: _number(row[column]) for column in _MEASURES}
        for column, least in {"age_group_confidence": self.age_confidence, "gender_confidence": self.gender_confidence}.items():
            if measure[column] <= least:
                return f"{column} {measure[column]:g} is not above {least:g}"
        for column, most in {"head_pitch": self.pitch, "head_yaw": self.yaw}.items():
            if abs(measure[column]) >= most:
                return f"{column} {measure[column]:g} is not within {most:g} degrees"
        eyes = measure["left_eye_occluded"], measure["right_eye_occluded"]
        if min(eyes) >= self.both_eyes or max(eyes) >= self.one_eye:
            return f"the eyes are hidden, {eyes[0]:g} and {eyes[1]:g} of 100"
        return "dark glasses" if row["glasses"] == "Dark" and not self.dark_glasses else None


USUAL = Pruning()


@dataclass
class _Table:
    """For each image number its row, or None where that cannot be trusted; `where` has its line, from 1."""

    rows: dict[int, _Row | None] = field(default_factory=dict)
    where: dict[int, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def tell(self, line: int, what: str, harmless: bool = False) -> None:
        self.problems.append(Problem("mislabelled", LABELS, line, what, "none" if harmless else "stop"))


class FFHQAgingReader(FFHQReader):
    """FFHQ's images, as `FFHQReader` finds them, with CelebA's Male and Eyeglasses and ten age groups, 0/1.

    An image without an age group is in none; one without a gender or glasses is left out. `prune` leaves out as well what `pruning` says.
    """

    name = "ffhq_aging"
    layout = f"{LABELS} beside {FFHQReader.layout}"
    condition_names = ("Male", "Eyeglasses", *AGE_GROUPS)
    condition_groups: ClassVar[dict[str, tuple[str, ...]]] = {"age": AGE_GROUPS}
    label_file = LABELS
    switches = ("prune",)

    def __init__(self, picture: Picture, prune: bool = True, pruning: Pruning = USUAL) -> None:
        super().__init__(picture)
        self.prune, self.pruning = prune, pruning

    @property
    def settings(self) -> tuple[object, ...]:
        """The thresholds of what is left out, where they are not the authors'."""
        return () if self.pruning == USUAL or not self.prune else (self.pruning,)

    def located(self, root: str | Path | None) -> Path:
        """The folder `root`; raises UserError where there is none, or no table of labels in it."""
        folder = super().located(root)
        if not (folder / LABELS).is_file():
            what = f"has no {LABELS}; it must hold {self.layout}"
            raise UserError(f"data.root={root} {what}; put it there, type data.root=FOLDER, or data=ffhq128 for images without labels")
        return folder

    def files(self, root: Path) -> list[File]:
        """The images of one size, and the table."""
        images = [file for file in super().files(root) if _MASKS not in file.path.split("/")]
        return images + [file for file in list_files(root, deep=False) if file.path == LABELS]

    def records(self, root: Path, files: list[File]) -> Records:
        """The numbered images with a good row that says what they are and is not pruned."""
        images, problems = by_number(filter(is_image, files))
        table = _read(root / LABELS)
        absent = [
            Problem("missing", f"{number:05d}.png", line, f"line {line} of {LABELS} names it; there is no such image", "none")
            for number, line in table.where.items()
            if number not in images
        ]
        faults = {number: _fault(number, path, table, self.pruning if self.prune else None) for number, path in images.items()}
        kept = {number: row for number in images if faults[number] is None and (row := table.rows[number]) is not None}
        problems += [*table.problems, *absent, *filter(None, faults.values())]
        labels = np.array([_labels(row) for row in kept.values()], np.float32).reshape(-1, len(self.condition_names))
        return Records([images[number] for number in kept], official_split(kept), labels, problems)


def _labels(row: _Row) -> list[bool]:
    return [row["gender"] == "male", row["glasses"] != "None", *(row["age_group"] == group for group in AGE_GROUPS)]


def _fault(number: int, path: str, table: _Table, pruning: Pruning | None) -> Problem | None:
    """Why the image is left out, None where it is not, or where its row cannot be trusted, which is told already."""
    if number not in table.where:
        return Problem("mislabelled", path, None, f"has no row in {LABELS}")
    row, place = table.rows[number], f"line {table.where[number]} of {LABELS}"
    if row is None:
        return None
    if pruning and (what := pruning.why(row)):
        return Problem("pruned", path, None, f"{place}: {what}", "left out")
    if unknown := next((column for column in ("gender", "glasses") if row[column] in _MISSING), None):
        return Problem("mislabelled", path, None, f"{place} gives no {unknown}", "left out")
    return None


def _read(path: Path) -> _Table:
    """The table at `path`; raises UserError where a header lacks a column or has it twice, and where there is no row."""
    text = path.read_text(encoding="utf-8-sig", errors="replace").replace('"', "")
    lines = [(line, [entry.strip() for entry in row.split(",")]) for line, row in enumerate(text.splitlines(), 1) if row.strip(" ,")]
    if len(lines) < 2:
        raise UserError(f"data.root: the table {path} is empty, no row of it is of an image; put the whole table there")
    (line, header), table = lines[0], _Table()
    places = dict(zip(_COLUMNS, column_order(header, _COLUMNS, f"{path}:{line}"), strict=True))
    for line, entries in lines[1:]:
        row = {column: entries[place] for column, place in places.items() if place < len(entries)}
        wrong = _wrong(row) if len(entries) == len(header) else f"{len(entries)} values, not {len(header)}"
        _add(table, line, row.get(_NUMBER, ""), row, wrong)
    return table


def _add(table: _Table, line: int, name: str, row: _Row, wrong: str | None) -> None:
    if wrong:
        table.tell(line, f"{name}: {wrong}")
    if not _is_number(name):
        return
    number, new = int(name), None if wrong else row
    if number in table.rows:
        old = table.rows[number]
        same = old is not None and new is not None and _meaning(old) == _meaning(new)
        what = f"{name} has a row already, {'the same' if same else 'with other values'}, at line {table.where[number]}"
        table.tell(line, what, harmless=same)
        new = new if same else None
    else:
        table.where[number] = line
    table.rows[number] = new


def _wrong(row: _Row) -> str | None:
    """What is wrong with the entries of a row."""
    if not _is_number(row[_NUMBER]):
        return f"{_NUMBER} is no number"
    for column, words in _WORDS.items():
        if row[column] not in (*words, *_MISSING):
            return f"{column} {row[column]} is none of {', '.join(words)}, and not -1"
    return next((f"{column} {row[column]} is no number" for column in _MEASURES if not math.isfinite(_number(row[column]))), None)


def _is_number(name: str) -> bool:
    return name.isdecimal() and len(name) < 10


def _meaning(row: _Row) -> list[str | float]:
    return [*("" if row[column] in _MISSING else row[column] for column in _WORDS), *(_number(row[column]) for column in _MEASURES)]


def _number(entry: str) -> float:
    """The entry as a number, -1 where it is missing, NaN where it is none."""
    try:
        return float(entry or -1)
    except ValueError:
        return math.nan
