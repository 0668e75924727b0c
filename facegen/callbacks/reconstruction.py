"""How near an autoencoder comes to held-out images while it trains: numbers with every validation, and a picture now and then."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from facegen.callbacks.preview import Preview
from facegen.errors import UserError
from facegen.figures.reconstruction import save_panel, some_of
from facegen.images import to_uint8
from facegen.metrics.names import SMALLEST
from facegen.metrics.paired import likeness
from facegen.metrics.sources import reconstructed
from facegen.metrics.weights import ALEXNET, located

NAMES = ("psnr", "ssim", "lpips")


class Likeness(Callback):
    """Logs PSNR in dB, SSIM and LPIPS (AlexNet) of the images that a validation reconstructs, means over all devices, as `val/psnr`, ...

    They are taken between bytes, as evaluate.py takes them. SSIM and LPIPS are left out for images too small for them, and LPIPS where
    its weights are not on the machine, which is said once: nothing is downloaded.
    """

    def __init__(self) -> None:
        self._lpips: Any = None
        self._looked = False
        self._sums = torch.zeros(2, len(NAMES), dtype=torch.float64)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sums = torch.zeros_like(self._sums, device=pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Adds the values of a batch and how many there are."""
        given, made = (to_uint8(images).cpu() for images in (batch["image"], outputs["reconstruction"]))
        values: dict[str, Any] = likeness(given, made)
        if min(given.shape[2:]) >= SMALLEST["lpips"] and (network := self._network(trainer, pl_module)):
            values["lpips"] = network.distance(given, made).double().numpy()
        told = [(values[name].sum(), len(given)) if name in values else (0.0, 0) for name in NAMES]
        self._sums += torch.tensor(told, dtype=torch.float64, device=pl_module.device).T

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total, count = trainer.strategy.reduce(self._sums, reduce_op="sum")
        for name, value, n in zip(NAMES, total, count, strict=True):
            if n:
                pl_module.log(f"val/{name}", (value / n).float(), rank_zero_only=True)

    def _network(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        """LPIPS, where its weights are here; looked for once."""
        if self._looked:
            return self._lpips
        self._looked = True
        try:
            path, _ = located(ALEXNET, None, "", download=False)
        except UserError as error:
            reason = error.lines[0].partition(": put ")[0].partition("; delete")[0]
            trainer.print(f"val/lpips is left out: {reason}")
            return None
        from facegen.metrics.lpips import LPIPS

        self._lpips = LPIPS(path, pl_module.device)
        return self._lpips


class ReconstructionPreview(Preview):
    """What `preview` is for a model that reconstructs: as often, as many images and into the same folder.

    `data` is the run's data module. The picture shows its first held-out images, or training images where none are held out, each beside
    its reconstruction with averaged weights and their difference.
    """

    def __init__(self, preview: Preview, data: Any) -> None:
        super().__init__(str(preview.directory.parent), preview.sampler, preview.every, preview.count, preview.batch_size)
        self.data = data
        self._shown: tuple[np.ndarray, str] | None = None

    def save(self, model: Any, step: int) -> np.ndarray:
        """Saves the picture of `step` as `model`, which has `reconstruct` and a `device`, is now, and returns it (C,H,W) uint8."""
        if self._shown is None:
            self._shown = some_of(self.data, self.count)
        originals, which = self._shown
        # in training mode as it is: an autoencoder has neither dropout nor statistics of batches
        others = reconstructed(model.reconstruct, originals, model.device)
        return save_panel(originals, others, self.path(step), {"step": str(step), "images": which})
