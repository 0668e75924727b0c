"""In pixels the denoiser sees the image itself."""

from __future__ import annotations

import torch

from facegen.codecs import Pixels


def test_pixels_are_seen_as_they_are() -> None:
    codec, images = Pixels(resolution=8, channels=1), torch.rand(2, 1, 8, 8) * 2 - 1
    assert codec.shape == codec.image_shape == (1, 8, 8)
    assert torch.equal(codec.decode(codec.encode(images)), images)
    assert codec.limit == 1
