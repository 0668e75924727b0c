"""How much of a run is done, by steps and by time, and its end when either is used up."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Budget(Callback):
    """Keeps `model.progress` (the share of the run that is done) and `model.epoch`; stops the run after `max_time` seconds of training.

    The time counts over every session of a run: a run that was killed and resumed gets no more of it than one that never stopped.
    """

    def __init__(self, max_time: float | None, steps_per_epoch: float) -> None:
        self.max_time, self.steps_per_epoch = max_time, steps_per_epoch
        self.elapsed = 0.0
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic() - self.elapsed

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        by_steps = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
        pl_module.epoch = int(trainer.global_step / self.steps_per_epoch)
        pl_module.progress = min(max(by_steps, self.elapsed / self.max_time if self.max_time else 0.0), 1.0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.elapsed = time.monotonic() - self._since
        if self.max_time and trainer.strategy.reduce_boolean_decision(self.elapsed >= self.max_time, all=False):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.elapsed = state_dict["elapsed"]
