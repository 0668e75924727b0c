"""How much of a run is done, by steps and by time, and its end when either is used up."""

from __future__ import annotations

import re
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from facegen.errors import UserError

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def seconds(duration: str | float) -> float:
    """The seconds in `90`, `8m`, `1h30m`, `00:08:00` or Lightning's `00:00:08:00` (days first)."""
    text = str(duration).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        total = float(text)
    elif re.fullmatch(r"\d+(:\d+){1,3}", text):
        total = sum(int(part) * unit for part, unit in zip(reversed(text.split(":")), (1, 60, 3_600, 86_400), strict=False))
    elif re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([dhms])", text))
    else:
        total = 0.0
    if total <= 0:
        raise UserError(
            f"trainer.max_time must be a time above 0 such as 90, 8m, 1h30m or 00:00:08:00; got {duration}; type trainer.max_time=8m"
        )
    return total


class Budget(Callback):
    """Keeps `model.progress`, the share of the run that is done, and `model.epoch`, and stops the run after `max_time` seconds of training in all.

    The time counts over every session of a run: a run that was killed and resumed gets no more of it than one that never stopped.
    """

    def __init__(self, max_time: float | None, steps_per_epoch: float) -> None:
        self.max_time, self.steps_per_epoch = max_time, steps_per_epoch
        self.elapsed = 0.0
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic() - self.elapsed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
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
