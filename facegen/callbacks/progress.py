"""One line that moves: how far, how fast, how well, how long still."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from facegen.callbacks.budget import Budget
from facegen.callbacks.ema import EMA

LINE_EVERY = 30.0  # seconds between lines where the output is no terminal


class ProgressLine(Callback):
    """A Rich progress bar with images/s, loss, age of the average, time left and memory; plain lines where stderr is no terminal."""

    def __init__(self, ema: EMA, budget: Budget, stage: str = "") -> None:
        self.ema, self.budget = ema, budget
        self.stage = f"{stage}  " if stage else ""
        self.console = Console(stderr=True)
        self.bar: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._said = time.monotonic(), 0.0
        self._images, self._progress = self.ema.images, None
        self._lap = (self._started, self.ema.images)
        if trainer.is_global_zero and self.console.is_terminal:
            columns = (TextColumn(f"{self.stage}step {{task.fields[step]}}"), BarColumn(), TextColumn("{task.fields[text]}"))
            self.bar = Progress(*columns, console=self.console, refresh_per_second=4)
            self.task = self.bar.add_task("train", total=1.0, step=trainer.global_step, text="")
            self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.monotonic()
        if trainer.global_step % trainer.log_every_n_steps == 0:
            since, images = self._lap
            self.log("train/images_per_second", (self.ema.images - images) / max(now - since, 1e-9), batch_size=1)
            self.log("train/seconds", self.budget.elapsed, batch_size=1)
            self._lap = (now, self.ema.images)
        self._progress = pl_module.progress if self._progress is None else self._progress
        if not trainer.is_global_zero or now - self._said < (0.5 if self.bar else LINE_EVERY):
            return
        self._said = now
        text = self.describe(trainer, pl_module, now - self._started)
        if self.bar:
            self.bar.update(self.task, completed=pl_module.progress, step=trainer.global_step, text=text)
        else:
            print(f"{self.stage}step {trainer.global_step}  {pl_module.progress:.0%}  {text}", file=sys.stderr, flush=True)

    def describe(self, trainer: Trainer, pl_module: Any, seconds: float) -> str:
        """`612 images/s  loss 0.0841  ema 10000 of 48k images  3:12 left  1.4 GB`."""
        speed = (self.ema.images - self._images) / max(seconds, 1e-9)
        done = pl_module.progress - (self._progress or 0.0)
        left = seconds * (1 - pl_module.progress) / done if done > 0 else float("nan")
        clock = "?" if left != left else f"{int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d}"
        loss = trainer.callback_metrics.get("train/loss")
        memory = (
            torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        held = trainer.callback_metrics.get("val/loss")
        parts = [
            f"{speed:.0f} images/s",
            f"loss {float(loss):.4f}" if loss is not None else "",
            f"held-out {float(held):.4f}" if held is not None else "",
            f"ema {min(self.ema.halflives[0], self.ema.images * self.ema.rampup):.0f} of {self.ema.images} images",
            f"{clock} left",
            f"{memory / 1e9:.1f} GB",
        ]
        return "  ".join(part for part in parts if part)

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()
