"""Checkpoints while training: durable, only between optimizer steps, the last few and the best kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from facegen.callbacks.budget import Budget
from facegen.checkpoint import read, step_name, step_of, steps, write
from facegen.durable import replacing
from facegen.types import PositiveInt

EARLY = 1 / 8  # of the run: Karras et al. 2024 guide by a model that was trained a sixteenth as long


class DurableCheckpointIO(CheckpointIO):
    """Lightning's reading and writing of checkpoints by `facegen.checkpoint`: `Trainer(plugins=[...])`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: object = None) -> None:
        """Write durably. Raises UserError, and TypeError for any `storage_options`: there are none."""
        if storage_options is not None:
            raise TypeError("DurableCheckpointIO has no storage_options")
        write(checkpoint, path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read and verify onto the CPU, plain values and tensors only whatever is asked. Raises UserError."""
        return read(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove the file where it exists."""
        Path(path).unlink(missing_ok=True)


class AfterOptimizerStep(Checkpoint):
    """Calls `after_optimizer_step` when the optimizer has stepped: between two steps nothing is half accumulated.

    As a `Checkpoint` it runs after all other callbacks, so it sees what they have made of the step. A request to stop
    that comes in the midst of accumulating gradients is put off until the optimizer has stepped.
    """

    _step: int
    _stop: bool

    def after_optimizer_step(self, trainer: Trainer, before: int) -> None:
        """Act on the step that took `trainer.global_step` from `before` to its present value."""
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self._stop = trainer.global_step, False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._stop |= trainer.should_stop
        before, self._step = self._step, trainer.global_step
        trainer.should_stop = self._stop and self._step != before
        if self._step != before:
            self.after_optimizer_step(trainer, before)


class KeepCheckpoints(AfterOptimizerStep):
    """Saves `checkpoints/step-00001000.ckpt` in `run_dir` every `every` optimizer steps, or `epochs` epochs, and at the end of training.

    Kept are the last `keep` of them and, as `checkpoints/best.ckpt`, the weights at the lowest value of `monitor` that
    a validation has logged. A run is continued from the step files only: the best is saved after a validation. With `early` the first
    of them after an eighth of the run stays as `checkpoints/early.ckpt`, a weaker model to be guided away from.
    """

    def __init__(
        self,
        run_dir: str,
        every: PositiveInt = 1000,
        keep: PositiveInt = 2,
        monitor: str = "val/loss",
        early: bool = True,
        epochs: PositiveInt | None = None,
    ) -> None:
        self.directory = Path(run_dir, "checkpoints")
        self.every = every
        self.keep = keep
        self.monitor = monitor
        self.early = early
        self.epochs = epochs
        self.best: dict[str, Any] = {}
        self._saved: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = state_dict["best"]
        self.best = best if best.get("metric") == self.monitor else {}

    def after_optimizer_step(self, trainer: Trainer, before: int) -> None:
        if self._is_due(trainer, before) or _is_last_step(trainer):
            self.save(trainer)

    def _is_due(self, trainer: Trainer, before: int) -> bool:
        every: float = self.every
        if self.epochs is not None:
            every = self.epochs * next(callback.steps_per_epoch for callback in trainer.callbacks if isinstance(callback, Budget))
        return trainer.global_step // every > before // every

    def save(self, trainer: Trainer) -> Path:
        """Save the present optimizer step, once, then remove what is older than the last `keep`; on every rank."""
        path = self.directory / step_name(trainer.global_step)
        if self._saved != trainer.global_step:
            trainer.save_checkpoint(path)
            self._saved = trainer.global_step
            self._keep_early(trainer, path)
            self._prune(trainer)
        return path

    def _keep_early(self, trainer: Trainer, path: Path) -> None:
        progress = getattr(trainer.lightning_module, "progress", 0.0)
        early = self.directory / "early.ckpt"
        if not self.early or progress < EARLY or _is_last_step(trainer) or not trainer.is_global_zero or early.exists():
            return
        try:
            os.link(path, early)
        except OSError:  # a file system without links
            with replacing(early) as file, path.open("rb") as saved:
                shutil.copyfileobj(saved, file)

    def _prune(self, trainer: Trainer) -> None:
        found = steps(self.directory)
        # A later step than the present one is damaged, or the run would have been continued from it.
        reached = [path for path in found if step_of(path) <= trainer.global_step]
        for path in set(found) - set(reached[-self.keep :]):
            trainer.strategy.remove_checkpoint(path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        better = float(value) < self.best.get("value", float("inf"))
        if trainer.strategy.broadcast(better):
            self.best = {"metric": self.monitor, "value": float(value), "step": trainer.global_step}
            trainer.save_checkpoint(self.directory / "best.ckpt")


def _is_last_step(trainer: Trainer) -> bool:
    last_epoch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.should_stop or trainer.global_step == trainer.max_steps or last_epoch
