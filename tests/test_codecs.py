"""Codecs: pixels are the image itself, latents are what the autoencoder says, standardised, and nothing is lost between the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facegen.codecs import Latents, Pixels, digest
from facegen.networks.autoencoder import Autoencoder, KLAutoencoder, VQAutoencoder

TINY: dict[str, Any] = {"channels": 3, "widths": [8, 16], "latent_channels": 2, "layers": 1, "groups": 4}


class Halves(Autoencoder):
    """An autoencoder that can be worked out by hand: latents are means over 2x2 pixels, times 3 plus 1, with deviation 0.5."""

    def __init__(self) -> None:
        super().__init__(channels=1, widths=[1, 1], latent_channels=1, groups=1)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = nn.functional.avg_pool2d(images, 2) * self.scale + 1
        return mean, torch.full_like(mean, 0.5)

    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.interpolate((z - 1) / self.scale, scale_factor=2)


def test_pixels_are_the_image_itself() -> None:
    codec, images = Pixels(resolution=8, channels=1), torch.rand(2, 1, 8, 8) * 2 - 1
    assert codec.shape == codec.image_shape == (1, 8, 8)
    assert torch.equal(codec.decode(codec.encode(images)), images)
    assert torch.equal(codec.clean({"image": images}, draw=True), images)
    assert codec.limit == 1
    assert codec.state() == {}


@pytest.mark.parametrize("std", [1.0, 0.5])
def test_latents_are_centred_and_scaled_and_come_back(std: float) -> None:
    codec = Latents(Halves(), resolution=8, std=std)
    codec.standardize(torch.tensor([1.0]), torch.tensor([6.0]))
    images = (torch.rand(2, 1, 4, 4) * 2 - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (codec.shape, codec.image_shape, codec.limit) == ((1, 4, 4), (1, 8, 8), None)
    torch.testing.assert_close(codec.encode(images), nn.functional.avg_pool2d(images, 2) * 3 / 6 * std)
    torch.testing.assert_close(codec.decode(codec.encode(images)), images)


def test_a_drawn_latent_is_mean_and_deviation_and_another_one_each_time() -> None:
    codec, images = Latents(Halves(), resolution=64), torch.zeros(8, 1, 64, 64)
    codec.standardize(torch.tensor([1.0]), torch.tensor([0.25]))
    assert torch.equal(codec.clean({"image": images}, draw=False), codec.encode(images))
    drawn, again = (codec.clean({"image": images}, draw=True) for _ in range(2))
    assert not torch.equal(drawn, again)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.1)
    assert float(drawn.std()) == pytest.approx(0.5 / 0.25, rel=0.05)


def test_a_batch_of_latents_says_what_a_batch_of_images_says() -> None:
    codec, images = Latents(KLAutoencoder(**TINY), resolution=16), torch.rand(3, 3, 16, 16) * 2 - 1
    codec.standardize(torch.tensor([0.1, -0.2]), torch.tensor([2.0, 0.5]))
    packed = torch.stack(codec.moments(images), dim=1)
    for draw in (False, True):
        torch.manual_seed(0)
        wanted = codec.clean({"image": images}, draw=draw)
        torch.manual_seed(0)
        torch.testing.assert_close(codec.clean({"latent": packed}, draw=draw), wanted)
    assert torch.equal(codec.clean({"latent": packed[:, :1]}, draw=True), codec.clean({"latent": packed}, draw=False))


def test_a_checkpoint_of_the_codec_is_the_codec() -> None:
    torch.manual_seed(0)
    one, other = (Latents(KLAutoencoder(**TINY), resolution=16) for _ in range(2))
    one.standardize(torch.tensor([0.1, -0.2]), torch.tensor([2.0, 0.5]))
    images = torch.rand(2, 3, 16, 16)
    assert not torch.equal(one.encode(images), other.encode(images))
    assert one.fingerprint() != other.fingerprint()
    other.load(one.state())
    assert torch.equal(one.encode(images), other.encode(images))
    assert one.fingerprint() == other.fingerprint()


def test_the_statistics_of_another_codec_are_refused() -> None:
    codec = Latents(KLAutoencoder(**TINY), resolution=16)
    with pytest.raises(RuntimeError, match="shape"):
        codec.load({**codec.state(), "mean": torch.zeros(3)})


def test_the_weights_are_neither_trained_nor_left_in_training_mode() -> None:
    codec = Latents(KLAutoencoder(**TINY).train(), resolution=16)
    assert not any(parameter.requires_grad for parameter in codec.network.parameters())
    assert not codec.network.training


def test_a_digest_depends_on_every_weight_and_on_nothing_else() -> None:
    network = nn.Linear(3, 2)
    before = digest(network)
    assert digest(network.eval()) == before
    with torch.no_grad():
        network.bias[1] += 1e-6
    assert digest(network) != before


@pytest.mark.parametrize("quant_conv", [True, False])
def test_a_folder_of_diffusers_encodes_and_decodes_as_diffusers_does(tmp_path: Path, quant_conv: bool) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from facegen.experiment import build
    from facegen.loading import autoencoder_of

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    options = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 2, "layers_per_block": 1, **blocks}
    theirs = AutoencoderKL(**options, use_quant_conv=quant_conv, use_post_quant_conv=quant_conv).eval()
    theirs.save_pretrained(tmp_path)
    codec = Latents(autoencoder_of(tmp_path, build), resolution=16)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        mean = theirs.encode(images).latent_dist.mean
        assert torch.equal(codec.encode(images), mean)
        assert torch.equal(codec.decode(codec.encode(images)), theirs.decode(mean).sample)
        codec.standardize(torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.25]))
        torch.testing.assert_close(codec.decode(codec.encode(images)), theirs.decode(mean).sample)


def test_a_codebook_rounds_to_its_nearest_vector_whatever_comes_in() -> None:
    torch.manual_seed(0)
    network = VQAutoencoder(**TINY, codebook=5)
    vectors = network.model.quantize.embedding.weight
    z = vectors[torch.tensor([3, 0, 4, 1])].T.reshape(1, 2, 2, 2)
    nearby = z + 1e-3 * torch.randn_like(z)
    assert torch.equal(network.decode(nearby), network.decode(z))
    assert not network.moments(torch.rand(1, 3, 4, 4))[1].any()
