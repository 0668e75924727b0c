"""CelebA's tables of whole numbers, as first published (spaces, CRLF, trailing blanks) or as Kaggle's csv."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facegen.data.records import IMAGE_SUFFIXES, Problem
from facegen.errors import UserError


@dataclass
class Table:
    """For each image name its values (K,) uint8, or None where its row cannot be trusted; `where` has its row number."""

    rows: dict[str, np.ndarray | None] = field(default_factory=dict)
    where: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_table(root: Path, file: str, columns: tuple[str, ...], values: dict[str, int]) -> Table:
    """The table `root/file` with `columns` in the order asked for and each entry one of `values`.

    Raises UserError where a header lacks a column: every label would be another's.
    """
    table, order, announced = Table(), list(range(len(columns))), None
    lines = (root / file).read_text(encoding="utf-8-sig", errors="replace").replace(",", " ").splitlines()
    for row, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if fields[0].lower().endswith(IMAGE_SUFFIXES):
            _add(table, file, row, fields, order, values)
        elif len(fields) == 1 and fields[0].isdigit():
            announced = int(fields[0])
        else:
            order = _order([name for name in fields if name != "image_id"], columns, root / file)
    if announced not in (None, len(table.where)):
        what = f"line 1 announces {announced} rows; there are {len(table.where)}"
        table.problems.append(Problem("mislabelled", file, 1, what, "none"))
    return table


def _order(header: list[str], columns: tuple[str, ...], path: Path) -> list[int]:
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise UserError(f"{path} has no column {lacking[0]}; its header must name {', '.join(columns)}")
    return [header.index(name) for name in columns]


def _add(table: Table, file: str, row: int, fields: list[str], order: list[int], values: dict[str, int]) -> None:
    name, entries = fields[0], fields[1:]
    wrong = next((entry for entry in entries if entry not in values), None)
    new: np.ndarray | None = None
    if wrong is not None:
        table.problems.append(Problem("mislabelled", file, row, f"{name}: {wrong} is none of {', '.join(values)}"))
    elif len(entries) != len(order):
        what = f"{name}: {len(entries)} values, not {len(order)}"
        table.problems.append(Problem("mislabelled", file, row, what))
    else:
        new = np.array([values[entries[i]] for i in order], dtype=np.uint8)
    if name in table.rows:
        old = table.rows[name]
        same = old is not None and new is not None and bool((old == new).all())
        what = f"{name} has a row already, {'the same' if same else 'with other values'}, at line {table.where[name]}"
        table.problems.append(Problem("mislabelled", file, row, what, "none" if same else "stop"))
        new = new if same else None
    else:
        table.where[name] = row
    table.rows[name] = new
