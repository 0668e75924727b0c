"""The scorecard of edits as a figure: what the two weights of guidance cost each other, which ages come out, and what else moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facegen.figures.scorecard import finish, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = 4.2  # inches
BARS, FEWEST = 16, 6  # attributes shown at most, those that move most, and how many have room at least


def save_edit_scorecard(entry: Mapping[str, Any], folder: Path, stem: str) -> list[Path]:
    """Draws the `entry` of a scorecard of edits as FOLDER/STEM-edit.png; returns its path."""
    from matplotlib.figure import Figure

    moving = sorted(entry["drift"]["names"].items(), key=lambda item: item[1]["kept"])[:BARS]
    panels = [partial(_confusion, groups=entry["groups"], counts=np.asarray(entry["age"]["confusion"], dtype=float))]
    panels = [*([partial(_curve, points=entry["guidance"], like=entry["identity"])] if entry["guidance"] else []), *panels]
    panels += [partial(_drift, moving=moving)] if moving else []
    figure = Figure(figsize=(PANEL * len(panels), PANEL), dpi=120, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes)
    return [saved(figure, folder / f"{stem}-edit.png")]


def _curve(axes: Axes, points: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> None:
    """A line for each weight of the source, along which the weight of the age rises; a ring around what no other weights beat."""
    for weight in dict.fromkeys(point["image_guidance"] for point in points):
        line = [point for point in points if point["image_guidance"] == weight]
        years, cosine = [point["years"] for point in line], [point["cosine"] for point in line]
        axes.plot(years, cosine, marker=".", linewidth=1.5, label=f"image guidance {weight:g}")
        for point in line:
            axes.annotate(f"{point['guidance']:g}", (point["years"], point["cosine"]), (4, 4), textcoords="offset points", fontsize=7)
    best = [point for point in points if point["best"]]
    axes.scatter([point["years"] for point in best], [point["cosine"] for point in best], s=70, facecolors="none", edgecolors="black")
    if like["strangers"] is not None:
        axes.axhline(like["strangers"], color="grey", linewidth=0.8, linestyle=":", label="two people")
    axes.legend(fontsize=8, frameon=False)
    finish(axes, "age against identity (number: guidance)", "age error in years", "likeness to the photograph")


def _confusion(axes: Axes, groups: Sequence[str], counts: np.ndarray) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(groups)), groups, rotation=90, fontsize=7)
    axes.set_yticks(range(len(groups)), groups, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, j in np.argwhere(shares >= 0.005):
        axes.text(j, i, f"{shares[i, j]:.2f}", ha="center", va="center", fontsize=6, color="white" if shares[i, j] > 0.6 else "black")
    axes.set_title("age asked for (rows), read (columns)", fontsize=10)


def _drift(axes: Axes, moving: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """How often each attribute came and went, those that moved most on top."""
    names, rows = [name for name, _ in moving][::-1], [row for _, row in moving][::-1]
    places = np.arange(len(names))
    axes.barh(places, [row["gained"] for row in rows], height=0.7, label="came")
    axes.barh(places, [-row["lost"] for row in rows], height=0.7, label="went")
    axes.set_yticks(places, names, fontsize=7)
    axes.set_ylim(-0.7, max(len(names), FEWEST) - 0.3)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    finish(axes, "what else changed, as it is read", "share of the edits", "")
