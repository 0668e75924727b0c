"""Latents are encoded once: what the cache gives is what the encoder says, whatever happened meanwhile, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from facegen.codecs import Latents
from facegen.data.faces import Cartoon
from facegen.data.latents import Contents, PackedLatents, open_latents, statistics
from facegen.data.loading import Pick
from facegen.errors import UserError
from facegen.images import to_float
from facegen.latents import encoded, furnish, require_scaled
from facegen.networks.autoencoder import KLAutoencoder

CPU = torch.device("cpu")
TINY: dict[str, Any] = {"channels": 3, "widths": [8, 16], "latent_channels": 2, "layers": 1, "groups": 4, "attention": False}


def cartoons(flip: bool = True, **options: Any) -> Cartoon:
    data = Cartoon(resolution=16, channels=3, batch_size=8, seed=0, flip=flip, size=90, held_out=10, **options)
    data.prepare()
    return data


def autoencoder(seed: int = 0) -> KLAutoencoder:
    torch.manual_seed(seed)
    return KLAutoencoder(**TINY)


@pytest.fixture
def opened(tmp_path: Path) -> tuple[Cartoon, Latents, PackedLatents]:
    data, codec = cartoons(), Latents(autoencoder(), 16)
    return data, codec, encoded(data, codec, CPU, tmp_path)


def test_the_cache_holds_mean_and_deviation_of_every_image_and_its_mirror_image(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    data, codec, packed = opened
    numbers = np.array([3, 95, 41])
    images = to_float(torch.from_numpy(data.pixels(numbers)))
    for mirrored in (False, True):
        wanted = torch.stack(codec.moments(images.flip(-1) if mirrored else images), dim=1)
        found = torch.from_numpy(packed.read(numbers, np.full(3, mirrored))).float()
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_what_is_there_is_not_encoded_again(opened: tuple[Cartoon, Latents, PackedLatents], monkeypatch: pytest.MonkeyPatch) -> None:
    data, codec, packed = opened
    monkeypatch.setattr(codec, "moments", lambda images: pytest.fail("encoded again"))
    again = encoded(data, codec, CPU, packed.folder.parent)
    assert np.array_equal(again.latents, packed.latents)
    assert np.array_equal(again.mean, packed.mean)


def test_another_autoencoder_or_other_images_are_another_cache(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    data, codec, packed = opened
    home = packed.folder.parent
    others = [encoded(data, Latents(autoencoder(1), 16), CPU, home), encoded(cartoons(flip=False), codec, CPU, home)]
    assert len({packed.folder, *(other.folder for other in others)}) == 3


def test_encoding_that_was_stopped_goes_on_and_ends_alike(tmp_path: Path) -> None:
    numbers = np.arange(10, 300)
    contents = Contents("data", "autoencoder", len(numbers), [1, 2, 1, 2, 2])
    seen: list[int] = []

    def encode(chosen: np.ndarray) -> np.ndarray:
        seen.extend(chosen.tolist())
        return np.sin(chosen[:, None] + np.arange(8)).reshape(-1, *contents.shape)

    def stopping(chosen: np.ndarray) -> np.ndarray:
        if len(seen) >= 128:
            raise KeyboardInterrupt
        return encode(chosen)

    whole = open_latents(tmp_path / "whole", contents, numbers, numbers[:200], encode)
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        open_latents(tmp_path / "stopped", contents, numbers, numbers[:200], stopping)
    (partial,) = (tmp_path / "stopped").glob("*.encoding/latents.bin")
    with partial.open("ab") as file:
        file.write(b"half a row")
    stopped = open_latents(tmp_path / "stopped", contents, numbers, numbers[:200], encode)
    assert seen == numbers.tolist()
    assert np.array_equal(stopped.latents, whole.latents)
    assert stopped.folder.name == whole.folder.name


def test_a_damaged_cache_is_made_again(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    data, codec, packed = opened
    before = np.array(packed.latents)
    file = packed.folder / "latents.bin"
    damaged = bytearray(file.read_bytes())
    damaged[0] ^= 0x40
    file.write_bytes(damaged)
    assert np.array_equal(encoded(data, codec, CPU, packed.folder.parent).latents, before)


def test_a_cache_of_another_autoencoder_is_refused(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    data, codec, packed = opened
    told = json.loads((packed.folder / "latents.json").read_text())
    told["contents"]["autoencoder"] = "0123456789abcdef"
    (packed.folder / "latents.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=rf"of another autoencoder \(0123456789abcdef, this one is {codec.fingerprint()}\); delete that"):
        encoded(data, codec, CPU, packed.folder.parent)


def test_statistics_are_those_of_drawn_latents() -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(500, 2, 2, 3, 4, 4)) * np.array([1, 2, 3])[:, None, None] + 5
    latents[:, :, 1] = np.array([0.5, 1.0, 2.0])[:, None, None]
    rows = np.arange(0, 500, 2)
    mean, deviation, alive = statistics(latents, rows)
    drawn = latents[rows, :, 0] + latents[rows, :, 1] * rng.normal(size=latents[rows, :, 1].shape)
    np.testing.assert_allclose(mean, latents[rows, :, 0].mean(axis=(0, 1, 3, 4)))
    np.testing.assert_allclose(alive, latents[rows, :, 0].std(axis=(0, 1, 3, 4)))
    np.testing.assert_allclose(deviation, drawn.std(axis=(0, 1, 3, 4)), rtol=0.02)


def test_a_batch_of_latents_is_the_batch_of_images_encoded(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    data, codec, packed = opened
    images = next(iter(data.train_dataloader()))
    data.use(packed)
    latents = next(iter(data.train_dataloader()))
    assert images["position"] == latents["position"] == 0
    assert torch.equal(images["index"], latents["index"])
    assert torch.equal(images["condition"], latents["condition"])
    wanted = torch.stack(codec.moments(to_float(images["image"])), dim=1)  # flips included
    torch.testing.assert_close(latents["latent"].float(), wanted, rtol=1e-3, atol=1e-4)
    assert "image" not in data.on_after_batch_transfer(latents, 0)
    assert data.consumed == 1


def test_held_out_latents_are_never_mirrored(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    data, _, packed = opened
    data.use(packed)
    batch = next(iter(data.val_dataloader()))
    assert torch.equal(batch["latent"], torch.from_numpy(packed.read(batch["index"].numpy())))
    assert "position" not in batch


def test_workers_open_the_file_for_themselves(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    import pickle

    data, _, packed = opened
    data.use(packed)
    packed.latents  # noqa: B018 (opened)
    batches = pickle.loads(pickle.dumps(data._batches(True)))
    assert "latents" not in vars(batches.latents)
    pick = Pick(np.array([5, 6]), np.array([0, 1]), 0)
    assert torch.equal(batches[pick]["latent"], data._batches(True)[pick]["latent"])


def furnished(tmp_path: Path, network: KLAutoencoder, stored: dict[str, Any] | None = None) -> tuple[Latents, Cartoon]:
    """A model of which nothing but the codec is asked, furnished from the autoencoder `network`."""
    data, model = cartoons(), SimpleNamespace(codec=Latents(autoencoder(7), 16))
    network.model.save_pretrained(tmp_path / "source")
    from facegen.experiment import build

    furnish(model, data, tmp_path / "source", stored, build, CPU, tmp_path / "cache")
    return model.codec, data


def test_latents_have_unit_deviation_after_scaling(tmp_path: Path) -> None:
    codec, data = furnished(tmp_path, autoencoder())
    assert data.latents is not None
    drawn = codec.clean({"latent": torch.from_numpy(data.latents.read(data.numbers("train")))}, draw=True)
    assert drawn.std(dim=(0, 2, 3)).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert drawn.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.0, 0.0], abs=0.1)


def test_latents_of_another_scale_are_refused(opened: tuple[Cartoon, Latents, PackedLatents]) -> None:
    data, codec, packed = opened
    codec.standardize(torch.from_numpy(packed.mean), torch.from_numpy(packed.deviation))
    require_scaled(codec, packed, data.numbers("train"))
    codec.standardize(torch.from_numpy(packed.mean), torch.from_numpy(packed.deviation) * 1.1)
    with pytest.raises(UserError, match=r"not of unit deviation after scaling \(0\.9\d\d, 0\.9\d\d by channel, allowed 0.95 to 1.05\)"):
        require_scaled(codec, packed, data.numbers("train"))


def test_a_dead_autoencoder_is_refused_with_the_command_that_trains_one(tmp_path: Path) -> None:
    dead = autoencoder()
    with torch.no_grad():
        for parameter in dead.model.quant_conv.parameters():
            parameter.zero_()
    with pytest.raises(UserError, match=r"is dead.*allowed 0.001 and more\); train one longer: python train.py model=autoencoder"):
        furnished(tmp_path, dead)


def test_an_autoencoder_that_makes_nan_is_refused(tmp_path: Path) -> None:
    spoilt = autoencoder()
    with torch.no_grad():
        spoilt.model.quant_conv.bias[0] = float("nan")
    with pytest.raises(UserError, match="makes NaN of the images"):
        furnished(tmp_path, spoilt)


def test_latents_beyond_what_the_cache_can_hold_are_refused(tmp_path: Path) -> None:
    large = autoencoder()
    with torch.no_grad():
        large.model.quant_conv.weight *= 1e7
    with pytest.raises(UserError, match="makes NaN of the images, or numbers beyond 65504"):
        furnished(tmp_path, large)


@pytest.mark.parametrize("spoilt", [{"alive": ["a", "b"]}, {"mean": [[1], [2]]}, {"deviation": [1.0, float("nan")]}, {"mean": [1.0]}])
def test_spoilt_statistics_are_measured_again(opened: tuple[Cartoon, Latents, PackedLatents], spoilt: dict[str, Any]) -> None:
    data, codec, packed = opened
    file = packed.folder / "latents.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **spoilt}))
    again = encoded(data, codec, CPU, packed.folder.parent)
    assert np.array_equal(again.mean, packed.mean)
    assert np.array_equal(again.alive, packed.alive)


def test_a_run_goes_on_with_its_own_autoencoder_and_refuses_another(tmp_path: Path) -> None:
    first, _ = furnished(tmp_path, autoencoder())
    stored = {"codec": first.state()}
    again, _ = furnished(tmp_path, autoencoder(), stored)
    assert again.fingerprint() == first.fingerprint()
    with pytest.raises(UserError, match=rf"holds another autoencoder \(\w+\) than this run was trained with \({first.fingerprint()}\)"):
        furnished(tmp_path, autoencoder(1), stored)
