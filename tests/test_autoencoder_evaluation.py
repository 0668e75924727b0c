"""evaluate.py of an autoencoder: its reconstructions against the images themselves, pair by pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import configure, tiny, tiny_probe
from test_autoencoder import OPTIONS

from facegen import checkpoint, images
from facegen.errors import UserError
from facegen.experiment import build, evaluate, train
from facegen.loading import load_autoencoder
from facegen.metrics.sources import Generated, Reconstructed

DATA = ("data.size=600", "data.held_out=60")
SHORT = "trainer.max_steps=6"
METRICS = "metrics=[psnr,ssim,rfd_probe]"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an autoencoder in ae/ (steps 3 and 6 kept), a model that draws in run/ and a probe in probe/, hardly trained."""
    home = tmp_path_factory.mktemp("autoencoder")
    train(configure("train", *OPTIONS, *DATA, SHORT, "optimizer.lr=0.01", "optimizer.warmup=0", f"run_dir={home / 'ae'}"))
    train(tiny(home / "run", *DATA, SHORT))
    train(tiny_probe(home / "probe", *DATA, SHORT))
    return home


def evaluated(home: Path, *arguments: str) -> Any:
    common = (f"probe={home / 'probe'}", f"cache_dir={home / 'cache'}", "bootstrap=3")
    return evaluate(configure("evaluate", *common, *arguments))


def values(result: Any, place: int = 0) -> dict[str, float]:
    return {name: entry["value"] for name, entry in result.records[place]["metrics"].items()}


def both(home: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of a split and what the autoencoder makes of them, one at a time, (N,C,H,W) uint8."""
    loaded = load_autoencoder(home / "ae", build)
    data = build(loaded.config["data"])
    given = data.pixels(data.numbers(split))
    made = [loaded.model.reconstruct(images.to_float(torch.from_numpy(image[None]))) for image in given]
    return given, images.to_uint8(torch.cat(made)).numpy()


def test_the_numbers_are_those_of_two_folders_of_the_same_images(home: Path, tmp_path: Path) -> None:
    for name, batch in zip(("real", "fake"), both(home, "held_out"), strict=True):
        for i, image in enumerate(batch):
            images.save_png(image, tmp_path / name / f"{i:03d}.png", {})
    folders = values(evaluated(home, f"fake={tmp_path / 'fake'}", f"real={tmp_path / 'real'}", METRICS, f"out={tmp_path}"))
    own = evaluated(home, f"ckpt={home / 'ae'}", METRICS, f"out={tmp_path}")
    assert list(values(own)) == ["psnr@60", "ssim@60", "rfd_probe@60"]
    assert values(own) == pytest.approx(folders, rel=1e-3)  # matrix products of one image round otherwise: a pixel in a thousand
    of_folder = values(evaluated(home, f"ckpt={home / 'ae'}", f"real={tmp_path / 'real'}", METRICS, f"out={tmp_path}"))
    assert of_folder == values(own)


def test_every_number_has_its_protocol_and_what_can_be_told_of_its_error(home: Path) -> None:
    result = evaluated(home, f"ckpt={home / 'ae'}", METRICS)
    (file,) = result.files
    record = json.loads(file.read_text())
    assert file.parent == home / "ae" / "evaluations"
    assert file.name.startswith("step-00000006-reconstruct-60-")
    assert (record["subject"]["family"], record["subject"]["step"], record["subject"]["run"]) == ("autoencoder", "6", "ae")
    assert len(record["subject"]["sha256"]) == 64
    protocol = record["protocol"]
    wanted = {"source": "reconstruction", "count": 60, "ema": "10000", "resolution": 16, "channels": 3}
    assert protocol["generated"] == wanted
    assert (protocol["real"]["split"], protocol["real"]["count"]) == ("held_out", 60)
    assert {"crop", "filter", "fingerprint"} <= set(protocol["real"])
    metrics = record["metrics"]
    assert "interval" in metrics["rfd_probe@60"]
    given, made = both(home, "held_out")
    each = 10 * np.log10(255**2 / ((given.astype(float) - made) ** 2).mean((1, 2, 3)))
    assert metrics["psnr@60"]["deviation"] == pytest.approx(each.std(ddof=1) / 60**0.5, rel=1e-2)


def test_held_out_images_are_what_is_measured_unless_others_are_asked_for(home: Path, tmp_path: Path) -> None:
    asked = (f"ckpt={home / 'ae'}", "metrics=[psnr]", f"out={tmp_path}")
    counts = {(): 60, ("split=held_out",): 60, ("split=train",): 600, ("split=all",): 660, ("split=train", "real_n=7"): 7}
    for split, count in counts.items():
        assert list(values(evaluated(home, *asked, *split))) == [f"psnr@{count}"]
    drawn = evaluated(home, f"ckpt={home / 'run'}", "metrics=[fd_probe]", "n=20", "sampler.steps=2", f"out={tmp_path}")
    assert drawn.records[0]["protocol"]["real"]["split"] == "train"


def test_the_average_is_measured_and_raw_weights_where_they_are_asked_for(home: Path, tmp_path: Path) -> None:
    asked = (f"ckpt={home / 'ae'}", "metrics=[psnr]", f"out={tmp_path}")
    averaged, raw = evaluated(home, *asked), evaluated(home, *asked, "ema=raw")
    assert values(averaged) != values(raw)
    assert raw.records[0]["protocol"]["generated"]["ema"] == "raw"


def test_a_killed_evaluation_goes_on_where_it_was(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (f"ckpt={home / 'ae'}", "metrics=[psnr,rfd_probe]", "split=train", f"out={tmp_path}")
    whole = values(evaluated(home, *asked, f"cache_dir={tmp_path / 'whole'}"))
    made: list[int] = []
    batches = Reconstructed.batches

    def counted(self: Reconstructed, numbers: Any, kept: int) -> Any:
        for batch in batches(self, numbers, kept):
            made.append(len(batch))
            yield batch
            if sum(made) == 320:
                raise KeyboardInterrupt

    monkeypatch.setattr(Reconstructed, "batches", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluated(home, *asked, f"cache_dir={tmp_path / 'c'}")
    made.clear()
    made.append(-1)  # so that it is not killed again
    assert values(evaluated(home, *asked, f"cache_dir={tmp_path / 'c'}")) == whole
    assert sum(made) == 600 - 256 - 1  # what was kept is a file of 256
    made.clear()
    evaluated(home, *asked, f"cache_dir={tmp_path / 'c'}")
    assert made == []


def test_what_is_kept_belongs_to_one_autoencoder_and_its_images(home: Path, tmp_path: Path) -> None:
    asked = ("metrics=[psnr]", f"cache_dir={tmp_path}", f"out={tmp_path}")
    first = values(evaluated(home, f"ckpt={home / 'ae'}", *asked))
    others = (f"ckpt={home / 'ae'}", "split=train", "real_n=60", *asked)  # as many
    assert values(evaluated(home, *others)) == values(evaluated(home, *others, f"cache_dir={tmp_path / 'fresh'}"))
    stored = checkpoint.read(home / "ae")
    for average in stored["ema"].values():
        average["autoencoder.model.decoder.conv_out.bias"] += 0.1
    checkpoint.write(stored, tmp_path / "step-00000006.ckpt")  # of the same name and step
    assert first != values(evaluated(home, f"ckpt={tmp_path / 'step-00000006.ckpt'}", *asked))


def test_several_autoencoders_are_measured_by_one_protocol(home: Path, tmp_path: Path) -> None:
    steps = checkpoint.steps(home / "ae")
    assert len(steps) == 2
    result = evaluated(home, f"ckpt=[{','.join(map(str, steps))}]", METRICS, f"out={tmp_path}")
    first, second = (record["metrics"] for record in result.records)
    for name in first:
        assert first[name]["protocol_hash"] == second[name]["protocol_hash"]
        assert first[name]["value"] != second[name]["value"]


def test_a_model_hardly_trained_loses_more_than_one_that_changes_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegen.families.autoencoder.Autoencoder.reconstruct", lambda self, x: x)
    same = values(evaluated(home, f"ckpt={home / 'ae'}", METRICS, f"out={tmp_path}", f"cache_dir={tmp_path}"))
    assert (same["psnr@60"], same["ssim@60"]) == (100, pytest.approx(1))
    assert abs(same["rfd_probe@60"]) < 1e-6


WRONG = [
    (("ckpt=AE", "metrics=[fid,precision]"), r"fid, precision are of models that draw, .*ckpt is a checkpoint of model=autoencoder; type"),
    (
        ("ckpt=AE", "metrics=[psnr,fd_probe]"),
        r"fd_probe is of models that draw, .*type metrics=\[psnr,ssim,rfid\], or \[psnr,ssim,rfd_probe\]",
    ),
    (("ckpt=AE", "metrics=[condition]"), r"condition is of models that draw"),
    (("ckpt=AE", "metrics=[psnr]", "n=20"), r"n is of models that draw, .*model=autoencoder; type real_n=20"),
    (("ckpt=AE", "metrics=[psnr]", "images=true"), r"images is of models that draw, .*model=autoencoder; leave images out"),
    (("ckpt=AE", "metrics=[psnr]", "sampler.steps=3"), r"sampler is of models that draw, .*model=autoencoder; leave sampler out"),
    (("ckpt=AE", "metrics=[psnr]", "guidance=2"), r"guidance is of models that draw, .*model=autoencoder; leave guidance out"),
    (("ckpt=[AE,RUN]", "metrics=[psnr]"), r"psnr compares images one by one, .*model=ddpm, which draws its own; give one of model=auto"),
    (("ckpt=RUN", "metrics=[rfd_probe]"), r"rfd_probe compares images one by one, .*model=ddpm"),
    (("ckpt=AE", "metrics=[psnr]", "data.resolution=32"), r"step-00000006 is 16 px with 3 channels, the real images are 32 px with 3"),
    (("ckpt=AE", "metrics=[lpips]"), r"lpips needs images of at least 31 px; got 16; leave lpips out"),
    (("ckpt=AE", "metrics=[rfd_probe]", "real_n=1"), r"rfd_probe needs at least 2 real images; got 1; type a higher real_n="),
    (("ckpt=AE", "metrics=[psnr]", "real_n=61"), r"real_n=61 is more than the 60 images of split=held_out; leave real_n out"),
    (("ckpt=AE", "metrics=[psnr]", "data.held_out=0"), r"split=held_out: no image of the data is held out; type split=train"),
    (("ckpt=AE", "metrics=[rfd_probe]", "probe=AE"), r"is a checkpoint of model=autoencoder; give one of model=probe"),
    (("ckpt=AE", "metrics=[psnr]", "ema=5"), r"ema=5 is not in .*; allowed: 10000, raw"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_what_is_wrong_is_told_before_anything_is_computed(
    home: Path, tmp_path: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "alexnet.pth"
    weights.touch()
    monkeypatch.setattr("facegen.metrics.lpips.LPIPS", lambda *_: type("Network", (), {"identity": {}})())
    for source in (Reconstructed, Generated):
        monkeypatch.setattr(source, "batches", lambda *_: pytest.fail("an image was made"))
    spelled = [argument.replace("AE", str(home / "ae")).replace("RUN", str(home / "run")) for argument in arguments]
    with pytest.raises(UserError, match=message) as error:
        evaluated(home, f"cache_dir={tmp_path / 'cache'}", f"lpips_weights={weights}", *spelled)
    assert len(error.value.lines) == 1
