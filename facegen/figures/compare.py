"""Runs beside each other, and a run beside its earlier self: a row for each, the same seeds in every column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facegen import images
from facegen.errors import UserError

COLUMNS = 10


def previews(run_dir: Path) -> dict[int, Path]:
    """The kept previews of a run by their step, earliest first."""
    found = Path(run_dir, "previews").glob("step-*.png")
    return dict(sorted((int(path.stem.removeprefix("step-")), path) for path in found))


def save_rows(rows: Sequence[tuple[str, np.ndarray]], path: Path, facts: dict[str, str]) -> Path:
    """Writes one row for each label and its images (N,C,H,W) uint8: as many columns as every row can fill, at most `COLUMNS`.

    Raises UserError where the images differ in size.
    """
    shapes = {tiles.shape[1:] for _, tiles in rows}
    if len(shapes) > 1:
        raise UserError(f"only images of one size can be compared; got {', '.join(map(str, sorted(shapes)))} (channels, height, width)")
    columns = min(COLUMNS, *(len(tiles) for _, tiles in rows))
    tiles = np.concatenate([tiles[:columns] for _, tiles in rows])
    images.save_grid(tiles, path, facts, columns=columns, row_labels=[label for label, _ in rows])
    return path


def compare_runs(runs: Sequence[tuple[str, Path]], path: Path) -> Path:
    """Writes a row with the newest preview of each run, given as (label, run directory), and returns `path`.

    A comma parts the lines of a label. Runs without previews are left out. Raises UserError where none has any, or their images
    differ in size.
    """
    newest = [(label, list(previews(run_dir).values())[-1:]) for label, run_dir in runs]
    rows = [(label.replace(", ", "\n"), images.split_grid(found[0])) for label, found in newest if found]
    if not rows:
        raise UserError(f"none of {len(runs)} runs has previews to compare: train them with preview.count=16")
    return save_rows(rows, path, {"runs": ", ".join(str(run_dir) for _, run_dir in runs)})
