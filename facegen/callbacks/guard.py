"""A watch on the gradients: one that is not a number is not stepped on, and three in a row end the run."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from facegen.errors import UserError

STRIKES = 3


class Guard(Callback):
    """Clips gradients to `clip` (0: not at all), drops an update whose gradient norm is not finite, and gives up after three in a row.

    A dropped update leaves weights, averages and moments as they were, so the last checkpoint stays good. All ranks see the same
    averaged gradients and decide alike.
    """

    def __init__(self, clip: float) -> None:
        self.clip = clip
        self.strikes = 0
        self._batches: deque[tuple[int, list[int]]] = deque(maxlen=STRIKES)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batches.append((batch["position"], batch["index"]))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if torch.isfinite(norm):
            self.strikes = 0
            if 0 < self.clip < norm:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
            return
        for p in parameters:
            p.grad = None
        self.strikes += 1
        position, indices = self._batches[-1]
        images = ", ".join(str(i) for i in torch.as_tensor(indices).tolist()[:16])
        line = f"the gradient is {norm.item()} at step {trainer.global_step}, batch {position}, images {images}"
        if self.strikes >= STRIKES:
            raise UserError(
                f"{line}: {STRIKES} such steps in a row; the last checkpoint is good; type a lower optimizer.lr "
                f"(now {optimizer.param_groups[0]['lr']:g}) or trainer.precision=32 with another run_dir"
            )
        trainer.print(f"{line}: update dropped ({self.strikes} of {STRIKES} in a row ends the run)")
