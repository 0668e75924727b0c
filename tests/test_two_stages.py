"""One command trains both stages of a latent model, and killed anywhere it ends bit for bit where one ends that was never stopped."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from runs import TINY, configure, in_child
from test_resume import assert_same_state, final

import facegen.families.autoencoder
import facegen.families.latent
import facegen.training  # noqa: F401 (imported before the forks, which then start warm)
from facegen.checkpoint import read, steps
from facegen.codecs import digest
from facegen.errors import UserError
from facegen.experiment import build, load, resolve, train
from facegen.generate import generate
from facegen.loading import autoencoder_of

SMALL = (
    "model.network.patch=1",
    "data.size=60",
    "data.held_out=10",
    "ema.halflives=[50,500]",
    "optimizer.decay=cosine",
    "stage1.model.network.widths=[8,16]",
    "stage1.model.network.groups=4",
    "stage1.model.network.layers=1",
    "stage1.model.perceptual=null",
    "stage1.model.disc_start=4",
    "stage1.model.discriminator.width=8",
    "stage1.model.discriminator.layers=1",
    "stage1.optimizer.warmup=3",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("facegen.data.latents.AT_ONCE", 1)  # an encoding that lasts long enough to be killed


def two_stages(run_dir: Path, *overrides: str) -> DictConfig:
    return configure("train", "model=ldm", *TINY, *SMALL, f"run_dir={run_dir}", *overrides)


def run(run_dir: Path, *overrides: str, **kill: Any) -> int:
    return in_child(lambda: train(two_stages(run_dir, *overrides)), **kill)


def assert_same_codec(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name in ("mean", "deviation"):
        assert torch.equal(a["codec"][name], b["codec"][name])
    assert all(torch.equal(tensor, b["codec"]["network"][name]) for name, tensor in a["codec"]["network"].items())


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("never stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert run(run_dir) == 0
    return run_dir


def in_first_stage(run_dir: Path) -> bool:
    return (run_dir / "autoencoder" / "checkpoints" / "step-00000006.ckpt").exists()


def between(run_dir: Path) -> bool:
    return (run_dir / "autoencoder" / "checkpoints" / "step-00000010.ckpt").exists()


def while_encoding(run_dir: Path) -> bool:
    return any((run_dir.parent / "cache").glob("latents-*.encoding/latents.bin"))


def in_second_stage(run_dir: Path) -> bool:
    return (run_dir / "checkpoints" / "step-00000003.ckpt").exists()


@pytest.mark.parametrize("moment", [in_first_stage, between, while_encoding, in_second_stage])
def test_killed_anywhere_the_same_command_continues_bit_for_bit(
    moment: Callable[[Path], bool], tmp_path: Path, never_stopped: Path
) -> None:
    run_dir = tmp_path / "run"
    assert run(run_dir, kill_when=lambda: moment(run_dir)) == -signal.SIGKILL
    assert run(run_dir) == 0
    assert_same_state(final(run_dir / "autoencoder"), final(never_stopped / "autoencoder"))
    assert_same_state(final(run_dir), final(never_stopped))
    assert_same_codec(final(run_dir), final(never_stopped))


def test_a_signal_in_the_first_stage_ends_both(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    code = run(run_dir, "stage1.trainer.max_steps=100000", kill_when=lambda: in_first_stage(run_dir), with_signal=signal.SIGTERM)
    assert code == 143
    assert not steps(run_dir)


def test_the_second_stage_carries_the_averaged_autoencoder_of_the_first(never_stopped: Path) -> None:
    first, second = final(never_stopped / "autoencoder"), final(never_stopped)
    averaged = first["ema"]["50"]
    for name, tensor in second["codec"]["network"].items():
        assert torch.equal(tensor, averaged[f"autoencoder.{name}"])
    assert not any(name.startswith(("codec", "autoencoder")) for name in second["state_dict"])
    assert not any("autoencoder" in name for name in second["ema"]["50"])


def test_its_checkpoint_alone_draws(never_stopped: Path, tmp_path: Path) -> None:
    loaded = load(str(never_stopped))
    alone = shutil.copy(steps(never_stopped)[-1], tmp_path / "alone.ckpt")
    images = []
    for path in (never_stopped, alone):
        one = load(str(path))
        (_, drawn) = next(generate(one.denoiser, one.codec, build({**one.config["sampler"]}), [0, 1]))
        images.append(drawn)
    assert torch.equal(*images)
    assert images[0].shape == (2, 3, 16, 16)
    assert loaded.codec.shape == (3, 8, 8)
    assert loaded.provenance["family"] == "ldm"


def test_a_finished_run_is_left_alone_and_needs_its_first_stage_no_more(never_stopped: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(never_stopped, run_dir)
    shutil.rmtree(run_dir / "autoencoder")
    before = steps(run_dir)[-1].stat().st_mtime_ns
    assert run(run_dir) == 0
    assert steps(run_dir)[-1].stat().st_mtime_ns == before
    assert run(run_dir, "trainer.max_steps=12") == 0
    assert final(run_dir)["global_step"] == 12


def test_a_given_autoencoder_is_used_as_it_is(never_stopped: Path, tmp_path: Path) -> None:
    for source in (never_stopped, never_stopped / "autoencoder", steps(never_stopped / "autoencoder")[-1]):
        run_dir = tmp_path / source.name
        assert run(run_dir, f"model.autoencoder={source}", "trainer.max_steps=2") == 0
        assert not (run_dir / "autoencoder").exists()
        assert_same_codec(final(run_dir), final(never_stopped))


def test_a_folder_of_diffusers_is_an_autoencoder_too(never_stopped: Path, tmp_path: Path) -> None:
    ours = autoencoder_of(never_stopped, build)
    ours.model.save_pretrained(tmp_path / "diffusers")
    assert run(tmp_path / "run", f"model.autoencoder={tmp_path / 'diffusers'}", "trainer.max_steps=2") == 0
    assert digest(autoencoder_of(tmp_path / "diffusers", build)) == digest(ours)
    assert_same_codec(final(tmp_path / "run"), final(never_stopped))


def test_a_conditional_latent_model_is_one_switch_away(tmp_path: Path, never_stopped: Path) -> None:
    run_dir = tmp_path / "run"
    assert run(run_dir, "model.condition=true", f"model.autoencoder={never_stopped}", "trainer.max_steps=2") == 0
    loaded = load(str(run_dir))
    assert loaded.labels is not None
    assert loaded.config["model"]["injection"] == "embedding"


@pytest.mark.parametrize(("prediction", "scheduler", "std"), [("null", "edm", 0.5), ("null", "flow", 1.0), ("v", "scaled_linear", 1.0)])
def test_latents_have_the_deviation_that_the_model_is_written_for(prediction: str, scheduler: str, std: float, tmp_path: Path) -> None:
    config = resolve(two_stages(tmp_path, f"scheduler={scheduler}", f"model.prediction={prediction}"))
    assert config["model"]["codec"]["std"] == std


@pytest.mark.parametrize("how", [("scheduler=flow",), ("scheduler=cosine", "model.prediction=v", "model.weighting=min_snr")])
def test_flow_matching_and_min_snr_work_in_latents_as_in_pixels(how: tuple[str, ...], tmp_path: Path, never_stopped: Path) -> None:
    assert run(tmp_path / "run", *how, f"model.autoencoder={never_stopped}", "trainer.max_steps=3") == 0
    one = load(str(tmp_path / "run"))
    (_, drawn) = next(generate(one.denoiser, one.codec, build({**one.config["sampler"]}), [0]))
    assert drawn.float().std() > 0


def test_the_size_of_the_network_follows_from_the_autoencoder(tmp_path: Path) -> None:
    network = resolve(two_stages(tmp_path, "stage1.model.network.widths=[8,8,8]", "stage1.model.network.latent_channels=5"))["model"][
        "network"
    ]
    assert (network["resolution"], network["channels"]) == (4, 5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.autoencoder=/no/such"], r"no file 'no' in /.*train one: python train.py model=autoencoder data=NAME run_dir=/no/such"),
        (["data.resolution=18", "stage1.model.network.widths=[8,8,8]"], r"must be divisible by 4.*got 18; type data.resolution=16 or"),
        (["model.network.widths=[8,8,8,8,8]"], r"too deep for latents of 8x8.*type model.network.widths=\[8,8,8,8\], or give an"),
        (["stage1/model/network=unet_1m"], r"stage1.model.network is no autoencoder; type stage1/model/network=f4d3"),
        (["model/network=f4d3"], r"model.network is an autoencoder.*type stage1/model/network=NAME"),
        (["stage1.model.perceptual=probe"], r"stage1.model.perceptual=probe looks through a probe; type stage1.model.probe=RUN"),
        (
            ["stage1.model.network.groups=3"],
            r"stage1.model.network.groups must divide .*stage1.model.network.widths=\[8, 16\].*type stage1.model",
        ),
        (["stage1.optimiser.lr=1"], r"stage1.optimiser is not a setting \(did you mean 'optimizer'\?\)"),
        (["stage1.data=null"], r"stage1.data must not be null"),
        (["model.network=null"], r"model.network must be a group; got None; type model/network=NAME"),
        (["stage1.data.channels=1"], r"stage1.data.channels is 1, stage1.model.network.channels is 3; both must"),
        (["stage1.data.batch_size=0"], r"^stage1.data.batch_size must be greater than 0; got 0"),
        (["stage1.trainer.max_steps=0"], r"stage1.trainer.max_steps must be greater than 0; got 0"),
    ],
)
def test_what_cannot_be_is_told_in_the_words_of_the_command(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        resolve(two_stages(tmp_path, *overrides))


def test_a_first_stage_is_of_models_with_two() -> None:
    with pytest.raises(UserError, match=r"stage1 is of models with two stages; leave it out, or type model=ldm"):
        resolve(configure("train", "stage1.trainer.max_steps=3"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "VQModel"}, "it holds a VQModel"),
        ({"act_fn": "gelu"}, "it has another activation, gelu"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "it has blocks of another kind, AttnDownEncoderBlock2D"),
        ({"down_block_types": ["DownEncoderBlock2D"] * 3}, "its numbers of blocks and of widths are unlike"),
        ({"down_block_types": 3}, "config.json is not one that save_pretrained wrote"),
        ({"block_out_channels": None}, "config.json is not one that save_pretrained wrote"),
        ({"block_out_channels": ["a", "b"]}, r"its widths.* must be an integer"),
        ({"norm_num_groups": 7}, r"its groups must divide each of its widths=\[8, 16\]; got 7; give another autoencoder"),
        ({"latent_channels": -1}, r"its latent_channels must be greater than 0; got -1; give another"),
        ({"latent_channels": 10**9}, "its latent_channels is 1000000000, at most 8192 is allowed"),
        ({"in_channels": 1, "out_channels": 1}, "is of images with 1 channels, data.channels is 3; both must be alike"),
    ],
)
def test_a_folder_that_cannot_be_ours_is_refused(changes: dict[str, Any], message: str, never_stopped: Path, tmp_path: Path) -> None:
    import json

    autoencoder_of(never_stopped, build).model.save_pretrained(tmp_path / "foreign")
    file = tmp_path / "foreign" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(UserError, match=message):
        resolve(two_stages(tmp_path / "run", f"model.autoencoder={tmp_path / 'foreign'}"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\udcff"])
def test_what_is_no_description_at_all_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"config\.json is not one that save_pretrained wrote"):
        resolve(two_stages(tmp_path / "run", f"model.autoencoder={tmp_path}"))


def test_a_run_that_has_begun_needs_neither_its_autoencoder_nor_its_probe_again(never_stopped: Path, tmp_path: Path) -> None:
    source, run_dir = tmp_path / "source", tmp_path / "run"
    shutil.copytree(never_stopped / "autoencoder", source)
    assert run(run_dir, f"model.autoencoder={source}", "trainer.max_steps=2") == 0
    shutil.rmtree(source)
    assert run(run_dir, f"model.autoencoder={source}", "trainer.max_steps=3") == 0
    assert_same_codec(final(run_dir), final(never_stopped))
    shutil.copytree(never_stopped, tmp_path / "other")
    asked = ("stage1.model.perceptual=null", "stage1.trainer.log_every=7", "trainer.max_steps=11")
    assert run(tmp_path / "other", *asked) == 0
    with pytest.raises(UserError, match=r"stage1\.model\.perceptual: None -> probe"):
        train(two_stages(tmp_path / "other", "stage1.model.perceptual=probe", "stage1.model.probe=/gone", "trainer.max_steps=12"))


def test_its_own_autoencoder_cannot_be_given_to_a_run_that_has_trained_it(never_stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(never_stopped, tmp_path / "run")
    with pytest.raises(UserError, match=r"was started with another configuration \(stage1: \.\.\. -> \(not set\)\)"):
        train(two_stages(tmp_path / "run", f"model.autoencoder={never_stopped}", "trainer.max_steps=12"))


def test_what_goes_wrong_in_the_first_stage_is_told_in_the_words_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("facegen.metrics.weights._opened", _no_network)
    with pytest.raises(UserError, match=r"stage1\.model\.perceptual=probe.*stage1\.model\.perceptual=null"):
        train(two_stages(tmp_path / "run", "stage1.model.perceptual=vgg"))
    assert run(tmp_path / "warned", "stage1.model.disc_start=10", "trainer.max_steps=1") == 0
    assert "stage1.model.disc_start=10; type a lower one, or stage1.model.discriminator=null" in capfd.readouterr().err


def _no_network(url: str) -> Any:
    raise OSError("no network")


@pytest.mark.parametrize("spoilt", [{"mean": float("nan")}, {"deviation": 0.0}, None])
def test_a_checkpoint_whose_codec_is_spoilt_is_one_line(spoilt: dict[str, float] | None, never_stopped: Path, tmp_path: Path) -> None:
    from facegen.checkpoint import write

    shutil.copytree(never_stopped, tmp_path / "run")
    path = steps(tmp_path / "run")[-1]
    stored = read(path)
    if spoilt is None:
        del stored["codec"]
    else:
        for name, value in spoilt.items():
            stored["codec"][name][0] = value
    write(stored, path)
    with pytest.raises(UserError, match="holds no autoencoder that fits"):
        train(two_stages(tmp_path / "run", "trainer.max_steps=12"))
    with pytest.raises(UserError, match="does not hold the weights that its configuration asks for"):
        load(str(path))


def test_an_autoencoder_that_was_replaced_is_noticed(never_stopped: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(never_stopped, run_dir)
    path = steps(run_dir / "autoencoder")[-1]
    stored = read(path)
    stored["ema"]["50"]["autoencoder.model.decoder.conv_out.bias"] += 1
    from facegen.checkpoint import write

    write(stored, path)
    with pytest.raises(UserError, match="holds another autoencoder"):
        train(two_stages(run_dir, "trainer.max_steps=12"))
