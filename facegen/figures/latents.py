"""What a model that works in latents has drawn before it is decoded: an image beside each channel of its latent."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facegen import images
from facegen.diffusion.denoiser import CleanImage
from facegen.diffusion.sampler import Draw, Sampler, Watch
from facegen.diffusion.schedule import Schedule
from facegen.errors import UserError
from facegen.studio import Studio

SEEDS = 8  # rows at most
REACH = 3.0  # standard deviations of a latent that are black and white


class Kept(Sampler):
    """A sampler that keeps what it answers, which is what is decoded.

    A `watch` would not do: the last clean image that it sees is the answer for facegen's own samplers, not for those of diffusers.
    """

    def __init__(self, sampler: Sampler) -> None:
        super().__init__(sampler.steps)
        self.sampler = sampler
        self.answers: list[Tensor] = []

    def times(self, schedule: Schedule) -> Tensor:
        return self.sampler.times(schedule)

    def __call__(self, denoiser: CleanImage, x: Tensor, draw: Draw | None = None, watch: Watch | None = None) -> Tensor:
        answer = self.sampler(denoiser, x, draw, watch)
        self.answers.append(answer.float().cpu())
        return answer


@dataclass(frozen=True)
class Channels:
    """The figure, thought through and not yet drawn."""

    studio: Studio
    seeds: range
    facts: dict[str, str]

    def draw(self, out: Path) -> Path:
        """Writes latents.png into the folder `out`."""
        faces, latents = with_latents(self.studio, self.seeds)
        deviation = getattr(self.studio.loaded.codec, "std", 1.0)
        rows = beside(faces, images.to_uint8(latents / (REACH * deviation)).numpy())
        columns = rows.shape[1]
        heads = ["image", *(f"channel {i}" if i == 1 else str(i) for i in range(1, columns))]
        labels, path = [f"seed {seed}" for seed in self.seeds], out / "latents.png"
        tiles = rows.reshape(-1, *rows.shape[2:])
        images.save_grid(tiles, path, self.facts, columns=columns, row_labels=labels, column_labels=heads)
        return path


def plan(studio: Studio, seeds: range) -> Channels:
    """The figure of the first `SEEDS` of `seeds`; raises UserError where the model works in pixels."""
    loaded, seeds = studio.loaded, seeds[:SEEDS]
    if loaded.codec.shape == loaded.codec.image_shape:
        works = f"{loaded.path} works in pixels"
        raise UserError(f"figure=latents shows the latents of a model that works in them; {works}; type figure=denoise")
    reach = f"-{REACH:g}..{REACH:g} standard deviations"
    return Channels(studio, seeds, {**studio.facts, "figure": "latents", "seeds": f"{seeds[0]}..{seeds[-1]}", "grey": reach})


def with_latents(studio: Studio, seeds: range) -> tuple[np.ndarray, Tensor]:
    """The images (N,C,H,W) uint8 of `seeds`, and the latents (N,d,h,w) float32 on the CPU that they were decoded from."""
    keeping, kept = copy.copy(studio), Kept(studio.sampler)
    keeping.sampler = kept
    return keeping.draw(seeds, "latents"), torch.cat(kept.answers)


def beside(faces: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Rows (N,1+d,C,H,W) uint8: the `faces` (N,C,H,W), then the `channels` (N,d,h,w), each pixel of which becomes a square."""
    _, colours, height, width = faces.shape
    rows, columns = (np.arange(size) * small // size for size, small in zip((height, width), channels.shape[2:], strict=True))
    large = channels[:, :, rows][..., columns]
    return np.concatenate([faces[:, None], large[:, :, None].repeat(colours, axis=2)], axis=1)
