"""CelebA's tables of whole numbers, as first published (spaces, CRLF, trailing blanks) or as csv, quoted or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facegen.data.records import IMAGE_SUFFIXES, Problem
from facegen.errors import UserError, nearest


@dataclass
class Table:
    """For each image name its values (K,) uint8, or None where its row cannot be trusted; `where` has its row number."""

    file: str
    rows: dict[str, np.ndarray | None] = field(default_factory=dict)
    where: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Form(NamedTuple):
    """How many values a row has, which of them are asked for, in order, and what their entries mean."""

    width: int
    order: list[int]
    values: Mapping[str, int]


_Row = tuple[int, list[str]]  # its number, from 1, and its fields


def read_table(root: Path, file: str, columns: tuple[str, ...], *spellings: Mapping[str, int]) -> Table:
    """The table `root/file` with `columns` in the order asked for and each entry spelled in one way, that of most of its entries.

    Raises UserError where a header lacks a column or has it twice (every label would be another's), and where there is no row.
    """
    table, width, order, path = Table(file), len(columns), list(range(len(columns))), root / file
    rows, headers, announced = _parsed(path)
    usual = max(Counter(len(fields) for _, fields in rows).items(), key=lambda item: item[1], default=(0, 0))[0]
    for row, fields in headers:
        header = _without_images(fields, columns, usual)
        width, order = len(header), column_order(header, columns, f"{path}:{row}")
    if not rows:
        raise UserError(f"data.root: the table {path} is empty, no row of it names an image; put the whole table there, or remove it")
    values = max(spellings, key=lambda spelling: sum(fields.count(entry) for _, fields in rows for entry in spelling))
    for row, fields in rows:
        _add(table, row, fields, _Form(width, order, values), spellings)
    if announced not in (None, len(table.where)):
        what = f"line 1 announces {announced} rows; there are {len(table.where)}"
        table.problems.append(Problem("mislabelled", file, 1, what, "none"))
    return table


def _parsed(path: Path) -> tuple[list[_Row], list[_Row], int | None]:
    """The rows of a table that begin with the name of an image, those that do not, and how many images it announces."""
    rows: list[_Row] = []
    headers: list[_Row] = []
    announced = None
    lines = path.read_text(encoding="utf-8-sig", errors="replace").replace(",", " ").replace('"', "").splitlines()
    for row, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if fields[0].lower().endswith(IMAGE_SUFFIXES):
            rows.append((row, fields))
        elif len(fields) == 1 and fields[0].isdigit():
            announced = int(fields[0])
        else:
            headers.append((row, fields))
    return rows, headers, announced


def _without_images(header: list[str], columns: tuple[str, ...], usual: int) -> list[str]:
    """The names of the values: a header of as many names as the rows have fields (`usual`) names the column of the images too."""
    if "image_id" in header:
        return [name for name in header if name != "image_id"]
    of_images = next((i for i, name in enumerate(header) if name not in columns), None) if len(header) == usual else None
    return [name for i, name in enumerate(header) if i != of_images]


def column_order(header: list[str], columns: tuple[str, ...], where: str) -> list[int]:
    """The place of each of `columns` in the header that stands at `where`; raises UserError where it lacks one or has one twice."""
    lacking = next((name for name in columns if name not in header), None)
    if lacking:
        near = nearest(lacking, [name for name in header if name not in columns])
        raise UserError(f"{where} has no column {lacking}{near}; mend the header, which must name {', '.join(columns)}")
    if twice := next((name for name in columns if header.count(name) > 1), None):
        raise UserError(f"{where} names the column {twice} twice; mend the header, which must name it once")
    return [header.index(name) for name in columns]


def _add(table: Table, row: int, fields: list[str], form: _Form, spellings: Sequence[Mapping[str, int]]) -> None:
    name, entries = fields[0], fields[1:]
    wrong = next((entry for entry in entries if entry not in form.values), None)
    new: np.ndarray | None = None
    if wrong is not None:
        allowed = ", ".join(form.values)
        mixed = any(wrong in spelling for spelling in spellings)
        what = f"is in a table of {allowed}; write all of it with {allowed}" if mixed else f"is none of {allowed}"
        table.problems.append(Problem("mislabelled", table.file, row, f"{name}: {wrong} {what}"))
    elif len(entries) != form.width:
        what = f"{name}: {len(entries)} values, not {form.width}"
        table.problems.append(Problem("mislabelled", table.file, row, what))
    else:
        new = np.array([form.values[entries[i]] for i in form.order], dtype=np.uint8)
    if name in table.rows:
        old = table.rows[name]
        same = old is not None and new is not None and bool((old == new).all())
        what = f"{name} has a row already, {'the same' if same else 'with other values'}, at line {table.where[name]}"
        table.problems.append(Problem("mislabelled", table.file, row, what, "none" if same else "stop"))
        new = new if same else None
    else:
        table.where[name] = row
    table.rows[name] = new
