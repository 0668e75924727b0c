"""Where numbers and previews go: a CSV that survives a kill, TensorBoard, and Weights & Biases on request."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class CsvLogger(Logger):
    """`metrics.csv`: one row a step, a column for each metric, empty where it was not measured.

    Continues the file of an earlier session, less the rows past the checkpoint it resumes from (`truncate`).
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, str]] = {}
        if path.exists():
            self.rows = dict(_rows(path))
        self._columns = [c for row in self.rows.values() for c in row]

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's `config.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = self.rows.setdefault(step or 0, {})
        row.update({k: f"{v:.6g}" for k, v in metrics.items() if k != "epoch"})
        columns = list(dict.fromkeys([*self._columns, *row]))
        if columns != self._columns or step != max(self.rows) or not self.path.exists() or len(row) > len(metrics):
            self._columns = columns
            self._rewrite()
            return
        with self.path.open("a", newline="") as handle:
            csv.DictWriter(handle, ["step", *columns]).writerow({"step": step, **row})

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Forgets what was logged from optimizer step `step` (from 0) on: it will be done again."""
        kept = {s: row for s, row in self.rows.items() if s < step}
        if len(kept) < len(self.rows):
            self.rows = kept
            self._rewrite()

    def _rewrite(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, ["step", *dict.fromkeys(self._columns)])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
        temporary.replace(self.path)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a metrics file by step, less those that a power cut has cut short."""
    text = path.read_text(errors="replace").replace("\0", "")
    for row in csv.DictReader(text.splitlines()):
        if (step := row.pop("step", "") or "").isdigit() and None not in row:
            yield int(step), {key: value for key, value in row.items() if value}


class Loggers:
    """Which loggers a run has beside its `metrics.csv`.

    Args:
        tensorboard: event files in the run's folder `tensorboard`.
        wandb: `offline` keeps the run on disk for `wandb sync`, `online` sends it; null leaves it out.
        project: name of the Weights & Biases project.
    """

    def __init__(self, tensorboard: bool = True, wandb: Literal["offline", "online"] | None = None, project: str = "facegen") -> None:
        self.tensorboard, self.project = tensorboard, project
        self.wandb: Literal["offline", "online"] | None = wandb

    def build(self, run_dir: Path, config: dict[str, Any]) -> list[Logger]:
        """The Lightning loggers of a run in `run_dir`; `config` is what Weights & Biases shows as the run's configuration."""
        loggers: list[Logger] = [CsvLogger(run_dir / "metrics.csv")]
        if self.tensorboard:
            from lightning.pytorch.loggers import TensorBoardLogger

            loggers.append(TensorBoardLogger(run_dir, name="", version="tensorboard"))
        if self.wandb:
            from facegen.wandb_logger import WandbLogger

            loggers.append(WandbLogger(run_dir, self.project, self.wandb, config))
        return loggers


def log_image(loggers: list[Logger], name: str, image: Any, step: int) -> None:
    """Shows a picture, uint8 (C,H,W), in every logger that can show one."""
    for logger in loggers:
        kind = type(logger).__name__
        if kind == "TensorBoardLogger":
            logger.experiment.add_image(name, image, step)
        elif kind == "WandbLogger":
            logger.log_image(name, image, step)
