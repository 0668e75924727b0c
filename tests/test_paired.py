"""PSNR and SSIM of pairs of images, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facegen.errors import UserError
from facegen.metrics.paired import likeness, psnr, ssim


def images(count: int, seed: int = 0, size: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (count, 3, size, size), dtype=np.uint8)


def test_psnr_of_images_a_constant_apart_is_the_closed_form() -> None:
    a = images(3)
    b = a + np.array([1, 10, 55], dtype=np.uint8)[:, None, None, None]
    np.testing.assert_allclose(psnr(a, b), 20 * np.log10(255 / np.array([1, 10, 55])), rtol=1e-7)  # torchmetrics keeps the range in float32


def test_psnr_is_of_each_pair_by_itself() -> None:
    a, b = images(5), images(5, 1)
    error = ((a.astype(float) - b) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(psnr(a, b), 10 * np.log10(255**2 / error), rtol=1e-7)


def test_equal_images_are_as_near_as_can_be() -> None:
    a = images(2)
    assert np.isposinf(psnr(a, a)).all()
    np.testing.assert_allclose(ssim(a, a), 1, rtol=1e-12)


def test_ssim_of_flat_images_is_its_luminance_term() -> None:
    a, b = np.full((1, 1, 16, 16), 100, np.uint8), np.full((1, 1, 16, 16), 150, np.uint8)
    c = (0.01 * 255) ** 2
    np.testing.assert_allclose(ssim(a, b), (2 * 100 * 150 + c) / (100**2 + 150**2 + c), rtol=1e-9)


def test_ssim_of_a_negative_is_below_zero_and_falls_with_noise() -> None:
    flat = np.full((1, 3, 24, 24), 100, np.uint8)
    a = flat + images(1) // 4
    assert ssim(images(1), 255 - images(1))[0] < 0
    assert ssim(a, flat + images(1, 1) // 4)[0] < ssim(a, a + images(1, 2) // 40)[0] < 1


@pytest.mark.parametrize("shape", [(4, 3, 24, 31), (3, 1, 11, 12), (2, 3, 64, 64)])
def test_ssim_is_that_of_torchmetrics(shape: tuple[int, ...]) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    random = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    b = (a.int() + torch.randint(-30, 31, shape, generator=random)).clamp(0, 255).byte()
    theirs = structural_similarity_index_measure(a.double(), b.double(), data_range=255.0, reduction="none")
    assert isinstance(theirs, torch.Tensor)
    np.testing.assert_allclose(ssim(a, b), theirs.reshape(-1).numpy(), rtol=1e-12)


def test_a_mean_can_be_taken_of_what_is_said_of_equal_images() -> None:
    a, b = images(2), images(2)
    b[1] += 10
    found = likeness(a, b)
    np.testing.assert_allclose(found["psnr"], [100, psnr(a, b)[1]])
    np.testing.assert_allclose(found["ssim"], ssim(a, b))
    assert [*likeness(images(1, size=10), images(1, size=10))] == ["psnr"]


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_pairs_measured_in_blocks_are_those_measured_alone(measure, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = images(5), images(5, 1)
    alone = np.concatenate([measure(a[i : i + 1], b[i : i + 1]) for i in range(5)])
    monkeypatch.setattr("facegen.metrics.paired.BLOCK", 2 * a[0].size)
    measured = measure(torch.from_numpy(a), torch.from_numpy(b))
    assert (measured.shape, measured.dtype) == ((5,), np.float64)
    np.testing.assert_allclose(measured, alone, rtol=1e-12)
    assert measure(a[:0], b[:0]).shape == (0,)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_that_are_not_bytes_or_not_alike_are_refused_in_one_line(measure) -> None:
    with pytest.raises(UserError, match=r"^images must be uint8 .* got float32; convert with facegen\.images\.to_uint8$"):
        measure(images(2).astype(np.float32), images(2))
    with pytest.raises(UserError, match=r"^images must be two batches of one shape .* got \(2, 3, 24, 24\) and \(3, 3, 24, 24\)$"):
        measure(images(2), images(3))
    with pytest.raises(UserError, match="of one shape"):
        measure(images(2)[0], images(2)[0])


def test_ssim_of_images_smaller_than_its_window_is_refused() -> None:
    with pytest.raises(UserError, match="at least 11x11 pixels; got 10x10"):
        ssim(images(1, size=10), images(1, size=10))
    assert ssim(images(1, size=11), images(1, size=11)) == pytest.approx(1)
