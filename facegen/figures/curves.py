"""How a run learned, from its `metrics.csv`: losses, a classifier's right answers, how near an autoencoder comes to its images, and what
was monitored of the images made."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from facegen.errors import UserError
from facegen.images import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINING, HELD_OUT = "train/loss", "val/loss"
LEVELS = f"{HELD_OUT}_level_"  # begins the columns of the held-out loss at some noise levels
ANSWERS = ("val/accuracy_", "val/balanced_accuracy")  # begin the columns of a classifier's right answers on held-out images
AGAINST = {"train/discriminator": "discriminator: told apart", "train/adversarial": "autoencoder: deceiving"}
LIKENESS = {"val/psnr": "PSNR", "val/ssim": "SSIM", "val/lpips": "LPIPS (lower is nearer)"}
MONITORED = "monitor/"  # begins the columns of a metric of the images made
SMOOTHING, LEAST_SMOOTHING = 0.02, 3  # to either side, a smoothed point averages this share of the run, at least so many points
WIDE = 4.0  # a loss that falls by more than this is drawn on a logarithmic axis
ABREAST = 3  # panels in a row, of more than this several rows

Points = tuple[np.ndarray, np.ndarray]


def loss_curve(run_dir: Path) -> Path:
    """Draws the losses in RUN_DIR/metrics.csv as RUN_DIR/loss.png and returns its path.

    A line in every panel marks the step at which an autoencoder meets its discriminator. Raises UserError where no loss has been logged
    yet.
    """
    curves = read_metrics(Path(run_dir, "metrics.csv"))
    held_out = {name: points for name, points in curves.items() if name == HELD_OUT or name.startswith(LEVELS)}
    answers = [name for name in curves if name.startswith(ANSWERS)]
    monitored = [partial(_monitored, name) for name in curves if name.startswith(MONITORED)]
    panels = [_training] * (TRAINING in curves) + [_against] * any(name in curves for name in AGAINST)
    panels += [_held_out] * bool(held_out) + [_likeness] * any(name in curves for name in LIKENESS) + [_answers] * bool(answers) + monitored
    if not panels:
        raise UserError(f"{run_dir}/metrics.csv has no losses yet: train longer, or set trainer.log_every lower")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = math.ceil(len(panels) / ABREAST)
    columns = math.ceil(len(panels) / rows)
    figure = Figure(figsize=(5.6 * columns, 3.8 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    mark = met(Path(run_dir), curves)
    for panel, axes in zip(panels, places, strict=False):
        panel(axes, curves)
        if mark is not None:
            _mark(axes, mark)
    for axes in places[len(panels) :]:
        axes.remove()
    figure.suptitle(Path(run_dir).resolve().name, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path = Path(run_dir, "loss.png")
    write_whole(path, buffer.getvalue())
    return path


def read_metrics(path: Path) -> dict[str, Points]:
    """The columns of a metrics file by name, as (steps, values) of the cells that hold a finite number; empty columns are left out."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give the directory of a run that has begun to train")
    found: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="") as handle:
        for row in csv.DictReader(handle):
            for name, cell in row.items():
                if name not in (None, "step") and row["step"] and cell and math.isfinite(value := float(cell)):
                    found.setdefault(name, []).append((int(row["step"]), value))
    return {name: (np.array([s for s, _ in points]), np.array([v for _, v in points])) for name, points in found.items()}


def met(run_dir: Path, curves: dict[str, Points]) -> int | None:
    """The step from which on the autoencoder of a run learns against its discriminator; None where it never did."""
    if not (run_dir / "config.yaml").is_file():
        return None
    config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8")) or {}
    model = config.get("model") or {}
    if model.get("discriminator") is None or model.get("disc_start") is None or not model.get("disc_weight", 1):
        return None
    step = model["disc_start"] // (config.get("trainer") or {}).get("accumulate", 1)
    return step if any(steps.max() >= step for steps, _ in curves.values()) else None


def smooth(values: np.ndarray) -> np.ndarray:
    """The centred running mean of `values` (N,): narrower at the start, where a loss falls steeply, so that it never lags behind."""
    i, total = np.arange(len(values)), np.concatenate([[0.0], np.cumsum(values)])
    reach = np.minimum(i, max(LEAST_SMOOTHING, round(SMOOTHING * len(values))))
    first, last = i - reach, np.minimum(i + reach + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def _training(axes: Axes, curves: dict[str, Points]) -> None:
    steps, values = curves[TRAINING]
    means = smooth(values)
    axes.plot(steps, values, color="C0", alpha=0.25, linewidth=0.8, label="as logged")
    axes.plot(steps, means, color="C0", linewidth=1.8, label="smoothed")
    axes.legend(fontsize=8, frameon=False)
    _finish(axes, "training", means)


def _against(axes: Axes, curves: dict[str, Points]) -> None:
    """Hinge losses: below 0 the autoencoder deceives, at 1 the discriminator knows nothing."""
    shown = []
    for color, (name, label) in zip(("C1", "C2"), AGAINST.items(), strict=True):
        if name in curves:
            steps, values = curves[name]
            shown.append(smooth(values))
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
            axes.plot(steps, shown[-1], color=color, linewidth=1.8, label=label)
    _finish(axes, "against each other", np.concatenate(shown))
    _legend_below(axes, axes.get_legend_handles_labels())


def _likeness(axes: Axes, curves: dict[str, Points]) -> None:
    """PSNR by the left axis, the rest, which lies between 0 and 1, by the right one."""
    shares = axes.twinx()
    for color, (name, label) in zip(("C0", "C1", "C2"), LIKENESS.items(), strict=True):
        if name in curves:
            side = axes if name == "val/psnr" else shares
            last = f"{curves[name][1][-1]:.1f} dB" if name == "val/psnr" else f"{curves[name][1][-1]:.3f}"
            side.plot(*curves[name], color=color, linewidth=1.8, marker=".", label=f"{label}: {last}")
    _finish(axes, "reconstructions of held-out images", np.zeros(1), "PSNR, dB")
    shares.set_ylim(0, 1)
    shares.set_ylabel("SSIM, LPIPS" if "val/lpips" in curves else "SSIM")
    shares.tick_params(labelsize=9)
    shares.spines["top"].set_visible(False)
    told = (side.get_legend_handles_labels() for side in (axes, shares))
    _legend_below(axes, [first + second for first, second in zip(*told, strict=True)])


def _legend_below(axes: Axes, told: Sequence[list[Any]]) -> None:
    """Handles and labels beneath a panel: curves that rise and fall leave no corner that is surely free."""
    axes.legend(*told, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(LIKENESS))


def _mark(axes: Axes, step: int) -> None:
    """A line where the discriminator comes in; its name stands above the panel, where no curve is, and the title above that."""
    axes.axvline(step, color="0.35", linewidth=1.0, linestyle="--")
    place = axes.get_xaxis_transform()  # its height is a share of the panel's
    axes.text(step, 1.01, "discriminator", transform=place, fontsize=8, color="0.35", ha="center", va="bottom")
    axes.set_title(axes.get_title(), pad=16)


def _held_out(axes: Axes, curves: dict[str, Points]) -> None:
    levels = sorted((side == "above", float(edge), name) for name in curves if name.startswith(LEVELS) for side, edge in [_level(name)])
    names = [name for _, _, name in levels]
    for i, (above, edge, name) in enumerate(levels):
        label = f"above {edge:g}" if above else f"{levels[i - 1][1]:g} to {edge:g}" if i else f"below {edge:g}"
        axes.plot(*curves[name], color=_shade(i / max(1, len(names) - 1)), linewidth=1.2, marker=".", markersize=4, label=label)
    if HELD_OUT in curves:
        axes.plot(*curves[HELD_OUT], color="black", linewidth=1.8, marker=".", label="all")
    if names:
        axes.legend(title="noise level", fontsize=8, title_fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(axes, "held-out images", np.concatenate([curves[name][1] for name in [*names, HELD_OUT] if name in curves]))


def _answers(axes: Axes, curves: dict[str, Points]) -> None:
    for name in [name for name in curves if name.startswith(ANSWERS)]:
        label = name.removeprefix(ANSWERS[0]) if name.startswith(ANSWERS[0]) else "attributes, balanced"
        axes.plot(*curves[name], linewidth=1.8, marker=".", label=f"{label}: {curves[name][1][-1]:.2f}")
    axes.legend(fontsize=8, frameon=False)
    _finish(axes, "right answers on held-out images", np.array([0.0, 1.0]), "share")
    axes.set_ylim(0, 1)


def _monitored(name: str, axes: Axes, curves: dict[str, Points]) -> None:
    steps, values = curves[name]
    best = int(values.argmin())
    axes.plot(steps, values, color="C2", linewidth=1.8, marker=".")
    axes.plot(steps[best], values[best], "o", color="C3", label=f"best: {values[best]:.3g} at step {steps[best] + 1:,}")
    axes.legend(fontsize=8, frameon=False)
    metric = name.removeprefix(MONITORED)
    _finish(axes, "reconstructions" if metric.startswith("r") else "drawn images", values, metric)


def _level(name: str) -> tuple[str, str]:
    """`below` or `above`, and the noise level, of a column such as `val/loss_level_below_0.3`."""
    side, _, edge = name.removeprefix(LEVELS).partition("_")
    return side, edge


def _shade(share: float) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    return colormaps["viridis"](0.1 + 0.75 * share)


def _finish(axes: Axes, title: str, values: np.ndarray, what: str = "loss") -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if values.min() > 0 and values.max() > WIDE * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(labelsize=9, labelbottom=True)
    axes.set(title=title, xlabel="step", ylabel=what)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
