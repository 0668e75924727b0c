"""A watch on the gradients: one that is not a number is not stepped on, and three in a row end the run."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from facegen.errors import UserError

STRIKES = 3
SHOWN = 64  # images named in one line


class Guard(Callback):
    """Clips gradients to `clip` (0: not at all), drops an update whose gradient norm is not finite, and gives up after three in a row.

    A dropped update leaves weights, averages and moments as they were, so the last checkpoint stays good. All ranks see the same
    averaged gradients and decide alike.
    """

    def __init__(self, clip: float) -> None:
        self.clip = clip
        self._strikes: dict[int, int] = {}  # in a row, of each optimizer
        self._step = -1
        self._batches: list[tuple[int, torch.Tensor]] = []  # numbers and images of the batches since the last optimizer step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._step != trainer.global_step:
            self._step, self._batches = trainer.global_step, []
        self._batches.append((batch["position"], batch["index"]))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if torch.isfinite(norm):
            self._strikes[id(optimizer)] = 0
            if 0 < self.clip < norm:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
            return
        for p in parameters:
            p.grad = None
        strikes = self._strikes[id(optimizer)] = self._strikes.get(id(optimizer), 0) + 1
        line = f"the gradient is {norm.item()} at step {trainer.global_step}, {self._seen()}"
        if strikes >= STRIKES:
            raise UserError(
                f"{line}: {STRIKES} such steps in a row; the last checkpoint is good; type a lower optimizer.lr "
                f"(now {optimizer.param_groups[0]['lr']:g}) or trainer.precision=32 with another run_dir"
            )
        trainer.print(f"{line}: update dropped ({strikes} of {STRIKES} in a row ends the run)")

    def _seen(self) -> str:
        """The batches behind the gradient, and their images by number, shortened where they are many."""
        positions = ", ".join(str(position) for position, _ in self._batches)
        numbers = torch.cat([indices for _, indices in self._batches]).tolist()
        shown = ", ".join(map(str, numbers[:SHOWN])) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
        return f"batch {positions}, images {shown}"
