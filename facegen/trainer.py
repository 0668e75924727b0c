"""The Lightning Trainer of a run, from a handful of options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from facegen.distributed import Ranks
from facegen.duration import seconds
from facegen.errors import UserError
from facegen.memory import keep_freed_memory
from facegen.types import PositiveInt, Threads

DEFAULT_STEPS = 20_000


class TrainerOptions:
    """How long and on what a model is trained.

    Args:
        accelerator, devices, nodes, strategy: as in Lightning; `ddp` starts a process for each device.
        precision: `auto` is bf16 where the machine has it in hardware and 32 elsewhere.
        max_steps: optimizer steps in all; 20,000 where neither they nor `max_epochs` nor `max_time` are given.
        max_epochs: passes over the training images in all; with `max_steps` as well, the run ends at the lower of the two.
        max_time: training time in all, over every session of the run: 90 (seconds), 8m, 1h30m, 00:08:00.
        accumulate: batches whose gradients are added up for one optimizer step.
        log_every, validate_every: optimizer steps between two log lines, and between two measurements of the held-out loss.
        threads: CPU threads of torch; 0 takes all cores.
        compile: torch.compile the network (pays on a GPU, not on a CPU).
    """

    def __init__(
        self,
        accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto",
        devices: PositiveInt = 1,
        nodes: PositiveInt = 1,
        strategy: Literal["auto", "ddp"] = "auto",
        precision: Literal["auto", "32", "bf16"] = "auto",
        max_steps: PositiveInt | None = None,
        max_epochs: PositiveInt | None = None,
        max_time: str | float | None = None,
        accumulate: PositiveInt = 1,
        log_every: PositiveInt = 50,
        validate_every: PositiveInt = 1_000,
        validate_batches: PositiveInt = 16,
        threads: Threads = 0,
        compile: bool = False,
    ) -> None:
        self.accelerator, self.devices, self.nodes, self.strategy = accelerator, devices, nodes, strategy
        self.precision = bf16_where_native(accelerator) if precision == "auto" else precision
        self.max_steps, self.max_epochs = max_steps, max_epochs
        self.max_time = None if max_time is None else seconds(max_time, "trainer.max_time")
        self.accumulate, self.log_every, self.validate_every, self.validate_batches = (
            accumulate,
            log_every,
            validate_every,
            validate_batches,
        )
        self.threads, self.compile = threads, compile
        if accelerator == "gpu" and not torch.cuda.is_available():
            raise UserError("trainer.accelerator=gpu: torch sees no GPU on this machine; type trainer=cpu")

    def build(
        self,
        run_dir: Path,
        callbacks: list[Callback],
        loggers: list[Logger],
        plugins: list[Any],
        steps_per_epoch: float,
        by_hand: bool = False,
    ) -> Trainer:
        """The Trainer of a run whose training set is passed once in `steps_per_epoch` optimizer steps.

        `by_hand`: the model takes its optimizer steps itself, and Lightning is told only later that it accumulates.
        """
        torch.set_num_threads(self.threads or torch.get_num_threads())
        keep_freed_memory()
        limits = [self.max_steps, self.max_epochs and round(self.max_epochs * steps_per_epoch)]
        max_steps = min((limit for limit in limits if limit), default=-1 if self.max_time else DEFAULT_STEPS)
        precision = {"32": "32-true", "bf16": "bf16-mixed"}[self.precision]
        return Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            strategy=Ranks() if self.strategy == "ddp" or self.devices * self.nodes > 1 else "auto",
            precision=precision,  # type: ignore[arg-type]
            max_steps=max_steps,
            max_epochs=-1,
            accumulate_grad_batches=1 if by_hand else self.accumulate,
            val_check_interval=self.validate_every * self.accumulate,
            check_val_every_n_epoch=None,
            limit_val_batches=self.validate_batches,
            num_sanity_val_steps=0,
            log_every_n_steps=self.log_every,
            callbacks=callbacks,
            logger=loggers,
            plugins=plugins,
            default_root_dir=run_dir,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


def bf16_where_native(accelerator: str) -> Literal["32", "bf16"]:
    """`bf16` where the hardware multiplies it: emulated on a CPU without AVX512-BF16 or AMX it would be many times slower than float32."""
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if accelerator == "mps":
        return "32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and _multiplies_bf16() else "32"


def _multiplies_bf16() -> bool:
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.exists() else ""
    return any(flag in text for flag in ("avx512_bf16", "amx_bf16", " bf16"))
