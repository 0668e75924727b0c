"""The scorecard of a conditional model as figures: what is taken for what, what leaks, and what guidance and blends do."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facegen.images import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.2  # inches of a cell that has no number in it
NUMBERED, CELL_NUMBERED = 12, 0.42  # so many columns at most have numbers in their cells, which are larger
FAINT = 0.1  # a change that has the deepest colour at least: noise is pale
NOTHING = ("0.00", "-0.00")  # is not printed: what there is stands out
FONT, LETTER, TITLE_LETTER = 7, 0.065, 0.075  # points; inches of a letter of that size, and of a title
TITLE, BAR = 0.35, 0.8  # inches above a matrix, and beside it
PANEL = 3.4  # inches of a panel with curves
WAYS = {"embedding": "embeddings mixed", "prediction": "predictions mixed", "switch": "taking turns"}


def save_scorecard(entry: Mapping[str, Any], folder: Path, stem: str) -> list[Path]:
    """Draws the `entry` of a scorecard as FOLDER/STEM-condition.png and FOLDER/STEM-condition-curves.png; returns their paths."""
    return [
        saved(_heat_maps(entry), folder / f"{stem}-condition.png"),
        saved(_curves(entry), folder / f"{stem}-condition-curves.png"),
    ]


def saved(figure: Figure, path: Path) -> Path:
    """Writes a figure as the PNG `path`, and returns that."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_whole(path, buffer.getvalue())
    return path


@dataclass(frozen=True)
class HeatMap:
    """A matrix (R,C) of `values` with names on both axes; its colours reach from -`limit` to `limit`."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    limit: float
    bar: bool = False

    @property
    def numbered(self) -> bool:
        """Whether there is room for a number in each cell."""
        return len(self.columns) <= NUMBERED

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the cells in inches."""
        cell = CELL_NUMBERED if self.numbered else CELL
        return len(self.columns) * cell, len(self.rows) * cell

    @property
    def labels(self) -> tuple[float, float]:
        """Width of the names on the left and height of those below, in inches."""
        return LETTER * max(map(len, self.rows)) + 0.2, LETTER * max(map(len, self.columns)) + 0.2

    @property
    def outer(self) -> tuple[float, float]:
        """Width and height with names, title and bar in inches."""
        width = max(self.size[0] + BAR * self.bar, TITLE_LETTER * len(self.title))
        return self.labels[0] + width + 0.2, self.labels[1] + self.size[1] + TITLE


def _heat_maps(entry: Mapping[str, Any]) -> Figure:
    """A row with the confusion of each group, and below it what leaks; every cell has its size, whatever the number of names."""
    from matplotlib.figure import Figure

    leak = entry.get("leakage")
    maps = [HeatMap(f"{group}: told (rows), read (columns)", *_confusion(one), 1.0) for group, one in entry["hits"]["groups"].items()]
    bands = [maps] if maps else []
    if leak:
        matrix, title = np.asarray(leak["matrix"]), "change of what is read (columns) when an attribute (row) goes from 0 to 1"
        bands.append([HeatMap(title, leak["rows"], leak["columns"], matrix, max(FAINT, float(np.abs(matrix).max())), bar=True)])
    heights = [max(one.outer[1] for one in band) for band in bands]
    width, height = max(sum(one.outer[0] for one in band) for band in bands), sum(heights)
    figure, top = Figure(figsize=(width, height), dpi=150), height
    for band, tall in zip(bands, heights, strict=True):
        left = 0.0
        for one in band:
            x, y, (wide, high) = left + one.labels[0], top - TITLE - one.size[1], one.size
            _heat_map(figure.add_axes((x / width, y / height, wide / width, high / height)), one)
            left += one.outer[0]
        top -= tall
    return figure


def _confusion(group: Mapping[str, Any]) -> tuple[list[str], list[str], np.ndarray]:
    """The names of both axes, and the share of the images told a class that are read as each."""
    counts, names = np.asarray(group["confusion"], dtype=np.float64), list(group["classes"])
    return names, names, counts / counts.sum(axis=1, keepdims=True).clip(min=1)


def _heat_map(axes: Axes, one: HeatMap) -> None:
    shown = axes.imshow(one.values, cmap="RdBu_r", vmin=-one.limit, vmax=one.limit, aspect="auto")
    axes.set_xticks(range(len(one.columns)), one.columns, rotation=90, fontsize=FONT)
    axes.set_yticks(range(len(one.rows)), one.rows, fontsize=FONT)
    axes.tick_params(length=0)
    axes.set_title(one.title, fontsize=9, loc="left")
    axes.spines[:].set_visible(False)
    for i, j in np.ndindex(*one.values.shape) if one.numbered else ():
        text, dark = f"{one.values[i, j]:.2f}", abs(one.values[i, j]) > 0.6 * one.limit
        axes.text(j, i, "" if text in NOTHING else text, ha="center", va="center", fontsize=FONT, color="white" if dark else "black")
    if one.bar:
        wide = one.size[0]
        place = axes.inset_axes((1 + 0.15 / wide, 0, 0.15 / wide, 1))
        axes.figure.colorbar(shown, cax=place).ax.tick_params(labelsize=FONT)


def _curves(entry: Mapping[str, Any]) -> Figure:
    """What guidance does, and beside it the blends of each way where there are any."""
    from matplotlib.figure import Figure

    blends = entry.get("blends") or {"pairs": []}
    ways = list(WAYS) if blends["pairs"] else []
    figure = Figure(figsize=(PANEL * (1 + len(ways)) + 1.4 * bool(ways), 3.5), dpi=150, layout="constrained")
    first, *others = figure.subplots(1, 1 + len(ways), squeeze=False)[0]
    _guidance(first, entry["guidance"])
    for axes, way in zip(others, ways, strict=True):
        _blend(axes, way, blends)
    if others:
        others[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _guidance(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    for key, label in (("hit_rate", "hit rate"), ("diversity", "diversity (1: as photographs)")):
        known = [(point["guidance"], point[key]) for point in points if point[key] is not None]
        axes.plot(*np.reshape(known, (-1, 2)).T, marker=".", linewidth=1.8, label=label)
    axes.legend(fontsize=8, frameon=False)
    finish(axes, "what guidance does", "guidance", "")
    axes.set_ylim(bottom=0)


def _blend(axes: Axes, way: str, blends: Mapping[str, Any]) -> None:
    weights = blends["weights"]
    for pair in blends["pairs"]:
        axes.plot(weights, pair["ways"][way]["shares"], marker=".", linewidth=1.5, label=f"{pair['first']} to {pair['second']}")
    finish(axes, f"{WAYS[way]}: rank correlation {blends['ways'][way]['spearman']:.2f}", "weight of the second class", "read as the second")
    axes.set_ylim(-0.02, 1.02)


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """The title and the names of both axes, and a look that all panels share."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
