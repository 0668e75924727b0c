"""Numbers as a table on the terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 160


def table(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str:
    """A row for each number, a column for each of `names` that was measured."""
    grid = _grid("", *names, "protocol")
    for number in dict.fromkeys(number for record in records for number in record["metrics"]):
        entries = [record["metrics"].get(number, {}) for record in records]
        hashes = dict.fromkeys(entry["protocol_hash"] for entry in entries if entry)
        grid.add_row(number, *map(_cell, entries), " ".join(hashes))
        if any("infinity" in entry for entry in entries):
            grid.add_row("  at infinity", *(f"{entry['infinity']:.4g}" if "infinity" in entry else "" for entry in entries), "")
    return _text(grid)


def _cell(entry: Mapping[str, Any]) -> str:
    if not entry:
        return ""
    cell = f"{entry['value']:.4g}"
    if "interval" in entry:
        low, high = entry["interval"]
        return f"{cell} ({low:.4g} to {high:.4g})"
    return f"{cell} ± {entry['deviation']:.2g}" if entry.get("deviation") else cell


def _grid(*columns: str) -> Table:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="")
    for column in columns:
        grid.add_column(column)
    return grid


def _text(grid: Table) -> str:
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, markup=False, highlight=False).print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def scorecard_tables(name: str, entry: Mapping[str, Any]) -> str:
    """What a conditional model `name` was told and what was read, from the `entry` of its scorecard, as tables."""
    parts = [f"\n{name}: what the probe reads in real images ({entry['probe']['images']}), and in those that were told", _answers(entry)]
    guidance, blends = _grid("guidance", "hit rate", "diversity", "images"), _grid("blend", "rank correlation", "of single images")
    for point in entry["guidance"]:
        guidance.add_row(f"{point['guidance']:g}", _shown(point["hit_rate"]), _shown(point["diversity"]), f"{point['count']:,}")
    parts.append(_text(guidance))
    if entry.get("blends"):
        for way, one in entry["blends"]["ways"].items():
            blends.add_row(way, _shown(one["spearman"]), _shown(one["pooled"]))
        parts.append(_text(blends))
    if leak := entry.get("leakage"):
        largest = ", ".join(f"{one['asked']} changes {one['changes']} by {one['by']:+.2f}" for one in leak["largest"])
        parts.append(f"an attribute changes by {leak['mean_asked']:+.2f} when asked for, any other by {leak['mean_leak']:.3f}: {largest}")
    return "\n\n".join([*parts, *entry["notes"], ""])


def _answers(entry: Mapping[str, Any]) -> str:
    """A row for each class and attribute: the probe's right answers in real images beside those in drawn ones."""
    grid = _grid("", "real", "drawn", "found", "not found", "told", "distance")
    real, hits = entry["probe"], entry["hits"]
    for group, one in hits["groups"].items():
        grid.add_row(group, _shown(real["groups"][group]["accuracy"]), _shown(one["accuracy"]), "", "", str(one["count"]), "")
        for name, told in one["classes"].items():
            distance = entry["distances"][group][name]["distance"]
            seen = _shown(real["groups"][group]["classes"][name]["hit"])
            grid.add_row(f"  {name}", seen, _shown(told["hit"]), "", "", str(told["count"]), _shown(distance, ".3g"))
    for name, one in hits["attributes"].items():
        few = f" (rare: {entry['rare'][name]['share']:.1%})" if name in entry["rare"] else ""
        sides = _shown(one["balanced"]), _shown(one["found"]), _shown(one["not_found"])
        grid.add_row(f"{name}{few}", _shown(real["attributes"][name]["balanced"]), *sides, f"{one['told']}, {one['not_told']}", "")
    grid.add_row("mean", _shown(real["value"]), _shown(entry["value"]), "", "", str(hits["count"]), "")
    return _text(grid)


def _shown(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def edit_tables(name: str, entry: Mapping[str, Any]) -> str:
    """What became of photographs that a model `name` edited, from the `entry` of its scorecard, as tables."""
    ages = _grid("age", "right", "within one group", "years off", "images")
    others = _grid("beside the age", "kept", "gained", "lost", *(["right", "read right in true pictures"] if entry.get("true") else []))
    true = entry.get("true")
    rows = {"photographs, as they are": entry["probe"], "not edited": entry["unedited"], "edited": entry["age"]}
    for label, one in {**rows, **({"true pictures": true["read"]} if true else {})}.items():
        if one:
            ages.add_row(label, _shown(one["right"]), _shown(one["near"]), _shown(one["years"], ".1f"), f"{one['count']:,}")
    for one, row in entry["drift"]["names"].items():
        known = [row.get("right"), true["drift"]["names"][one].get("right")] if true else []
        others.add_row(one, *(_shown(value) for value in (row["kept"], row["gained"], row["lost"], *known)))
    others.add_row("mean", _shown(entry["drift"]["mean_kept"]))
    parts = [f"\n{name}: ages as the probe reads them", _text(ages), "\n".join(_edited(entry)), _text(others)]
    curve = [_curve(entry["guidance"])] if entry["guidance"] else []
    return "\n\n".join([*parts, *curve, *entry["notes"], ""])


def _edited(entry: Mapping[str, Any]) -> list[str]:
    like, outside, eyes, true = entry["identity"], entry["outside"], entry["eyes"], entry.get("true")
    lines = [
        f"identity: cosine {_shown(like['cosine'])}, of two people {_shown(like['strangers'])}; found among all {_shown(like['found'])}",
        f"outside the face: PSNR {outside['psnr']:.1f} dB" + (f", LPIPS {outside['lpips']:.3f}" if "lpips" in outside else ""),
        f"eyes: sharpness x {eyes['ratio']:.2f}; {eyes['lost']:.0%} lost half of it",
    ]
    if true:
        exact = f"PSNR {true['psnr']:.2f} dB (not edited {true['psnr_unedited']:.2f})"
        nearest = f"nearest to the age asked for {true['nearest_right']:.0%}, within one group {true['nearest_near']:.0%}"
        lines.append(f"to the true picture at that age: {exact}; {nearest}")
        lines.append(f"true pictures: cosine {_shown(like['same_person'])}; found among all {_shown(like['same_person_found'])}")
    return lines


def _curve(points: Sequence[Mapping[str, Any]]) -> str:
    grid = _grid("guidance", "image guidance", "right", "years off", "cosine", "found", "")
    for point in points:
        weights = (f"{point['guidance']:g}", f"{point['image_guidance']:g}")
        numbers = (_shown(point["right"]), _shown(point["years"], ".1f"), _shown(point["cosine"]), _shown(point["found"]))
        grid.add_row(*weights, *numbers, "best" if point["best"] else "")
    return _text(grid)
