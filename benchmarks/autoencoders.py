"""How well autoencoders reconstruct after so many minutes: python benchmarks/autoencoders.py RUN [RUN ...] [--png FILE].

Reads what runs of model=autoencoder have logged: PSNR and SSIM of held-out images, with averaged weights, against the training time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from facegen.figures.curves import read_metrics

SHOWN = (1, 2, 3, 5, 8, 10, 15)  # minutes


def curve(run: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The minutes and values of a metric of held-out images."""
    columns = read_metrics(run / "metrics.csv")
    steps, seconds = columns["train/seconds"]
    at, values = columns[metric]
    return np.interp(at, steps, seconds) / 60, values


def table(runs: list[Path]) -> str:
    """A row for each run and minute: PSNR and SSIM as last measured by then."""
    rows = ["| run | minutes | PSNR, dB | SSIM |", "|---|---:|---:|---:|"]
    for run in runs:
        (minutes, psnr), (_, ssim) = curve(run, "val/psnr"), curve(run, "val/ssim")
        for shown in (*(m for m in SHOWN if m < minutes[-1]), minutes[-1]):
            last = int(np.searchsorted(minutes, shown + 1e-6)) - 1
            if last >= 0:
                rows.append(f"| {run.name} | {minutes[last]:.1f} | {psnr[last]:.2f} | {ssim[last]:.3f} |")
    return "\n".join(dict.fromkeys(rows))


def plot(runs: list[Path], path: Path) -> None:
    """Both metrics against the minutes, a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    for axes, (metric, what) in zip(figure.subplots(1, 2), (("val/psnr", "PSNR, dB"), ("val/ssim", "SSIM")), strict=True):
        for run in runs:
            axes.plot(*curve(run, metric), marker=".", label=run.name)
        axes.set(xlabel="minutes of training", ylabel=what)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    print(table(arguments.runs))
    if arguments.png:
        plot(arguments.runs, arguments.png)


if __name__ == "__main__":
    main()
