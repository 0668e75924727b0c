"""Stable Diffusion as it is published: what follows from its folder, and what is told where there is none or it is not whole."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from runs import configure
from stable import SMALL, command

from facegen import pretrained
from facegen.data.edit_source import EditSource
from facegen.errors import UserError
from facegen.experiment import resolve, train
from facegen.tiny_stable_diffusion import build as build_tiny
from facegen.tiny_stable_diffusion import main as make_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"))


def test_a_run_knows_the_schedule_and_the_rate_that_stable_diffusion_was_trained_with(tiny: Path, tmp_path: Path) -> None:
    config = resolve(command(tiny, tmp_path / "run"))
    assert config["scheduler"]["_target_"].endswith("ScaledLinear")
    assert (config["scheduler"]["beta_start"], config["scheduler"]["beta_end"]) == (8.5e-4, 0.012)
    assert config["model"]["optimizer"]["lr"] == 5e-5
    assert EditSource.of(config["data"]).kind == "paired"


def test_what_a_unet_predicts_is_what_its_scheduler_says(tiny: Path, tmp_path: Path) -> None:
    assert resolve(command(tiny, tmp_path / "run"))["model"]["prediction"] == "noise"
    other = tmp_path / "v"
    shutil.copytree(tiny, other)
    path = other / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    assert resolve(command(other, tmp_path / "run"))["model"]["prediction"] == "v"


def test_another_schedule_than_its_own_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^scheduler is Cosine: Stable Diffusion has the schedule that it was trained on; leave"):
        resolve(command(tiny, tmp_path / "run", "scheduler=cosine"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model_index.json", r"is no folder of a diffusers pipeline: it has no model_index.json"),
        ("unet/config.json", r"lacks unet/config.json, or it is damaged; download the folder again"),
        ("text_encoder/config.json", r"lacks text_encoder/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", r"lacks the weights unet/\*.safetensors"),
    ],
)
def test_a_folder_that_is_not_whole_is_told_by_what_it_lacks(tiny: Path, change: str, message: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    (broken / change).unlink()
    with pytest.raises(UserError, match=message):
        train(command(broken, tmp_path / "run"))


def test_a_unet_of_another_kind_is_refused(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    config = json.loads((broken / "unet" / "config.json").read_text())
    (broken / "unet" / "config.json").write_text(json.dumps({**config, "in_channels": 9}))
    with pytest.raises(UserError, match=r"its unet takes 9 channels, 4 \(or 8, of an editor\) are allowed; give a Stable Diffusion 1"):
        resolve(command(broken, tmp_path / "run"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/at/all", r"^model.pretrained=/nowhere/at/all is no folder, and no name on the hub; type model.pretrained=FOLDER"),
        ("null", r"^model.pretrained is required; type model.pretrained=CompVis/stable-diffusion-v1-4, or"),
    ],
)
def test_what_is_neither_a_folder_nor_a_name_is_told(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        resolve(configure("train", *SMALL, f"model.pretrained={source}", f"run_dir={tmp_path}"))


def test_without_a_network_the_hub_is_given_up_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waited: list[float] = []

    def refused(address: tuple[str, int], timeout: float) -> Any:
        waited.append(timeout)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"is not in the hub's cache, and the hub cannot be reached \(Network is unreachable\); download"):
        pretrained.located("nobody/nothing-at-all")
    assert waited == [pretrained.PATIENCE]
    assert pretrained.PATIENCE < 5


def test_a_folder_that_holds_something_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert make_tiny([str(tmp_path)]) == 2
    assert "is there already; give a folder that is new or empty" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        make_tiny([])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert make_tiny([str(tmp_path / "new")]) == 0


def test_a_resolution_that_the_autoencoder_and_the_unet_cannot_halve_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data.resolution must be divisible by 4, by which model.pretrained shrinks an image; got 34"):
        resolve(command(tiny, tmp_path / "run", "data.resolution=34"))
