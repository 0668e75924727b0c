"""How near one image comes to another: for each pair of two batches that belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from facegen.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

WHITE = 255.0
BLOCK = 1 << 21  # pixels at a time, all channels counted
WINDOW, DEVIATION = 11, 1.5  # of SSIM, in pixels
C1, C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2  # of SSIM, which keep it from dividing by nothing
PSNR_OF_EQUALS = 100.0  # dB, in place of infinity


def psnr(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, (N,) float64, of each pair of `a` and `b` (N,C,H,W) uint8; infinite for equal images.

    10 log10(255^2 / mean squared error), over all channels. Raises UserError for images that are not uint8 or not alike in shape.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    def ratio(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return peak_signal_noise_ratio(x, y, data_range=WHITE, reduction="none", dim=(1, 2, 3))

    return _each(ratio, *_checked(a, b))


def ssim(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Structural similarity, (N,) float64 in [-1, 1], of each pair of `a` and `b` (N,C,H,W) uint8; 1 for equal images.

    Wang et al. 2004, eq. 13, with a Gaussian window of 11 x 11, the image mirrored at its edges, mean over channels. Raises UserError
    for images that are not uint8, not alike in shape, or smaller than the window.
    """
    x, y = _checked(a, b)
    if min(x.shape[2:]) < WINDOW:
        raise UserError(f"ssim needs images of at least {WINDOW}x{WINDOW} pixels; got {x.shape[2]}x{x.shape[3]}; compare larger ones")
    down, across = (_windows(side) for side in x.shape[2:])

    def similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # products of matrices instead of torchmetrics' convolution: the same number, in a small part of the time
        mean_x, mean_y, xx, yy, xy = (down @ part @ across.T for part in (x, y, x * x, y * y, x * y))
        variances = (xx - mean_x**2).clamp(min=0) + (yy - mean_y**2).clamp(min=0)
        luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
        return (luminance * (2 * (xy - mean_x * mean_y) + C2) / (variances + C2)).mean((1, 2, 3))

    return _each(similarity, x, y)


def likeness(a: ArrayLike, b: ArrayLike) -> dict[str, np.ndarray]:
    """What can be said of each pair of `a` and `b` (N,C,H,W) uint8 without any weights, by the names of the metrics, (N,) float64.

    `psnr` is at most `PSNR_OF_EQUALS`, so that a mean can be taken; `ssim` is left out for images smaller than its window. Raises
    UserError for images that are not uint8 or not alike in shape.
    """
    found = {"psnr": psnr(a, b).clip(max=PSNR_OF_EQUALS)}
    return found if min(np.shape(a)[2:]) < WINDOW else {**found, "ssim": ssim(a, b)}


def _windows(side: int) -> torch.Tensor:
    """The weights of the pixels of a line in the window around each of them, (side, side) float64; what lies beyond an edge is mirrored."""
    taps = torch.arange(WINDOW) - WINDOW // 2
    weights = (-(taps.double() / DEVIATION).square() / 2).exp()
    places = (torch.arange(side)[:, None] + taps).abs()
    places = torch.minimum(places, 2 * (side - 1) - places)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))


def _checked(a: ArrayLike, b: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.as_tensor(a), torch.as_tensor(b)
    for images in (x, y):
        if images.dtype != torch.uint8:
            got = str(images.dtype).removeprefix("torch.")
            raise UserError(f"images must be uint8 (N,C,H,W); got {got}; convert with facegen.images.to_uint8")
    if x.shape != y.shape or x.ndim != 4:
        raise UserError(f"images must be two batches of one shape (N,C,H,W); got {tuple(x.shape)} and {tuple(y.shape)}")
    return x, y


def _each(measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    step = max(1, BLOCK // max(1, x[0].numel() if len(x) else 1))
    parts = [measure(u.double(), v.double()) for u, v in zip(x.split(step), y.split(step), strict=True) if len(u)]
    return np.concatenate([part.reshape(-1).numpy() for part in parts] or [np.empty(0)])
