"""A model that draws at once, in the place of a trained one: for tests of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facegen.codecs import Pixels
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.discrete import Cosine
from facegen.diffusion.sampler import DDIM, Sampler
from facegen.diffusion.schedule import Schedule
from facegen.generate import generate
from facegen.sampling import SampleResult, sample_job
from facegen.studio import Studio


class Net(nn.Module):
    """Something smooth that depends on every pixel; counts the images that it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked += len(x)
        return torch.tanh(2 * x + x.roll(1, 2) + 0.2)


class Run:
    """A trained model as `sample_job` sees it."""

    labels = examples = text = None

    def __init__(self, run_dir: Path, schedule: Schedule | None = None, codec: Any = None) -> None:
        self.path = run_dir / "checkpoints" / "step-00000002.ckpt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"weights")
        self.run_dir, self.codec, self.checkpoints = run_dir, codec or Pixels(8, 3), [self.path]
        self.net = Net()
        self.denoiser = Denoiser(self.net, schedule or Cosine(100), "v")
        self.provenance = {"checkpoint": self.path.name, "step": "2", "family": "ddpm"}
        self.config: dict[str, Any] = {"model": {}, "scheduler": {}}

    def reload(self, path: Path) -> Run:
        return self

    def plain(self, seeds: range, sampler: Sampler) -> np.ndarray:
        """The images (N,C,H,W) of `seeds`, straight from `generate`."""
        return np.concatenate([drawn.numpy() for _, drawn in generate(self.denoiser, self.codec, sampler, seeds)])


def job(run: Run, figure: Any, sampler: Sampler | None = None, **options: Any) -> SampleResult:
    return sample_job(run, sampler or DDIM(3), figure=figure, device="cpu", **options)


def studio(run: Run, sampler: Sampler | None = None, batch_size: int = 64) -> Studio:
    return Studio(run, sampler or DDIM(3), batch_size, "cpu")


def heads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written into pictures from now on."""
    written: list[str] = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda _, xy, text, *rest, **options: written.append(text))
    return written
