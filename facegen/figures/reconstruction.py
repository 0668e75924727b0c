"""What an autoencoder keeps of images: each beside its reconstruction and the difference between the two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facegen import images
from facegen.durable import sha256
from facegen.errors import UserError
from facegen.loading import Loaded, LoadedAutoencoder
from facegen.metrics.paired import likeness
from facegen.metrics.sources import reconstructed

AMPLIFIED = 4  # times that the difference is shown as large as it is: of a good reconstruction nothing else could be seen
HEADS = ("input", "reconstruction", f"difference x{AMPLIFIED}")
SHOWN = 16  # images that figure=reconstruct shows at most
MEASURED = {"psnr": "{:.1f} dB", "ssim": "SSIM {:.2f}"}  # what is written beside an image


def difference(originals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far apart two batches (N,C,H,W) uint8 are, like them: 0 where they are equal, `AMPLIFIED` for each step, at most 255."""
    apart = np.abs(originals.astype(np.int16) - others)
    return (apart * AMPLIFIED).clip(max=255).astype(np.uint8)


def save_panel(originals: np.ndarray, others: np.ndarray, path: Path, facts: Mapping[str, str], labels: Sequence[str] = ()) -> np.ndarray:
    """Writes `originals` and `others` (N,C,H,W) uint8 as a PNG and returns the picture (C,H,W) uint8.

    Each image stands in a row with its reconstruction and their difference; of many images several rows stand beside each other, so that
    the picture is no tower. `labels` (N) stand left of the images. Without them `images.split_grid` takes the picture apart into the 3 N
    tiles, image by image.
    """
    trios = np.stack([originals, others, difference(originals, others)], axis=1)
    blocks = max(1, round(math.sqrt(len(trios) / len(HEADS))))
    facts = {**facts, "difference": f"absolute, times {AMPLIFIED}, at most 255; equal is 0"}
    if not labels:
        heads, columns = HEADS * blocks, blocks * len(HEADS)
        tiles = trios.reshape(-1, *originals.shape[1:])
        return images.save_grid(tiles, path, facts, columns=columns, block=len(HEADS), column_labels=heads)
    picture = _labelled(trios, labels, blocks)
    images.save_png(picture, path, facts)
    return picture


def _labelled(trios: np.ndarray, labels: Sequence[str], blocks: int) -> np.ndarray:
    """The picture (C,H,W) uint8 of `trios` (N,3,C,H,W) in as many `blocks` side by side, each with the labels of its own rows."""
    tallest = math.ceil(len(trios) / blocks)
    scale = max(1, images.SHEET_WIDTH // (max(blocks * len(HEADS), min(images.TOWER, tallest)) * trios.shape[-1]))
    parts = []
    for block in range(blocks):
        tiles = trios[block::blocks].reshape(-1, *trios.shape[2:])
        parts.append(images.grid(tiles, columns=len(HEADS), scale=scale, row_labels=labels[block::blocks], column_labels=HEADS))
    tall = max(part.shape[1] for part in parts)
    below = [((0, 0), (0, tall - part.shape[1]), (0, images.BETWEEN_BANDS * (part is not parts[-1]))) for part in parts]
    return np.concatenate([np.pad(part, room, constant_values=images.PAPER) for part, room in zip(parts, below, strict=True)], axis=2)


@dataclass(frozen=True)
class Reconstructions:
    """The figure of `originals` (N,C,H,W) uint8 and what `reconstruct` makes of them on `device`, not yet drawn.

    `facts` are what is said beside it.
    """

    reconstruct: Callable[[Tensor], Tensor]
    originals: np.ndarray
    device: torch.device
    facts: dict[str, str]

    def draw(self, out: Path) -> Path:
        """Writes reconstruct.png into the folder `out`, with the PSNR in dB and the SSIM of each image."""
        others = reconstructed(self.reconstruct, self.originals, self.device)
        save_panel(self.originals, others, path := out / "reconstruct.png", self.facts, beside(self.originals, others))
        return path


def beside(originals: np.ndarray, others: np.ndarray) -> list[str]:
    """What is written beside each of `originals` and its reconstruction in `others` (N,C,H,W) uint8: PSNR and, of large ones, SSIM."""
    found = likeness(originals, others)
    return ["\n".join(MEASURED[name].format(values[i]) for name, values in found.items()) for i in range(len(originals))]


def plan(loaded: Loaded | LoadedAutoencoder, originals: np.ndarray, device: str, facts: Mapping[str, str]) -> Reconstructions:
    """The figure of `originals` (N,C,H,W) uint8 by way of an autoencoder, or of the one that a latent model works in.

    `facts` say which images they are. Raises UserError where the model works in pixels, or was trained on images of another shape.
    """
    shape = loaded.image_shape if isinstance(loaded, LoadedAutoencoder) else loaded.codec.image_shape
    if originals.shape[1:] != shape:
        given = f"the ones given are {originals.shape[1:]} (channels, height, width)"
        way_out = f"type data.resolution={shape[1]} data.channels={shape[0]}"
        raise UserError(f"{loaded.path} reconstructs images of {shape}, {given}; {way_out}")
    facts = {**loaded.provenance, "sha256": sha256(loaded.path), "torch": torch.__version__, "device": device, **facts}
    return Reconstructions(_through(loaded, device), originals, torch.device(device), {**facts, "figure": "reconstruct"})


def _through(loaded: Loaded | LoadedAutoencoder, device: str) -> Callable[[Tensor], Tensor]:
    """What the model keeps of images (B,C,H,W) in [-1, 1] on `device`."""
    if isinstance(loaded, LoadedAutoencoder):
        return loaded.model.to(device).reconstruct
    codec = loaded.codec
    if codec.shape == codec.image_shape:
        wanted = "give a checkpoint of model=autoencoder or model=ldm"
        raise UserError(f"figure=reconstruct shows what an autoencoder keeps, {loaded.path} works in pixels; {wanted}")
    return lambda x: codec.decode(codec.encode(x))


def some_of(data: Any, count: int) -> tuple[np.ndarray, str]:
    """The first `count` held-out images (N,C,H,W) uint8 of a data module, of the training images where none are held out; and which."""
    data.prepare()
    split = "held_out" if data.num_val else "train"
    numbers = data.numbers(split)[:count]
    return data.pixels(numbers), f"{split} 0..{len(numbers) - 1}"
