"""A large latent decoded in overlapping tiles: it takes the memory of one tile, however large the image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

SHARED = 4  # neighbouring tiles share at least this part of a side, a quarter


def decode_tiled(decode: Callable[[Tensor], Tensor], z: Tensor, tile: int, factor: int) -> Tensor:
    """The images (B,C,h*factor,w*factor) that `decode` makes of the latents `z` (B,d,h,w), `tile` x `tile` latent pixels at a time.

    `decode` maps latents of any height and width to images `factor` times as large. Neighbouring tiles share a quarter of their side or
    more, over which one fades into the other, so that a decoder that sees beyond the edge of a tile leaves no seam. One that attends to all
    of its latents, or normalises over them, draws a tile a little otherwise than the whole, the less the larger the tile. Latents no larger
    than a tile are decoded whole.
    """
    height, width = z.shape[2:]
    if max(height, width) <= tile:
        return decode(z)
    down, across = (list(zip(starts(size, tile), fades(size, tile, factor), strict=True)) for size in (height, width))
    whole: Tensor | None = None
    for i, ((top, rows), (left, columns)) in itertools.product(range(len(z)), itertools.product(down, across)):
        drawn = decode(z[i : i + 1, :, top : top + tile, left : left + tile])[0].float()
        if whole is None:
            whole = drawn.new_zeros(len(z), len(drawn), height * factor, width * factor)
        here = whole[i, :, top * factor :, left * factor :][:, : len(rows), : len(columns)]
        here += drawn * (rows[:, None] * columns).to(drawn)
    assert whole is not None, "there are latents to decode"
    return whole


def starts(size: int, tile: int) -> list[int]:
    """Where the tiles of a side of `size` latent pixels begin: evenly from end to end, all of them whole."""
    gaps = math.ceil(max(0, size - tile) / (tile - math.ceil(tile / SHARED)))
    return [round(i * (size - tile) / gaps) for i in range(gaps + 1)] if gaps else [0]


def fades(size: int, tile: int, factor: int) -> list[Tensor]:
    """The weight (n,) of each pixel along each of the tiles of a side of `size` latent pixels; of one pixel they add up to 1.

    A tile weighs as much as a pixel is far from its edges: over what two tiles share that is a straight line from one to the other.
    """
    length = min(tile, size) * factor
    place = torch.arange(length, dtype=torch.float64) + 0.5
    tent, total = torch.minimum(place, length - place), torch.zeros(size * factor, dtype=torch.float64)
    spans = [slice(start * factor, start * factor + length) for start in starts(size, tile)]
    for span in spans:
        total[span] += tent
    return [tent / total[span] for span in spans]
