"""What is wrong with a data set on disk.

    python -m facegen.data.doctor data=celeba64 data.root=FOLDER [data.crop=...] [data.resolution=...] [report=problems.csv]

Exit code 0: nothing; 1: there are problems; 2: the command itself cannot be carried out.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from facegen.data.cache import write_problems
from facegen.data.decode import Picture
from facegen.data.pack import pack
from facegen.data.readers import READERS
from facegen.data.records import Problem, Reader
from facegen.errors import UserError, nearest

CONF = Path(__file__).parents[2] / "conf" / "data"
_PICTURE = ("resolution", "channels", "crop")
_EXAMPLES = 3


@dataclass
class Report:
    """How many images of a data set are usable, and everything that is wrong."""

    usable: int
    problems: list[Problem]


def examine(reader: Reader, root: str | None) -> Report:
    """Reads every label and decodes every image at `root`; raises UserError where there is no data set."""
    folder, files = reader.listed(root)
    records = reader.records(folder, files)
    outcome = pack(folder, records.paths, reader.picture)
    first: dict[bytes, str] = {}
    copies = []
    for path, digest, good in zip(records.paths, map(bytes, outcome.digests), outcome.good, strict=True):
        if good and first.setdefault(digest, path) != path:
            copies.append(Problem("duplicated", path, None, f"the same bytes as {first[digest]}", "none"))
    return Report(int(outcome.good.sum()), [*records.problems, *outcome.problems, *copies])


def main(arguments: list[str]) -> int:
    """Carries out the command line; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        options = _options(arguments)
        report = examine(_reader(options), options.get("data.root"))
        if "report" in options:
            _write(options["report"], report.problems)
    except UserError as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        return 2
    _show(report)
    return 1 if report.problems else 0


def _options(arguments: list[str]) -> dict[str, str]:
    allowed = ("data", "data.root", *(f"data.{key}" for key in _PICTURE), "report")
    options = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in allowed or not equals:
            raise UserError(f"{argument} is not understood; allowed: {'=, '.join(allowed)}={nearest(key, allowed)}")
        options[key] = value
    return options


def _reader(options: dict[str, str]) -> Reader:
    nodes = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(CONF.glob("*.yaml"))}
    targets = {name: str(node.get("_target_")).rpartition(".")[2] for name, node in nodes.items()}
    names = [name for name, target in targets.items() if target in READERS]
    name = options.get("data")
    if name not in names:
        raise UserError(f"data must be one of {', '.join(names)}; got {name}{nearest(str(name), names)}; type data={names[0]}")
    given = {key: yaml.safe_load(options[f"data.{key}"]) for key in _PICTURE if f"data.{key}" in options}
    picture = {key: nodes[name][key] for key in _PICTURE if key in nodes[name]} | given
    _check(picture)
    return READERS[targets[name]](Picture(**picture))


def _check(picture: dict[str, Any]) -> None:
    if not isinstance(picture["resolution"], int) or picture["resolution"] < 1:
        raise UserError(f"data.resolution must be a positive int; got {picture['resolution']}; type data.resolution=64")
    if picture["channels"] not in (1, 3):
        raise UserError(f"data.channels must be 1 or 3; got {picture['channels']}; type data.channels=3")


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
    Console().print(table if report.problems else f"{report.usable} images can be used; nothing is wrong")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
