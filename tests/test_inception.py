"""Inception's features are torch-fidelity's, whatever the size, the channels and the batch of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inception_weights import random_inception, torch_fidelitys
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from facegen.errors import UserError
from facegen.metrics.inception import GROUP, SIZE, Inception, resized
from facegen.metrics.weights import INCEPTION, sha256_of

LAYERS = ["2048", "logits_unbiased"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def ours(weights: Path) -> Inception:
    return Inception(weights, sha256_of(weights))


@pytest.fixture(scope="module")
def theirs(weights: Path) -> Any:
    return torch_fidelitys(weights, LAYERS)


def photographs(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Blotches with grain: smooth as faces are, with all byte values in them."""
    random = torch.Generator().manual_seed(height + width)
    coarse = torch.rand(count, channels, 5, 5, generator=random) * 300 - 22
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 8 * torch.randn(smooth.shape, generator=random)).clamp(0, 255).byte()


def relative(a: np.ndarray, b: torch.Tensor) -> float:
    """The largest difference, over the largest value."""
    return float(np.abs(a - b.numpy()).max() / b.abs().max())


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64), (3, 299, 299), (3, 218, 178), (3, 400, 310), (1, 64, 64)])
def test_features_and_logits_are_torch_fidelitys(shape: tuple[int, int, int], ours: Inception, theirs: Any) -> None:
    images = photographs(3, *shape)
    with torch.inference_mode():
        features, logits = theirs(images.expand(-1, 3, -1, -1))
    got = ours(images)
    assert got["features"].shape == (3, 2048)
    assert got["logits"].shape == (3, 1008)
    assert got["features"].dtype == got["logits"].dtype == np.float32
    assert relative(got["features"], features) < 1e-5
    assert relative(got["logits"], logits) < 1e-5
    assert relative(got["features"][:1], features[1:2]) > 0.01  # else the images are too much alike to tell a wrong network


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (299, 299), (218, 178), (1, 7), (500, 301)])
def test_the_resize_is_tensorflows_to_the_bit(size: tuple[int, int]) -> None:
    images = photographs(2, 3, *size)
    expected = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIZE, SIZE), align_corners=False)
    got = resized(images)
    assert torch.equal(got, (expected - 128) / 128)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(resized(images[:, :1]), resized(images[:, :1].repeat(1, 3, 1, 1)))


def test_a_number_does_not_depend_on_the_batch_that_its_image_comes_in(ours: Inception) -> None:
    images = photographs(GROUP + 2, 3, 32, 32)
    whole = ours(images)
    for part in (slice(0, 1), slice(GROUP - 1, GROUP + 1)):
        alone = ours(images[part])
        assert np.array_equal(alone["features"], whole["features"][part])
        assert np.array_equal(alone["logits"], whole["logits"][part])


def test_the_logits_are_those_that_torch_fidelity_scores() -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Network

    assert [Network.get_default_feature_layer_for_metric(metric) for metric in ("fid", "isc")] == LAYERS


def test_only_the_published_weights_are_official(weights: Path, ours: Inception) -> None:
    assert not ours.official
    assert ours.identity["sha256"] == sha256_of(weights)
    assert Inception(weights, INCEPTION.sha256).official


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.int64)])
def test_images_that_are_not_bytes_are_refused(images: torch.Tensor, ours: Inception) -> None:
    with pytest.raises(UserError, match=rf"^images must be uint8 in 0..255; got {images.dtype}; convert with facegen.images.to_uint8$"):
        ours(images)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 8, 8), (2, 8, 8, 3)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], ours: Inception) -> None:
    with pytest.raises(UserError, match=r"^images must be \(B, C, H, W\) with 1 or 3 channels; got .*$"):
        ours(torch.zeros(shape, dtype=torch.uint8))


def test_weights_of_another_network_are_one_line(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    wrong = tmp_path / "wrong.pth"
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048)}, wrong)
    with pytest.raises(UserError, match=r"another network: fc.weight must be \(1008, 2048\); got \(1000, 2048\); give .*$") as caught:
        Inception(wrong, "0" * 64)
    assert len(caught.value.lines) == 1
    del state["Mixed_5b.branch1x1.conv.weight"]
    torch.save(state, wrong)
    with pytest.raises(UserError, match=r"another network: Mixed_5b.branch1x1.conv.weight is missing; give .*$"):
        Inception(wrong, "0" * 64)
