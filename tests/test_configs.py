"""Every shipped configuration composes, is checked, builds and trains; the check knows what the code knows."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch
from runs import configure

from facegen import schema
from facegen.cli import CONF
from facegen.errors import UserError
from facegen.experiment import GROUPS, build, resolve
from facegen.tiny_stable_diffusion import build as build_tiny

FILES = sorted(CONF.rglob("*.yaml"))
EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_every_class_named_in_a_file_is_allowed(path: Path) -> None:
    assert set(re.findall(r"_target_: ([\w.]+)", path.read_text())) <= schema.TARGETS | {"facegen.sweep.SweepSheet"}


@pytest.mark.parametrize("target", sorted(schema.TARGETS))
def test_an_allowed_class_exists_and_its_signature_is_read_right(target: str) -> None:
    import inspect

    module, _, name = target.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    real = dict(inspect.signature(found).parameters) if found.__init__ is not object.__init__ else {}
    while rest := [key for key, parameter in real.items() if parameter.kind is parameter.VAR_KEYWORD]:
        del real[rest[0]]
        found = found.__base__  # which the other arguments are handed on to
        real |= {key: parameter for key, parameter in inspect.signature(found).parameters.items() if key not in real}
    read = schema.signature(target)
    assert list(read) == list(real)
    for key, (_, default) in read.items():
        assert default == real[key].default or (default is schema.REQUIRED and real[key].default is inspect.Parameter.empty)


@pytest.mark.parametrize("experiment", [None, *EXPERIMENTS])
def test_every_experiment_is_a_valid_configuration(experiment: str | None, tmp_path: Path) -> None:
    raw = [f"MNIST/raw/train-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
    for file in (
        "1.jpg",
        "European/1.jpg",
        "Indian/1.jpg",
        "ffhq_aging_labels.csv",
        *raw,
    ):  # what every layout looks for before it is opened
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    chosen = [] if experiment is None else [f"experiment={experiment}"]
    asked = configure("train", *chosen)
    if "root" in asked["data"]:
        chosen.append(f"data.root={tmp_path}")
    if (asked.get("stage1") or {}).get("model", {}).get("perceptual") == "probe":  # which has to be trained before
        chosen.append("stage1.model.perceptual=null")
    if "pretrained" in asked["model"]:  # which has to be downloaded before
        chosen.append(f"model.pretrained={build_tiny(tmp_path / 'tiny')}")
    config = resolve(configure("train", *chosen))
    assert all(group in config for group in GROUPS)


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_the_usual_network_fits_every_resolution(resolution: int) -> None:
    config = resolve(configure("train", f"data.resolution={resolution}"))
    assert config["model"]["network"]["resolution"] == resolution


@pytest.mark.parametrize("scheduler", options("scheduler"))
@pytest.mark.parametrize("sampler", options("sampler"))
def test_every_schedule_goes_with_every_sampler(scheduler: str, sampler: str) -> None:
    config = resolve(configure("train", f"scheduler={scheduler}", f"sampler={sampler}", "sampler.steps=4"))
    schedule, walk = build(config["scheduler"]), build(config["sampler"])

    class Nothing:
        def __init__(self) -> None:
            self.schedule = schedule

        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

    x = torch.randn(2, 1, 4, 4) * schedule.prior_std()
    assert walk(Nothing(), x, lambda: torch.randn(2, 1, 4, 4)).abs().max() < 0.05 * schedule.prior_std()


def test_a_file_holds_nothing_that_a_signature_says_already() -> None:
    import yaml

    repeated = []
    for path in FILES:
        node = yaml.safe_load(path.read_text())
        if isinstance(node, dict) and node.get("_target_") in schema.TARGETS:
            known = schema.signature(node["_target_"])
            repeated += [f"{path.relative_to(CONF)}: {k}" for k, v in node.items() if k in known and known[k][1] == v]
    assert repeated == []


def test_defaults_are_filled_in_so_that_a_checkpoint_says_everything() -> None:
    config = resolve(configure("train"))
    assert config["model"]["loss"] == "mse"
    assert config["trainer"]["accumulate"] == 1


def test_an_evaluation_can_be_asked_for_all_it_knows_with_the_defaults_of_its_options() -> None:
    import yaml

    settings = yaml.safe_load((CONF / "evaluate.yaml").read_text())
    options = schema.signature("facegen.metrics.measure.Options")
    assert {name: settings[name] for name in options} == {name: default for name, (_, default) in options.items()}
    ways = schema.signature("facegen.asked.Asked")
    asked = {*schema.signature("facegen.request.Request"), *ways, *options} - {"options", "asked", "data", "sampler"}
    assert asked == set(settings) - {"defaults", "hydra"}


def test_a_group_may_be_nested_but_not_guessed() -> None:
    with pytest.raises(UserError, match=r"scheduler has no _target_"):
        resolve(configure("train", "~scheduler", "+scheduler.steps=5"))
