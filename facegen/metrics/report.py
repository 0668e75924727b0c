"""Numbers as a table on the terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 160


def table(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str:
    """A row for each number, a column for each of `names` that was measured."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="")
    grid.add_column("")
    for name in names:
        grid.add_column(name, justify="left")
    grid.add_column("protocol")
    for number in dict.fromkeys(number for record in records for number in record["metrics"]):
        entries = [record["metrics"].get(number, {}) for record in records]
        hashes = dict.fromkeys(entry["protocol_hash"] for entry in entries if entry)
        grid.add_row(number, *map(_cell, entries), " ".join(hashes))
        if any("infinity" in entry for entry in entries):
            grid.add_row("  at infinity", *(f"{entry['infinity']:.4g}" if "infinity" in entry else "" for entry in entries), "")
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, markup=False, highlight=False).print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _cell(entry: Mapping[str, Any]) -> str:
    if not entry:
        return ""
    cell = f"{entry['value']:.4g}"
    if "interval" in entry:
        low, high = entry["interval"]
        return f"{cell} ({low:.4g} to {high:.4g})"
    return f"{cell} ± {entry['deviation']:.2g}" if "deviation" in entry else cell
