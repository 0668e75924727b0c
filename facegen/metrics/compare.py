"""Compare two evaluations: python -m facegen.metrics.compare A.json B.json [--ignore FIELD]

Numbers that were measured by the same protocol are subtracted, with the 95% interval of the difference; otherwise the first field that
differs is told and the exit code is 1.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from facegen.cli import Parser, fail
from facegen.errors import UserError, nearest
from facegen.metrics.protocol import by_metric, fields, first_difference, load

Z_95 = 1.959963984540054  # of the normal distribution


def main(arguments: list[str]) -> int:
    """The exit code: 0 where numbers could be compared, 1 where protocols differ, 2 where a file cannot be read."""
    parser = Parser("python -m facegen.metrics.compare", __doc__, "A.json B.json")
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--ignore", action="append", default=[], metavar="FIELD", help="a field that may differ, such as generated.sampler")
    given = parser.parse_args(arguments)
    try:
        a, b = load(given.a), load(given.b)
        lines, alike = compared(a, b, frozenset(given.ignore))
    except UserError as error:
        return fail(*error.lines)
    print("\n".join(lines), file=sys.stdout if alike else sys.stderr)
    return 0 if alike else 1


def compared(a: dict[str, Any], b: dict[str, Any], ignored: frozenset[str] = frozenset()) -> tuple[list[str], bool]:
    """What to say of evaluations `a` and `b`, and whether every number of both could be compared.

    Raises UserError where they have no number in common.
    """
    of_a, of_b = by_metric(a), by_metric(b)
    both = [metric for metric in of_a if metric in of_b]
    if not both:
        have = " and ".join(", ".join(record["metrics"]) or "nothing" for record in (a, b))
        raise UserError(f"the two evaluations have no number in common: {have}; evaluate both with the same metrics= and n=")
    known = {field for record in (a, b) for metric in both for field in fields(record, metric)}
    if unknown := sorted(ignored - known):
        raise UserError(f"--ignore {unknown[0]}: no field of the protocols{nearest(unknown[0], known)}; type one that was told to differ")
    for metric in both:
        if difference := first_difference(a, b, metric, ignored):
            field = difference.partition(":")[0]
            return [f"{metric} was measured otherwise: {difference}; measure both alike, or type --ignore {field}"], False
    return [_line(*of_a[metric], *of_b[metric]) for metric in both], True


def _line(name: str, a: dict[str, Any], other: str, b: dict[str, Any]) -> str:
    difference = b["value"] - a["value"]
    names = name if name == other else f"{name} and {other}"
    line = f"{names}: {a['value']:.6g} to {b['value']:.6g}, a difference of {difference:+.6g}"
    if "deviation" not in a or "deviation" not in b:
        return f"{line} (no interval was measured)"
    reach = Z_95 * math.hypot(a["deviation"], b["deviation"])
    verdict = "clear of 0" if abs(difference) > reach else "not clear of 0"
    return f"{line}, 95% interval {difference - reach:+.6g} to {difference + reach:+.6g}: {verdict}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
