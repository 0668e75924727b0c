"""Where numbers and previews go: a CSV that survives a kill, TensorBoard, and Weights & Biases on request."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from facegen.durable import replacing, writing


class CsvLogger(Logger):
    """`metrics.csv`: one row a step, a column for each metric, empty where it was not measured.

    Continues the file of an earlier session, less the rows past the checkpoint it resumes from (`truncate`).
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        text = path.read_text(errors="replace") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        self.rows = dict(_rows(whole))
        self._cut_short = whole != text  # by a full disk or a power cut, in the midst of the last row
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
        again = (step or 0) in self.rows
        row = self.rows.setdefault(step or 0, {})
        row.update({k: f"{v:.6g}" for k, v in metrics.items() if k != "epoch"})
        columns = list(dict.fromkeys([*self._columns, *row]))
        if columns != self._columns or step != max(self.rows) or again or not self.path.exists():
            self._columns = columns
            self._rewrite()
            return
        with writing(self.path), self.path.open("a", newline="") as handle:
            csv.DictWriter(handle, ["step", *columns]).writerow({"step": step, **row})

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Forgets what was logged from optimizer step `step` (from 0) on: it will be done again."""
        kept = {s: row for s, row in self.rows.items() if s < step}
        if len(kept) < len(self.rows) or self._cut_short:
            self.rows = kept
            self._rewrite()

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["step", *dict.fromkeys(self._columns)])
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())
        self._cut_short = False


def _rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a metrics file by step, less those that a power cut has spoilt."""
    for row in csv.DictReader(text.replace("\0", "").splitlines()):
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
            from facegen.tensorboard_logger import TensorBoardLogger

            loggers.append(TensorBoardLogger(run_dir / "tensorboard"))
        if self.wandb:
            from facegen.wandb_logger import WandbLogger

            loggers.append(WandbLogger(run_dir, self.project, self.wandb, config))
        return loggers


def log_image(loggers: list[Logger], name: str, image: Any, step: int) -> None:
    """Shows a picture, uint8 (C,H,W), in every logger that can show one."""
    for logger in loggers:
        if show := getattr(logger, "log_image", None):
            show(name, image, step)
