"""How a model can be asked and guided is said before anything is drawn."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import configure, tiny

from facegen.asked import Asked
from facegen.codecs import Pixels
from facegen.diffusion.denoiser import Denoiser, Rescheduled
from facegen.diffusion.discrete import Cosine
from facegen.diffusion.schedule import EDM, Schedule
from facegen.errors import UserError
from facegen.experiment import load, sample, train
from facegen.families.labels import Labels
from facegen.guiding import direct
from facegen.images import read_png, read_provenance
from facegen.networks.unet import UNet

NAMES = ["Male", "A", "B"]


@dataclass
class Model:
    """What `direct` looks at."""

    names: list[str] | None = field(default_factory=lambda: NAMES)
    schedule: Schedule = field(default_factory=EDM)
    resolution: int = 8
    drop_condition: float = 0.1
    run_dir: Path | None = None
    path: Path = Path("run.ckpt")

    def __post_init__(self) -> None:
        self.provenance = {"family": "class_conditional" if self.names else "ddpm"}
        self.config: dict[str, Any] = {
            "model": {"drop_condition": self.drop_condition} if self.names else {},
            "scheduler": repr(self.schedule.last),
        }
        self.codec = Pixels(self.resolution, 1)
        network = UNet(resolution=8, channels=1, widths=[8], attention=[], layers=1, groups=4)
        self.denoiser = Denoiser(network, self.schedule, "edm")
        self.labels = Labels(self.names, {"class": self.names[1:]}) if self.names else None
        self.examples = torch.eye(3) if self.names else None
        self.text = None


def asked(model: Model, other: Model | None = None, **options: Any) -> Any:
    return direct(model, Asked(**options), lambda path, ema: other or Model())


HALF: list[tuple[dict[str, Any], str]] = [
    ({"guidance_interval": [0.1, 1.0]}, r"guidance_interval changes nothing at guidance=1; type guidance=2"),
    ({"guidance_rescale": 0.5}, r"guidance_rescale changes nothing at guidance=1"),
    ({"autoguidance": "early"}, r"autoguidance changes nothing at guidance=1"),
    ({"guidance": 2.0, "guidance_interval": [1.0, 0.1]}, r"guidance_interval must be two noise levels, the lower first; got \[1.0, 0.1\]"),
    ({"guidance": 2.0, "guidance_interval": [1.0]}, r"guidance_interval must be two noise levels"),
    ({"guidance": 2.0, "guidance_interval": [0.0, math.nan]}, r"guidance_interval must be two noise levels"),
    ({"guidance": 2.0, "autoguidance_ema": "raw"}, r"autoguidance_ema is the average of the model named by autoguidance="),
    ({"guidance": 2.0, "autoguidance": ""}, r"autoguidance must be a checkpoint, a run, or early; got nothing"),
]


@pytest.mark.parametrize(("options", "message"), HALF, ids=[str(options) for options, _ in HALF])
def test_options_that_say_nothing_are_told_whatever_the_model(options: dict[str, Any], message: str) -> None:
    (line,) = Asked(**options).problems()
    assert re.match(message, line)


def test_a_figure_that_sweeps_guidance_wants_no_weight_beside_it() -> None:
    assert list(Asked(autoguidance="early", guidance_interval=[0.1, 1.0]).problems(sweeps_guidance=True)) == []
    (line,) = Asked(guidance=2.0).problems(sweeps_guidance=True)
    assert re.match(r"guidance=2: figure=guidance shows the weights of guidances=\[...\]; leave guidance out", line)


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"names": None}, {"condition": "A"}, r"condition=A: run.ckpt is model=ddpm, which is told nothing; leave it out, or train"),
    (
        {"names": None},
        {"guidance": 2.0},
        r"guidance=2: run.ckpt is model=ddpm, which has no condition to be guided by; leave it out, or type autog",
    ),
    ({"drop_condition": 0.0}, {"guidance": 2.0}, r"guidance=2: run.ckpt was trained with model.drop_condition=0 .* type guidance=1"),
    ({"drop_condition": 0.0}, {"condition": "none"}, r"condition=none: run.ckpt was trained with model.drop_condition=0"),
    ({}, {"guidance": 2.0, "autoguidance": "early"}, r"autoguidance=early: run.ckpt has no early.ckpt beside it; type autoguidance=CKPT"),
    ({}, {"condition": "C"}, r"condition: C is nothing that this model was told"),
]


@pytest.mark.parametrize(("model", "options", "message"), WRONG, ids=[str(options) for _, options, _ in WRONG])
def test_what_a_model_cannot_be_asked_is_one_line(model: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        asked(Model(**model), **options)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [({"resolution": 16}, r"draws \(1, 16, 16\), the model \(1, 8, 8\)"), ({"names": ["Male", "B", "A"]}, r"is told other classes")],
)
def test_a_weaker_model_that_does_not_fit_is_refused(other: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(Model(), Model(**other, path=Path(__file__)), guidance=2.0, autoguidance="weak.ckpt")


def test_a_weaker_model_may_know_nothing_and_walk_another_schedule() -> None:
    same = asked(Model(), Model(path=Path(__file__)), guidance=2.0, autoguidance="weak.ckpt").guidance.weak
    assert isinstance(same, Denoiser)
    other = asked(
        Model(), Model(names=None, schedule=Cosine(100), path=Path(__file__)), guidance=2.0, autoguidance="weak.ckpt"
    ).guidance.weak
    assert isinstance(other, Rescheduled)
    assert other(torch.randn(2, 1, 8, 8), torch.ones(2), None).shape == (2, 1, 8, 8)


def test_a_model_that_is_told_nothing_says_nothing_of_it_beside_a_picture() -> None:
    assert asked(Model(names=None)).facts == {}
    assert asked(Model()).facts == {"condition": "as in the data", "guidance": "1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny(folder, "model=class_conditional", "optimizer.lr=0.01"))
    return folder


def draw(run: Path, out: Path, *options: str) -> torch.Tensor:
    sample(configure("sample", f"ckpt={run}", f"out={out}", "n=2", "device=cpu", *options))
    return torch.stack([torch.from_numpy(read_png(out / f"00000{seed}.png").copy()) for seed in (0, 1)])


def test_a_run_keeps_an_early_snapshot_to_be_guided_away_from(run: Path, tmp_path: Path) -> None:
    assert (run / "checkpoints" / "early.ckpt").is_file()
    assert load(str(run / "checkpoints" / "early.ckpt")).provenance["step"] == "3"
    guided = draw(run, tmp_path / "early", "guidance=3", "autoguidance=early")
    assert not torch.equal(guided, draw(run, tmp_path / "plain"))


def test_guidance_1_draws_what_is_drawn_without_guidance(run: Path, tmp_path: Path) -> None:
    assert torch.equal(draw(run, tmp_path / "one", "condition=Teal", "guidance=1"), draw(run, tmp_path / "none", "condition=Teal"))


def test_guided_by_itself_a_model_would_draw_what_it_draws_unguided(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"autoguidance=.* is the model itself, which leads nowhere"):
        draw(run, tmp_path / "self", "guidance=3", f"autoguidance={run}")
    newest = max((run / "checkpoints").glob("step-*.ckpt"))
    shutil.copy(newest, tmp_path / "copy.ckpt")
    assert torch.equal(draw(run, tmp_path / "copy", "guidance=3", f"autoguidance={tmp_path / 'copy.ckpt'}"), draw(run, tmp_path / "plain"))


def test_guidance_at_levels_that_the_walk_does_not_visit_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"guidance_interval=\[500,600\] holds none of the walk's noise levels; its 2 steps go from 80"):
        draw(run, tmp_path / "far", "guidance=3", "guidance_interval=[500,600]")


def test_what_is_wrong_with_the_weaker_model_is_told_by_its_own_options(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^autoguidance=nowhere: no file"):
        draw(run, tmp_path / "missing", "guidance=3", "autoguidance=nowhere")
    with pytest.raises(UserError, match=r"autoguidance_ema=777 is not in .*early.ckpt"):
        draw(run, tmp_path / "average", "guidance=3", "autoguidance=early", "autoguidance_ema=777")


def test_stages_are_drawn_anew_where_something_is_asked_for(run: Path, tmp_path: Path) -> None:
    said = []
    for out, options in {"plain": (), "asked": ("condition=Teal",)}.items():
        sample(configure("sample", f"ckpt={run}", f"out={tmp_path / out}", "n=2", "device=cpu", "figure=stages", *options))
        said.append(read_provenance(tmp_path / out / "stages.png").get("condition"))
    assert said == [None, "Teal"]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m", "heun", "unipc"])
def test_every_sampler_walks_a_guided_model(run: Path, tmp_path: Path, sampler: str) -> None:
    faces = draw(
        run, tmp_path / sampler, f"sampler={sampler}", "sampler.steps=3", "condition={Teal:0.5,Amber:0.5}", "blend=switch", "guidance=2"
    )
    assert faces.shape == (2, 3, 16, 16)


def test_what_was_asked_stands_in_every_picture_and_is_not_mixed_with_another(run: Path, tmp_path: Path) -> None:
    draw(run, tmp_path / "out", "condition=Teal", "guidance=2")
    with pytest.raises(UserError, match=r"condition: Teal there, Amber now"):
        draw(run, tmp_path / "out", "condition=Amber", "guidance=2")
