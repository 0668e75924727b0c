"""What is wrong with a data set on disk.

    python -m facegen.data.doctor data=celeba64 data.root=FOLDER [data.crop=...] [data.resolution=...] [report=problems.csv]

Exit code 0: nothing; 1: there are problems; 2: the command itself cannot be carried out. What data=ffhq_aging leaves out on purpose
(data.prune) is listed too, as pruned, and is no problem.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from facegen.data import mnist
from facegen.data.cache import write_problems
from facegen.data.columns import Columns
from facegen.data.decode import MAX_PIXELS, Picture
from facegen.data.in_memory import check_side
from facegen.data.pack import Outcome, pack
from facegen.data.readers import READERS
from facegen.data.records import Problem, Reader, Records
from facegen.errors import UserError, nearest

CONF = Path(__file__).parents[2] / "conf" / "data"
_PICTURE = ("resolution", "channels", "crop")
_SWITCHES = sorted({name for reader in READERS.values() for name in reader.switches})
_EXAMPLES = 3
NO_FILES = {"Cartoon": "drawn", "Digits": "part of scikit-learn"}
_OF_TRAINING = [  # options of train.py that change nothing here, so that its command may be typed with them
    f"data.{key}"
    for key in ("batch_size", "num_workers", "flip", "val_fraction", "on_bad", "cache_dir", "limit", "seed", "attributes", "balance")
]
_MOST = math.isqrt(MAX_PIXELS)  # pixels to a side: no larger picture is read


@dataclass
class Report:
    """How many images of a data set are usable, and everything that is wrong."""

    usable: int
    problems: list[Problem]


Examination = Callable[[str | None], Report]  # of a folder, or of none given


def examine(reader: Reader, root: str | None) -> Report:
    """Reads every label and decodes every image at `root`; raises UserError where there is no data set."""
    folder, files = reader.listed(root)
    records = reader.records(folder, files)
    outcome = pack(folder, records.paths, reader.picture)
    return Report(int(outcome.good.sum()), [*records.problems, *outcome.problems, *_copies(reader, records, outcome)])


def _copies(reader: Reader, records: Records, outcome: Outcome) -> Iterator[Problem]:
    """The images of which another has the bytes: one of the two is in the wrong class where their classes differ."""
    columns = records.columns or Columns(reader.condition_names, reader.condition_groups)
    grouped = np.isin(columns.names, [name for members in columns.groups.values() for name in members])
    first: dict[bytes, int] = {}
    for row, path in enumerate(records.paths):
        if not outcome.good[row] or (other := first.setdefault(outcome.digests[row].tobytes(), row)) == row:
            continue
        unlike = records.labels is not None and (records.labels[row] != records.labels[other])[grouped].any()
        kind, where = ("mislabelled", ", which is of another class") if unlike else ("duplicated", "")
        yield Problem(kind, path, None, f"the same bytes as {records.paths[other]}{where}", "none")


def examine_mnist(root: str | None) -> Report:
    """Reads MNIST's files at `root` whole; raises UserError where they are not there."""
    report = Report(0, [])
    for pair in mnist.find(root):
        try:
            report.usable += len(mnist.read_pair(*pair)[0])
        except mnist.BadIdx as error:
            report.problems.append(error.problem)
    return report


def main(arguments: list[str]) -> int:
    """Carries out the command line; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        options = _options(arguments)
        examination, root = _examination(options), options.get("data.root") or None
        if "report" in options:
            _check_report(Path(options["report"]))
        report = _examined(examination, root)
        if "report" in options:
            _write(options["report"], report.problems)
    except UserError as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        return 2
    _show(report)
    return 1 if any(problem.kind != "pruned" for problem in report.problems) else 0


def _options(arguments: list[str]) -> dict[str, str]:
    allowed = ("data", "data.root", *(f"data.{key}" for key in (*_PICTURE, *_SWITCHES)), "report")
    arguments = [argument for argument in arguments if argument.partition("=")[0] not in _OF_TRAINING]
    options = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in allowed or not equals:
            raise UserError(f"{argument} is not understood; allowed: {'=, '.join(allowed)}={nearest(key, allowed)}")
        options[key] = value
    return options


def _examination(options: dict[str, str]) -> Examination:
    nodes = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(CONF.glob("*.yaml"))}
    targets = {name: str(node.get("_target_")).rpartition(".")[2] for name, node in nodes.items()}
    names = [name for name, target in targets.items() if target not in NO_FILES]
    name = options.get("data")
    if name not in names:
        reason = f", which is {NO_FILES[targets[name]]}: nothing of it can be wrong" if name in targets else nearest(str(name), names)
        raise UserError(f"data must be one of {', '.join(names)}; got {name}{reason}; type data={names[0]}")
    given = {key: options[f"data.{key}"] for key in _PICTURE if f"data.{key}" in options}
    picture = {key: nodes[name][key] for key in _PICTURE if key in nodes[name]} | given
    checked, reader = _checked(picture), READERS.get(targets[name])
    switches = _switched(options, name, () if reader is None else reader.switches)
    if reader is None:  # MNIST, the only other data with files
        check_side(checked["resolution"], mnist.SIDE)
        return examine_mnist
    return partial(examine, reader(Picture(**checked), **switches))


def _switched(options: dict[str, str], name: str, known: tuple[str, ...]) -> dict[str, bool]:
    """The switches that are typed, of those `known` to the reader of data=`name`."""
    typed = {key: options[f"data.{key}"] for key in _SWITCHES if f"data.{key}" in options}
    for key, value in typed.items():
        if key not in known:
            raise UserError(f"data.{key} is no option of data={name}; leave it out")
        if value.lower() not in ("true", "false"):
            raise UserError(f"data.{key} must be true or false; got {value}; type data.{key}=false")
    return {key: value.lower() == "true" for key, value in typed.items()}


def _checked(picture: dict[str, Any]) -> dict[str, Any]:
    """The values as numbers: what is typed is read as plain text, not as YAML, so that none of it can be damaged."""
    resolution, channels = str(picture["resolution"]), str(picture["channels"])
    if not re.fullmatch(r"[1-9]\d{0,4}", resolution, re.ASCII) or int(resolution) > _MOST:
        raise UserError(f"data.resolution must be a positive int, at most {_MOST}; got {resolution}; type data.resolution=64")
    if channels not in ("1", "3"):
        raise UserError(f"data.channels must be 1 or 3; got {channels}; type data.channels=3")
    return {**picture, "resolution": int(resolution), "channels": int(channels)}


def _examined(examination: Examination, root: str | None) -> Report:
    try:
        return examination(root)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else root
        raise UserError(f"data.root={root} cannot be read: {error.strerror} ({where}); type data.root=FOLDER") from error


def _check_report(path: Path) -> None:
    """Tell before every image is decoded what can be told then."""
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"report={path} cannot be written: there is no folder {folder}; make it, or type report=FILE.csv")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise UserError(f"report={path} cannot be written: it is {'a folder' if path.is_dir() else 'read-only'}; type report=FILE.csv")


def _write(path: str, problems: list[Problem]) -> None:
    try:
        write_problems(path, problems)
    except OSError as error:
        raise UserError(f"report={path} cannot be written: {error.strerror}; type report=FILE.csv") from error


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("problem", "count", "first examples", title=f"{report.usable} images can be used", title_justify="left")
    for kind, count in Counter(problem.kind for problem in report.problems).items():
        some = [problem for problem in report.problems if problem.kind == kind][:_EXAMPLES]
        lines = [f"{p.file}{'' if p.row is None else f':{p.row}'}: {p.what}" for p in some]
        table.add_row(kind, f"{count:,}", escape("\n".join(lines)))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be no text in any encoding
    Console().print(table if report.problems else f"{report.usable} images can be used; nothing is wrong")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
