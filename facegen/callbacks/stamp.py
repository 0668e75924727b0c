"""The header that makes a checkpoint enough by itself: what it is, how it was configured and what it was trained on."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from facegen.checkpoint import Header


class Stamp(Callback):
    """Writes `header` into every checkpoint."""

    def __init__(self, header: Header) -> None:
        self.header = header

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["facegen"] = self.header.pack()
