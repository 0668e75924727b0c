"""A model that is told classes and attributes: it adds a condition to the DDPM family and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import configure, tiny
from torch import Tensor, nn

from facegen import checkpoint
from facegen.codecs import Pixels
from facegen.diffusion.schedule import EDM
from facegen.errors import UserError
from facegen.experiment import build, load, resolve, train
from facegen.families.class_conditional import ClassConditional
from facegen.families.ddpm import DDPM
from facegen.families.optimization import Adam
from facegen.networks.conditioned import NOTHING, Conditioned
from facegen.networks.unet import UNet

NETWORK: dict[str, Any] = {"resolution": 8, "channels": 1, "widths": [8], "attention": [], "layers": 1, "groups": 4}
NAMES, GROUPS = ["Smiling", "A", "B"], {"class": ["A", "B"]}


def model(injection: str = "embedding", drop_condition: float = 0.25) -> ClassConditional:
    torch.manual_seed(0)
    network = UNet(**NETWORK, injection=injection)
    options = {"schedule": EDM(), "codec": Pixels(8, 1), "optimizer": Adam()}
    return ClassConditional(network, NAMES, GROUPS, [[0, 1], [2]], injection, drop_condition, **options)


def batch(count: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    condition = torch.eye(3)[torch.arange(count) % 3]
    return {"image": torch.randn(count, 1, 8, 8, generator=generator), "condition": condition, "index": torch.arange(count)}


class Echo(nn.Module):
    """Shows what it is told."""

    def forward(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        return told


def test_an_embedding_is_linear_so_that_a_blend_of_conditions_is_the_blend_of_their_embeddings() -> None:
    told = Conditioned(Echo(), columns=3, size=16)
    x, t = torch.zeros(1, 1), torch.zeros(1)
    a, b, mixed = (told(x, t, torch.tensor([c])) for c in ([1.0, 0, 0], [0, 0, 1.0], [0.3, 0, 0.7]))
    torch.testing.assert_close(mixed, 0.3 * a + 0.7 * b)


def test_where_nothing_is_said_the_learned_null_stands_and_only_there_does_it_learn() -> None:
    told = Conditioned(Echo(), columns=2, size=4)
    nn.init.normal_(told.null)
    condition = torch.tensor([[1.0, 0.0], [NOTHING, NOTHING], [0.0, 1.0]])
    answers = told(torch.zeros(3, 1), torch.zeros(3), condition)
    assert torch.equal(answers[1], told.null)
    assert not torch.isnan(answers).any()
    answers[[0, 2]].sum().backward(retain_graph=True)
    assert told.null.grad is None or not told.null.grad.any()
    assert not torch.isnan(told.embed.weight.grad).any()
    answers[1].sum().backward()
    assert (told.null.grad == 1).all()


def test_conditions_are_dropped_by_sample_in_training_and_never_when_it_is_measured() -> None:
    family, labels = model(drop_condition=0.25), torch.rand(4000, 3)
    dropped = family.train().told({"condition": labels})[0].isnan()
    assert torch.equal(dropped.all(dim=1), dropped.any(dim=1))
    assert dropped[:, 0].float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(family.eval().told({"condition": labels})[0], labels)
    assert torch.equal(model(drop_condition=0.0).train().told({"condition": labels})[0], labels)


@pytest.mark.parametrize("injection", ["embedding", "channels"])
def test_every_weight_of_the_condition_learns_by_either_injection(injection: str) -> None:
    family = model(injection, drop_condition=0.5).train()
    for weight in family.parameters():
        nn.init.normal_(weight, std=0.1)  # a fresh network's last layers are zero, and hand nothing back
    family.losses(batch(16)).sum().backward()
    told = family.denoiser.network
    assert isinstance(told, Conditioned)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in (told.embed.weight, told.embed.bias, told.null))


def test_the_family_overrides_what_it_is_conditioned_on_and_nothing_else() -> None:
    own = {name for name in vars(ClassConditional) if not name.startswith("_")}
    assert own == {"family", "told", "usual_conditions"}
    assert ClassConditional.training_step is DDPM.training_step


def test_what_is_usual_is_the_labels_of_training_images_the_same_for_a_seed_every_time() -> None:
    rows = model().usual_conditions(range(20))
    assert {tuple(row.tolist()) for row in rows} == {(1.0, 1.0, 0.0), (0.0, 0.0, 1.0)}
    assert torch.equal(rows[7:], model().usual_conditions(range(7, 20)))


def test_the_injection_of_the_network_is_the_models() -> None:
    with pytest.raises(UserError, match=r"set model.injection alone"):
        ClassConditional(UNet(**NETWORK), NAMES, GROUPS, [], "channels", schedule=EDM(), codec=Pixels(8, 1), optimizer=Adam())


def test_report_2_has_the_parameters_that_it_tells() -> None:
    config = resolve(
        configure("train", "experiment=report2_fixed", "model.injection=channels", "data=cartoon", "data.resolution=64", "~data.crop")
    )
    network = build(config["model"]["network"])
    assert network.injected == 5
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.85e6, rel=0.04)


def conditional(run_dir: Path, *overrides: str) -> Any:
    return tiny(run_dir, "model=class_conditional", *overrides)


@pytest.mark.parametrize("injection", ["embedding", "channels"])
def test_a_run_continued_from_a_checkpoint_ends_bit_identical(injection: str, tmp_path: Path) -> None:
    whole = train(conditional(tmp_path / "whole", f"model.injection={injection}"))
    train(conditional(tmp_path / "parts", f"model.injection={injection}", "trainer.max_steps=5"))
    parts = train(conditional(tmp_path / "parts", f"model.injection={injection}"))
    a, b = (checkpoint.read(result.checkpoint) for result in (whole, parts))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for part in ("state_dict", "ema"):
        for key, value in a[part].items():
            for name, tensor in (value if isinstance(value, dict) else {key: value}).items():
                other = b[part][key][name] if isinstance(value, dict) else b[part][name]
                assert torch.equal(tensor, other)


def test_a_checkpoint_alone_knows_its_classes_and_attributes(tmp_path: Path) -> None:
    train(conditional(tmp_path / "run", "data.attributes=[Smiling,group]", "trainer.max_steps=2"))
    loaded = load(str(tmp_path / "run"))
    assert loaded.labels is not None
    assert loaded.labels.names == ["Smiling", "Amber", "Teal", "Violet"]
    assert list(loaded.labels.groups) == ["group"]
    assert loaded.examples is not None
    assert (loaded.examples[:, 1:].sum(dim=1) == 1).all()
    assert (tmp_path / "run" / "previews").exists()


def test_a_finished_run_draws_a_missing_preview_as_it_was_told_in_training(tmp_path: Path) -> None:
    train(conditional(tmp_path / "run", "trainer.max_steps=5"))
    preview = tmp_path / "run" / "previews" / "step-00000005.png"
    drawn = preview.read_bytes()
    preview.unlink()
    train(conditional(tmp_path / "run", "trainer.max_steps=5"))
    assert preview.read_bytes() == drawn


def test_data_without_labels_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    with pytest.raises(UserError, match=r"model=class_conditional needs labels"):
        resolve(conditional(tmp_path / "run", "data=folder", f"data.root={tmp_path}"))
