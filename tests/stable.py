"""A tiny Stable Diffusion and the command that fine-tunes it, of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs import configure

SMALL = (
    *("model=instruct_pix2pix", "data=cartoon", "data.resolution=32", "data.size=16", "data.held_out=4", "data.batch_size=4"),
    *("trainer.precision=32", "trainer.threads=1", "trainer.max_steps=4", "trainer.validate_every=2", "trainer.validate_batches=1"),
    *("checkpoint.every=2", "preview.count=0", "sampler=ddim", "sampler.steps=2", "logger.tensorboard=false"),
)


def command(folder: Path, run_dir: Path, *options: str) -> Any:
    """Fine-tunes the Stable Diffusion in `folder`."""
    return configure("train", *SMALL, f"model.pretrained={folder}", f"run_dir={run_dir}", *options)
