"""Event files for TensorBoard."""

from __future__ import annotations

import contextlib
import functools
import threading
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from facegen.durable import writing


class TensorBoardLogger(Logger):
    """Logs to event files in `folder`, each row at once: what cannot be written is a UserError where it is logged.

    Lightning's own logger ends in the tracebacks of two threads there, and takes `$` and `::` in a path for more than letters.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._writer: Any = None

    @property
    def name(self) -> str:
        return "tensorboard"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The SummaryWriter of this session, opened at first use."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            _hush_writers()
            with writing(self.folder):
                self._writer = SummaryWriter(str(self.folder))
        return self._writer

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's `config.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with writing(self.folder):
            for name, value in metrics.items():
                self.experiment.add_scalar(name, value, step)
            self.experiment.flush()

    @rank_zero_only
    def log_image(self, name: str, image: Any, step: int) -> None:
        """Shows a picture, uint8 (C,H,W)."""
        with writing(self.folder):
            self.experiment.add_image(name, image, step)
            self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        # All is written already; where that failed it has been told, and closing fails the same way.
        with contextlib.suppress(OSError):
            if self._writer is not None:
                self._writer.close()
        self._writer = None


@functools.cache  # once
def _hush_writers() -> None:
    """Lets a thread that writes event files fail without a traceback: `flush` raises its error again."""
    told = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not (type(failed.thread).__module__.startswith("tensorboard.") and isinstance(failed.exc_value, OSError)):
            told(failed)

    threading.excepthook = hook
