"""The first stage: its losses are what the formulas say, and the discriminator comes in when it should and steps as it should."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import TINY, configure
from torch import Tensor, nn

from facegen.checkpoint import read, steps
from facegen.errors import UserError
from facegen.experiment import resolve, train
from facegen.families.autoencoder import Autoencoder
from facegen.families.optimization import Adam
from facegen.networks.autoencoder import KLAutoencoder, VQAutoencoder
from facegen.networks.discriminator import PatchDiscriminator, generator_loss

SMALL: dict[str, Any] = {"channels": 3, "widths": [8, 16], "latent_channels": 2, "layers": 1, "groups": 4, "attention": False}
OPTIONS = (
    "model=autoencoder",
    "model.network.widths=[8,16]",
    "model.network.groups=4",
    "model.network.layers=1",
    "model.perceptual=null",
    "model.discriminator.width=8",
    "model.discriminator.layers=1",
    "data.size=60",
    "data.held_out=10",
    *(option for option in TINY if not option.startswith(("model", "sampler"))),
)


def run(run_dir: Path, *overrides: str) -> dict[str, Any]:
    train(configure("train", *OPTIONS, f"run_dir={run_dir}", *overrides))
    return read(steps(run_dir)[-1])


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_the_penalty_is_the_divergence_to_the_standard_gaussian_by_image_value() -> None:
    torch.manual_seed(0)
    network, x = KLAutoencoder(**SMALL, kl=0.5), images()
    mean, deviation = (part.double() for part in network.moments(x))
    gaussian = torch.distributions.Normal(mean, deviation)
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    wanted = 0.5 * torch.distributions.kl_divergence(gaussian, standard).flatten(1).sum(1) / x[0].numel()
    torch.testing.assert_close(network(x).penalty.double(), wanted, rtol=1e-4, atol=1e-7)


def test_a_codebook_is_pulled_to_the_latents_and_they_a_little_to_it() -> None:
    torch.manual_seed(0)
    network, x = VQAutoencoder(**SMALL, codebook=6, commitment=0.25), images()
    z = network.moments(x)[0]
    vectors = network.model.quantize.embedding.weight
    flat = z.permute(0, 2, 3, 1).reshape(-1, 2)
    nearest = vectors[((flat[:, None] - vectors[None]) ** 2).sum(-1).argmin(1)]
    coded = network(x)
    torch.testing.assert_close(coded.penalty, torch.full((2,), 1.25 * float(((flat - nearest) ** 2).mean().detach())))
    coded.penalty.mean().backward()
    pulled = vectors.grad
    assert pulled is not None
    used = torch.autograd.grad(((flat.detach() - nearest) ** 2).mean(), vectors)[0]
    torch.testing.assert_close(pulled, used)  # commitment is of the encoder: the vectors are pulled with weight 1


def test_gradients_pass_the_codebook_as_if_it_were_not_there() -> None:
    torch.manual_seed(0)
    network, x = VQAutoencoder(**SMALL, codebook=6), images()
    network(x).images.mean().backward()
    gradient = network.model.quant_conv.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("patch", [1, 2])
def test_patches_shrink_the_latents_and_give_whole_images(patch: int) -> None:
    network = KLAutoencoder(**SMALL, patch=patch)
    mean, _ = network.moments(images())
    assert mean.shape == (2, 2, 8 // patch, 8 // patch)
    assert network.decode(mean).shape == (2, 3, 16, 16)
    assert network.factor == 2 * patch


def test_the_order_of_channels_in_memory_changes_nothing_else() -> None:
    plain, other = KLAutoencoder(**SMALL), KLAutoencoder(**SMALL, channels_last=True)
    other.load_state_dict(plain.state_dict())
    for mine, theirs in zip(plain.moments(images()), other.moments(images()), strict=True):
        torch.testing.assert_close(mine, theirs)
    z = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(plain.decode(z), other.decode(z))
    assert other.model.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [KLAutoencoder, VQAutoencoder])
def test_computing_blocks_again_leaves_the_gradients_as_they_are(kind: type[KLAutoencoder] | type[VQAutoencoder]) -> None:
    gradients = []
    for again in (False, True):
        torch.manual_seed(0)
        network = kind(**SMALL, gradient_checkpointing=again).train()
        network(images()).images.square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert gradients[0]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def made(**options: Any) -> Autoencoder:
    torch.manual_seed(0)
    network, discriminator = KLAutoencoder(**SMALL), PatchDiscriminator(channels=3, width=8, layers=1)
    return Autoencoder(network, Adam(), **{"discriminator": discriminator, "perceptual": None, **options})


def test_the_reconstruction_loss_is_the_weighted_sum_of_its_parts() -> None:
    a, b = images(), images().flip(0)
    model = made(l1=2.0, l2=3.0, perceptual="vgg", perceptual_weight=5.0)
    model.judges = [lambda x, y: (x - y).flatten(1).amax(1)]
    difference = (b - a).flatten(1)
    wanted = 2 * difference.abs().mean(1) + 3 * (difference**2).mean(1) + 5 * difference.amax(1)
    torch.testing.assert_close(model.distance(a, b), wanted)


def test_without_anything_to_learn_from_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"leave nothing to learn from; type model\.l1=1"):
        made(l1=0.0)


def test_a_step_against_the_discriminator_pulls_by_reconstruction_and_scaled_deception() -> None:
    """At the last layer both pulls are equally long, times disc_weight; the discriminator's own gradient is its hinge loss alone."""
    model = made(disc_start=0, disc_weight=0.5)
    x, last = images(), model.autoencoder.last
    assert model.discriminator is not None
    passed: list[Tensor] = []
    model.manual_backward = lambda loss: passed.append(loss) or loss.backward()  # type: ignore[assignment]
    model._logs_this_step = lambda: False  # type: ignore[method-assign]
    model._step = lambda both: None  # type: ignore[method-assign]
    model.training_step({"image": x, "position": 0, "index": torch.arange(2)}, 0)
    model._reseed(_key(model))
    coded = model.autoencoder(x)
    off = model.distance(x, coded.images).mean()
    fooled = generator_loss(model.discriminator(coded.images))
    (pull,), (push,) = (torch.autograd.grad(loss, last, retain_graph=True) for loss in (off, fooled))
    weight = pull.norm() / (push.norm() + 1e-4)
    torch.testing.assert_close(last.grad, pull + 0.5 * weight * push, rtol=1e-4, atol=1e-6)
    real, fake = model.discriminator(x), model.discriminator(coded.images.detach())
    hinge = ((1 - real).relu().mean() + (1 + fake).relu().mean()) / 2
    torch.testing.assert_close(passed[1], hinge)
    own = next(model.discriminator.parameters())
    torch.testing.assert_close(own.grad, torch.autograd.grad(hinge, own)[0], rtol=1e-4, atol=1e-6)


def _key(model: Autoencoder) -> int:
    from facegen.seeding import mix

    return mix(model.seed, "step", model.global_rank, 0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_discriminator_starts_at_its_batch_and_then_steps_as_often(tmp_path: Path, accumulate: int) -> None:
    count = 6
    stored = run(tmp_path, "model.disc_start=4", f"trainer.accumulate={accumulate}", f"trainer.max_steps={count}")
    assert stored["global_step"] == count
    generator, discriminator = stored["optimizer_states"]
    before = 4 // accumulate
    assert {float(state["step"]) for state in generator["state"].values()} == {float(count)}
    assert {float(state["step"]) for state in discriminator["state"].values()} == {float(count - before)}
    logged = [int(row["step"]) for row in rows(tmp_path) if row.get("train/discriminator")]
    assert logged == list(range(before, count))
    assert [int(row["step"]) for row in rows(tmp_path) if row["train/loss"]] == list(range(count))


def test_until_then_nothing_of_it_is_felt(tmp_path: Path) -> None:
    with_one = run(tmp_path / "with", "model.disc_start=10", "trainer.max_steps=4")
    without = run(tmp_path / "without", "model.discriminator=null", "trainer.max_steps=4")
    names = [name for name in without["state_dict"] if name.startswith("autoencoder.")]
    assert names
    assert all(torch.equal(with_one["state_dict"][name], without["state_dict"][name]) for name in names)
    assert len(without["optimizer_states"]) == 1
    assert with_one["optimizer_states"][1]["state"] == {}


def test_only_the_autoencoder_is_averaged(tmp_path: Path) -> None:
    stored = run(tmp_path, "model.disc_start=0", "trainer.max_steps=2")
    assert all(name.startswith("autoencoder.") for average in stored["ema"].values() for name in average)
    assert any(name.startswith("discriminator.") for name in stored["state_dict"])


def test_what_sees_the_difference_is_no_part_of_the_checkpoint() -> None:
    model = made(perceptual="vgg")
    before = set(model.state_dict())
    model.judges = [nn.Linear(2, 2)]
    assert set(model.state_dict()) == before
    assert not any("judges" in name for name, _ in model.named_parameters())


def test_a_discriminator_that_never_comes_in_is_warned_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "model.disc_start=2", "trainer.max_steps=2")
    assert "warning: the run ends after 2 batches, and its discriminator comes in at model.disc_start=2" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.resolution=18", "model.network.widths=[8,8,8]"],
            r"data.resolution must be divisible by 4.*got 18; type data.resolution=16 or",
        ),
        (["model/network=unet_1m"], r"model.network is a UNet, which is no autoencoder; type model/network=f4d3"),
        (["model.perceptual=probe"], r"model.perceptual=probe looks through a probe; type model.probe=RUN; train one by"),
        (["model.perceptual=probe", "model.probe=/no/such"], r"model.probe=/no/such: no file 'no' in /"),
        (["model.network.groups=3"], r"model.network.groups must divide each of model.network.widths=\[8, 16\]; got 3; type"),
        (["model.disc_start=-1"], r"model.disc_start must be greater than or equal to 0; got -1"),
    ],
)
def test_what_cannot_be_is_told_before_training(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(configure("train", *OPTIONS, *overrides))


def test_an_autoencoder_is_of_its_own_model() -> None:
    with pytest.raises(UserError, match=r"model.network is a KLAutoencoder, which is of model=autoencoder; type model/network=unet_4m"):
        resolve(configure("train", "model/network=f4d3"))


def test_missing_weights_of_the_perceptual_network_are_a_choice_and_never_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("facegen.metrics.weights._opened", _no_network)
    with pytest.raises(UserError, match=r"perceptual=probe.*perceptual=null"):
        run(tmp_path / "run", "model.perceptual=vgg")


def _no_network(url: str) -> Any:
    raise OSError("no network")
