"""Weights & Biases: one curve a run, however many sessions it took."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from facegen.errors import UserError

INIT_TIMEOUT = 30.0  # seconds to wait for the server
HEADER, BLOCK = 7, 32768  # bytes, in wandb's file of a session


class WandbLogger(Logger):
    """Logs to a Weights & Biases run whose files are in `run_dir/wandb`; a continued run keeps its id.

    Lightning's own logger leaves steps to wandb, which counts log calls: a continued run would start again at 0. Here the step
    is the row of `metrics.csv`. wandb drops a step that is lower than its last one, so what a killed session has logged past its
    checkpoint, and sent, stays as it is. Offline it writes to disk every 15 seconds: a kill costs the rows since then.
    """

    def __init__(self, run_dir: Path, project: str, mode: Literal["offline", "online"], config: dict[str, Any]) -> None:
        super().__init__()
        self.run_dir, self.project, self.config = run_dir, project, config
        self.mode: Literal["offline", "online"] = mode
        self._run: Any = None

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str | None:
        return self._run.id if self._run else _earlier_id(self.run_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of the wandb library, started at first use. Raises UserError where the server cannot be had."""
        if self._run is None:
            self._run = self._start()
        return self._run

    def _start(self) -> Any:
        os.environ.setdefault("WANDB_CACHE_DIR", str(self.run_dir.absolute() / "wandb" / "cache"))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # crash reports of wandb itself, which it sends when offline too
        import wandb

        earlier = _earlier_id(self.run_dir)
        for log in self.run_dir.glob("wandb/*run-*-*/*.wandb"):
            _mend(log)
        try:
            run = wandb.init(
                dir=self.run_dir,
                project=self.project,
                name=self.run_dir.absolute().name,
                id=earlier,
                resume="allow",
                mode=self.mode,
                config=self.config,
                reinit="create_new",
                settings=wandb.Settings(init_timeout=INIT_TIMEOUT, silent=True),
            )
        except wandb.Error as error:
            line = str(error).strip().splitlines()[0].rstrip(".")
            raise UserError(f"logger.wandb={self.mode}: {line}; type logger.wandb=offline, and `wandb sync` later") from error
        where = run.url if self.mode == "online" else f"offline; to send it type: wandb sync {self.run_dir / 'wandb'}/*run-*"
        print(f"wandb: {where}", file=sys.stderr, flush=True)
        return run

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run was started with its configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.experiment.log({k: v for k, v in metrics.items() if k != "epoch"}, step=step)

    @rank_zero_only
    def log_image(self, name: str, image: Any, step: int) -> None:
        """Shows a picture, uint8 (C,H,W), in the row of the optimizer step that made `step` of them: rows count from 0."""
        import wandb

        self.experiment.log({name: wandb.Image(image.transpose(1, 2, 0), caption=f"step {step}")}, step=step - 1)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run = None


def _earlier_id(run_dir: Path) -> str | None:
    """The id of the run that an earlier session in `run_dir` logged to."""
    folders = sorted(run_dir.glob("wandb/*run-*-*"))
    return folders[0].name.rpartition("-")[2] if folders else None


def _mend(log: Path) -> None:
    """Cuts off the record that a kill has left incomplete, and removes a session that has none: `wandb sync` would stop there, before
    the sessions that follow. The file is a LevelDB log: 7 bytes, then blocks of records that begin with check sum, length and kind."""
    data, at, whole = log.read_bytes(), HEADER, HEADER
    while at + HEADER <= len(data):
        if (rest := BLOCK - at % BLOCK) < HEADER:
            at += rest
            continue
        length, kind = struct.unpack_from("<4xHB", data, at)
        at += HEADER + length
        if at <= len(data) and kind in (1, 4):  # all of a record, or its last part
            whole = at
    if whole == HEADER:
        shutil.rmtree(log.parent)
    elif whole < len(data):
        os.truncate(log, whole)
