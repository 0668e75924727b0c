"""Stopping by SIGTERM or Ctrl-C at the next optimizer step, with everything saved."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from facegen.callbacks.checkpoints import AfterOptimizerStep, KeepCheckpoints


class Preempted(Exception):
    """Training was stopped by a signal after saving `checkpoint`; the process should end with `exit_code`."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; saved {checkpoint}")
        self.signum = signum
        self.checkpoint = checkpoint
        self.exit_code = 128 + signum


class Preempt(AfterOptimizerStep):
    """Saves by `keep` and raises Preempted at the first optimizer step after SIGTERM or Ctrl-C, on all ranks at once.

    While training, the signals only set a flag, in place of Lightning's handler, which broadcasts from inside the
    signal and hangs DDP. A second Ctrl-C interrupts at once. Outside training nothing is changed.
    """

    def __init__(self, keep: KeepCheckpoints) -> None:
        self.keep = keep
        self._signum = 0
        self._replaced: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._replaced[signum] = signal.signal(signum, self._flag) or signal.SIG_DFL

    def _flag(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        if signum == signal.SIGINT:
            signal.signal(signum, self._replaced.pop(signum))

    def after_optimizer_step(self, trainer: Trainer, before: int) -> None:
        # Lightning's handler holds until on_train_start, while the data loaders are built.
        signum = self._signum or (signal.SIGTERM if trainer.received_sigterm else 0)
        if trainer.world_size > 1:
            flag = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(flag, reduce_op="max"))
        if signum:
            raise Preempted(signum, self.keep.save(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._replaced:
            signal.signal(*self._replaced.popitem())
        self._signum = 0
