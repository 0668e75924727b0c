"""UTKFace (Zhang et al. 2017), aligned and cropped: labels in the file names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from facegen.ages import AGE_GROUPS, FIRST_AGES, OLDEST
from facegen.data.records import File, Problem, Reader, Records, is_image, list_files

RACES = ("White", "Black", "Asian", "Indian", "Others")
_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_.+")


class UTKFaceReader(Reader):
    """`age_gender_race_time.jpg.chip.jpg`, gender 0 male and 1 female: CelebA's Male, ten age groups and five races, 0/1.

    A few names of the release are incomplete: those images are left out and listed.
    """

    name = "utkface"
    layout = "25_0_1_20170113151453490.jpg.chip.jpg ... (age_gender_race_time)"
    condition_names = ("Male", *AGE_GROUPS, *RACES)
    condition_groups: ClassVar[dict[str, tuple[str, ...]]] = {"age": AGE_GROUPS, "race": RACES}

    def files(self, root: Path) -> list[File]:
        """All images."""
        return [file for file in list_files(root) if is_image(file)]

    def records(self, root: Path, files: list[File]) -> Records:
        """The images with a complete name."""
        matches = {file.path: _NAME.fullmatch(file.name) for file in files}
        people = {path: tuple(map(int, m.groups())) for path, m in matches.items() if m and int(m[1]) <= OLDEST}
        problems = [
            Problem("mislabelled", path, None, "the name is not age_gender_race_time", "left out") for path in matches if path not in people
        ]
        age, gender, race = np.array(list(people.values()), dtype=int).reshape(-1, 3).T
        group = np.searchsorted(FIRST_AGES, age, side="right") - 1
        columns = (gender[:, None] == 0, np.eye(len(AGE_GROUPS))[group], np.eye(len(RACES))[race])
        return Records(list(people), None, np.concatenate(columns, axis=1).astype(np.float32), problems)
