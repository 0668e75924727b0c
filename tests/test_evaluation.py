"""evaluate.py: from a checkpoint alone to numbers that can be repeated, resumed and traced."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import configure, in_child, tiny, tiny_probe

from facegen import checkpoint
from facegen.errors import UserError
from facegen.experiment import evaluate, train
from facegen.images import read_provenance, save_png
from facegen.metrics.sources import Generated

ROOT = Path(__file__).parent.parent
DRAWN = ("n=300", "sampler.steps=2")
SMALL = ("kid_subset_size=50", "kid_subsets=5", "bootstrap=3", "batch_size=64")
DATA = ("data.size=400", "data.held_out=60")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in run/ (steps 3, 6, 9 and 10 kept) and a probe in probe/, both hardly trained."""
    home = tmp_path_factory.mktemp("evaluation")
    train(tiny(home / "run", *DATA, "checkpoint.keep=4"))
    train(tiny_probe(home / "probe", *DATA))
    return home


def evaluated(home: Path, *arguments: str) -> Any:
    drawn = DRAWN if not any(argument.startswith("fake=") for argument in arguments) else ()
    return evaluate(configure("evaluate", *SMALL, *drawn, f"probe={home / 'probe'}", f"cache_dir={home / 'cache'}", *arguments))


def values(result: Any, place: int = 0) -> dict[str, float]:
    return {name: entry["value"] for name, entry in result.records[place]["metrics"].items()}


METRICS = "metrics=[fd_probe,kid_probe,mifd_probe,precision,recall,density,coverage,neighbours]"


def test_a_checkpoint_alone_gives_every_number_with_its_protocol(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluated(home, f"ckpt={home / 'run'}", METRICS)
    file, listing = result.files
    record = json.loads(file.read_text())
    assert file.parent == home / "run" / "evaluations"
    rows = [*csv.DictReader(listing.open())]
    assert len(rows) == 300 * 2 * 5
    assert {int(row["image"]) for row in rows} == set(range(300))
    assert {int(row["training_image"]) for row in rows} <= set(range(400))
    assert list(record["metrics"]) == [
        *(f"{name}_probe@300" for name in ("fd", "kid", "mifd", "precision", "recall", "density", "coverage", "neighbours"))
    ]
    assert all(np.isfinite(value) for value in values(result).values())
    protocol = record["protocol"]
    assert {"split", "crop", "filter", "fingerprint", "count", "resolution", "channels"} <= set(protocol["real"])
    assert (protocol["real"]["split"], protocol["real"]["count"]) == ("train", 400)
    assert {"count", "first_seed", "sampler", "guidance", "ema"} <= set(protocol["generated"])
    assert {"facegen", "torch", "torchmetrics", "torch-fidelity"} <= set(protocol["software"])
    assert len(record["metrics"]["fd_probe@300"]["protocol"]["extractor"]["sha256"]) == 64
    assert "interval" in record["metrics"]["fd_probe@300"]
    assert "infinity" in record["metrics"]["fd_probe@300"]
    assert record["subject"]["step"] == "10"
    (figure,) = result.figures
    assert figure.exists()
    assert "fd_probe@300" in capsys.readouterr().out


def test_the_same_command_gives_the_same_number_whatever_the_batch_and_from_nothing(home: Path, tmp_path: Path) -> None:
    asked = (f"ckpt={home / 'run'}", "metrics=[fd_probe,kid_probe]")
    first = evaluated(home, *asked, f"out={tmp_path / 'a'}")
    again = evaluated(home, *asked, f"cache_dir={tmp_path}", "batch_size=17", f"out={tmp_path / 'b'}")
    assert values(first) == values(again)
    assert [record["protocol"] for record in first.records] == [record["protocol"] for record in again.records]
    assert first.files[0].name == again.files[0].name


def test_a_killed_evaluation_goes_on_where_it_was(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (f"ckpt={home / 'run'}", "metrics=[fd_probe]", "n=1200", f"cache_dir={tmp_path / 'c'}", f"out={tmp_path}")
    written = lambda: len([*(tmp_path / "c").glob("features/*/*.npz")])  # noqa: E731
    whole = evaluated(home, *asked, f"cache_dir={tmp_path / 'whole'}")
    assert in_child(lambda: evaluated(home, *asked), kill_when=lambda: written() >= 4) == -9
    assert not [*tmp_path.glob("*.json")][1:]
    assert 4 <= written() < 7
    drawn: list[int] = []
    batches = Generated.batches

    def counted(self: Generated, numbers: Any, kept: int) -> Any:
        drawn.extend(numbers)
        return batches(self, numbers, kept)

    monkeypatch.setattr(Generated, "batches", counted)
    assert values(evaluated(home, *asked)) == values(whole)
    assert 0 < len(drawn) < 1200


def test_several_checkpoints_share_one_pass_over_the_real_images(home: Path, tmp_path: Path) -> None:
    steps = sorted((home / "run" / "checkpoints").glob("step-*.ckpt"))
    listed = ",".join(map(str, steps))
    result = evaluated(home, f"ckpt=[{listed}]", "metrics=[fd_probe]", f"cache_dir={tmp_path}")
    assert len(result.records) == len(steps) == 4
    assert len({value for record in result.records for value in [record["metrics"]["fd_probe@300"]["value"]]}) == 4
    assert len({record["metrics"]["fd_probe@300"]["protocol_hash"] for record in result.records}) == 1
    assert len([*(tmp_path / "features").iterdir()]) == len(steps) + 1


def test_images_written_to_a_folder_measure_as_those_drawn(home: Path, tmp_path: Path) -> None:
    drawn = evaluated(home, f"ckpt={home / 'run'}", "metrics=[fd_probe,kid_probe]", "images=true", f"out={tmp_path}", "n=260")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert len([*folder.glob("*.png")]) == 260
    assert read_provenance(folder / "000007.png")["seed"] == "7"
    given = evaluated(
        home, f"fake={folder}", "data=cartoon", "data.resolution=16", *DATA, "metrics=[fd_probe,kid_probe]", f"out={tmp_path}"
    )
    assert values(given) == values(drawn)


def faces(folder: Path, count: int, first: int = 0, size: int = 16) -> Path:
    from facegen.data.drawn import DrawnImages

    for i, image in enumerate(DrawnImages(size, 3).read(first + np.arange(count))[0]):
        save_png(image, folder / f"{i:04d}.png", {})
    return folder


def test_a_folder_against_itself_is_at_no_distance_and_against_others_at_some(home: Path, tmp_path: Path) -> None:
    a, b = faces(tmp_path / "a", 120), faces(tmp_path / "b", 130, first=1000)
    asked = ("metrics=[fd_probe,precision,recall,density,coverage,neighbours]", f"out={tmp_path}")
    same, other = (values(evaluated(home, f"fake={a}", f"real={real}", *asked)) for real in (a, b))
    assert abs(same["fd_probe@120"]) < 1e-6
    assert [same[f"{name}_probe@120"] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert same["neighbours_probe@120"] == 0
    assert other["fd_probe@120"] > 1e-3
    assert other["neighbours_probe@120"] > 0


def test_images_of_the_same_names_are_compared_one_by_one(home: Path, tmp_path: Path) -> None:
    a, b = faces(tmp_path / "a", 20), faces(tmp_path / "b", 20, first=500)
    asked = ("metrics=[psnr,ssim,rfd_probe]", f"out={tmp_path}")
    same, other = (values(evaluated(home, f"fake={a}", f"real={real}", *asked)) for real in (a, b))
    assert same["ssim@20"] == pytest.approx(1)
    assert same["psnr@20"] == 100 > other["psnr@20"]
    assert abs(same["rfd_probe@20"]) < 1e-6 < other["rfd_probe@20"]
    (a / "0003.png").rename(a / "x.png")
    with pytest.raises(UserError, match=r"must hold images of the same names; 0003 is in one only"):
        evaluated(home, f"fake={a}", f"real={b}", *asked)


WRONG = [
    (("ckpt=RUN", "metrics=[fd_prob]"), r"fd_prob is not a metric \(did you mean 'fd_probe'\?\); allowed: fid, is"),
    (("ckpt=RUN", "metrics=[]"), r"metrics must name at least one metric"),
    (("metrics=[fd_probe]",), r"ckpt is required; type ckpt=RUN_OR_FILE, or fake=FOLDER real=FOLDER"),
    (("ckpt=RUN", "fake=A", "metrics=[fd_probe]"), r"one of them is measured; leave the other out"),
    (("fake=A", "metrics=[fd_probe]"), r"fd_probe compares fake=.* with real images; type real=FOLDER"),
    (("ckpt=RUN", "real=A", "data=cartoon", "metrics=[fd_probe]"), r"one of them is measured against"),
    (
        ("ckpt=RUN", "metrics=[psnr]"),
        r"psnr compares images one by one, .*step-00000010.ckpt is a checkpoint of model=ddpm, which draws its own;",
    ),
    (("fake=A", "data=cartoon", "metrics=[psnr]"), r"psnr compares images one by one, by their names; type fake=FOLDER real=FOLDER"),
    (("ckpt=RUN", "metrics=[kid_probe]", "kid_subset_size=1000"), r"kid_probe needs at least 1,000 generated images; got 300"),
    (
        ("ckpt=RUN", "metrics=[kid_probe]", "n=2000", "kid_subset_size=1000"),
        r"kid_probe needs at least 1,000 real images; got 400; type a lower kid_subset_size=",
    ),
    (("ckpt=RUN", "metrics=[fd_probe]", "guidance=2"), r"guidance=2: .* is model=ddpm, which has no condition to be guided by"),
    (("ckpt=RUN", "metrics=[fd_probe]", "ema=5"), r"ema=5 is not in .*; allowed: 10000, raw"),
    (("ckpt=RUN", "metrics=[fd_probe]", "data.resolution=32"), r"step-00000010 is 16 px with 3 channels, the real images are 32 px with 3"),
    (("ckpt=RUN", "metrics=[fd_probe]", "data.channels=1"), r"the real images are 16 px with 1 channel: both must be alike"),
    (("ckpt=RUN", "metrics=[fd_probe]", "real=B"), r"the real images are 24 px with 3 channels"),
    (("ckpt=RUN", "metrics=[fd_probe]", "real=NONE"), r"real=.*NONE is no folder"),
    (("ckpt=RUN", "metrics=[fd_probe]", "probe=RUN"), r"is a checkpoint of model=ddpm"),
    (
        ("ckpt=RUN", "metrics=[fd_probe]", "probe=null"),
        r"fd_probe is measured in the features of a probe; type probe=RUN; train one by: python",
    ),
    (("ckpt=PROBE", "metrics=[fd_probe]"), r"is a checkpoint of model=probe, which draws nothing"),
    (("ckpt=RUN", "metrics=[fd_probe]", "real_n=0"), r"real_n must be greater than 0; got 0"),
    (("ckpt=RUN", "metrics=[neighbours_probe]", "real_n=5"), r"neighbours looks among all training images; got real_n=5"),
    (("ckpt=RUN", "metrics=[fd_probe]", "split=val"), r"split must be one of train, held_out, all, null; got 'val'"),
    (("ckpt=RUN", "metrics=[fd_probe]", "sampler.steps=0"), r"sampler.steps must be greater than 0; got 0"),
    (("ckpt=RUN", "metrics=[fd_probe]", "data.rot=x"), r"data.rot is not an option of Cartoon"),
    (
        ("fake=A", "real=A", "metrics=[fd_probe]", "n=300", "guidance=2"),
        r"guidance is of models that draw, fake=.* is a folder; leave guidance out",
    ),
    (("ckpt=RUN", "metrics=[fd_probe]", "real_n=401"), r"real_n=401 is more than the 400 images of split=train; leave real_n out"),
    (("ckpt=RUN,RUN", "metrics=[fd_probe]"), r"several are typed ckpt=\[RUN,RUN\]"),
    (("ckpt=RUN", "metrics=[fd_probe]", "cache_dir=FILE/x"), r"cache_dir=.*FILE/x/features cannot be written"),
    (("ckpt=RUN", "metrics=[fd_probe]", "bootstrap=1"), r"bootstrap must be 0 \(no interval\), or 2 and more draws; got 1"),
    (("ckpt=RUN", "metrics=[kid_probe]", "kid_subset_size=1"), r"kid_subset_size must be at least 2; got 1"),
    (("ckpt=RUN", "metrics=[fd_probe]", "out=FILE/x"), r"out=.*FILE/x cannot be written"),
    (("ckpt=RUN", "metrics=[fd_probe]", "device=cuda"), r"device=cuda: torch finds no graphics card"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_what_is_wrong_is_told_before_anything_is_drawn(
    home: Path, tmp_path: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces(tmp_path / "A", 3)
    faces(tmp_path / "B", 3, size=24)
    (tmp_path / "FILE").touch()
    places = {
        "FILE/x": tmp_path / "FILE" / "x",
        "RUN": home / "run",
        "PROBE": home / "probe",
        "A": tmp_path / "A",
        "B": tmp_path / "B",
        "NONE": tmp_path / "NONE",
    }
    spelled = [f"{key}={places.get(value, value)}" for key, _, value in (argument.partition("=") for argument in arguments)]
    monkeypatch.setattr(Generated, "batches", lambda *_: pytest.fail("an image was drawn"))
    with pytest.raises(UserError, match=message):
        evaluated(home, f"cache_dir={tmp_path / 'cache'}", *spelled)


def test_noise_and_a_model_hardly_trained_are_farther_than_other_faces(home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(300):
        save_png(rng.integers(0, 256, (3, 16, 16), dtype=np.uint8), tmp_path / "noise" / f"{i:03d}.png", {})
    data = ("data=cartoon", "data.resolution=16", *DATA, "metrics=[fd_probe]", f"out={tmp_path}")
    noise, other = evaluated(home, f"fake=[{tmp_path / 'noise'},{faces(tmp_path / 'other', 300, first=5000)}]", *data).records
    (model,) = evaluated(home, f"ckpt={home / 'run'}", *data).records
    of_noise, of_model, of_others = (record["metrics"]["fd_probe@300"]["value"] for record in (noise, model, other))
    assert min(of_noise, of_model) > 5 * of_others


def test_a_sweep_measures_one_checkpoint_by_several_samplers(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "evaluate.py"), "-m", f"ckpt={home / 'run'}", "sampler.steps=2,3", f"out={tmp_path}"]
    options = [f"probe={home / 'probe'}", f"cache_dir={tmp_path}", "metrics=[fd_probe]", "n=20", "bootstrap=0", "infinity=false"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    a, b = (json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json")))
    assert [record["protocol"]["generated"]["sampler"] for record in (a, b)] == ["Heun(rho=7.0, steps=2)", "Heun(rho=7.0, steps=3)"]


def test_a_probe_that_is_spoilt_is_told(home: Path, tmp_path: Path) -> None:
    spoilt = checkpoint.read(home / "probe" / "checkpoints" / "best.ckpt")
    for weights in (spoilt["state_dict"], *spoilt["ema"].values()):
        for tensor in weights.values():
            tensor.fill_(float("nan"))
    checkpoint.write(spoilt, tmp_path / "spoilt.ckpt")
    with pytest.raises(UserError, match="the probe network gives NaN: its weights are spoilt; give another probe="):
        evaluated(home, f"ckpt={home / 'run'}", "metrics=[fd_probe]", f"probe={tmp_path / 'spoilt.ckpt'}")


def test_an_interval_once_measured_is_kept(home: Path, tmp_path: Path) -> None:
    asked = (f"ckpt={home / 'run'}", "metrics=[fd_probe]", f"out={tmp_path}")
    before = evaluated(home, *asked)
    after = evaluated(home, *asked, "bootstrap=0", "infinity=false")
    assert after.records == before.records
    other = evaluated(home, *asked, f"probe={home / 'probe' / 'checkpoints' / 'step-00000010.ckpt'}")
    assert len([*tmp_path.glob("*.json")]) == (1 if values(other) == values(before) else 2)


def test_weights_that_are_missing_are_told_with_what_works_without_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr(Generated, "batches", lambda *_: pytest.fail("an image was drawn"))
    with pytest.raises(UserError) as error:
        evaluated(home, f"ckpt={home / 'run'}", "metrics=[fid,is]")
    (line,) = error.value.lines
    for part in ("weights-inception-2015-12-05-6726825d.pth", str(tmp_path), "6726825d0af5f729cebd5821db510b11b1cfad8f", "fd_probe"):
        assert part in line


def test_checkpoints_of_different_data_want_to_be_told_what_to_measure_against(home: Path, tmp_path: Path) -> None:
    train(tiny(tmp_path / "other", "data.size=300", "data.held_out=60"))
    both = f"ckpt=[{home / 'run'},{tmp_path / 'other'}]"
    with pytest.raises(UserError, match=r"trained on different data \(data.size: 400 of .*, 300 of .*\); type data=NAME or real=FOLDER"):
        evaluated(home, both, "metrics=[fd_probe]")
    assert len(evaluated(home, both, "metrics=[fd_probe]", "data=cartoon", "data.resolution=16", *DATA).records) == 2


def test_a_moved_run_is_measured_where_it_lies_now(home: Path, tmp_path: Path) -> None:
    moved = tmp_path / "it's [moved], = here"
    shutil.copytree(home / "run", moved)
    result = evaluated(home, f"ckpt={moved}", "metrics=[fd_probe]")
    assert result.files[0].parent == moved / "evaluations"


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_measure_what_one_does(home: Path, tmp_path: Path, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = faces(tmp_path / "a", 301), faces(tmp_path / "b", 257, first=1000)  # two parts each: the third process has none
    asked = (f"fake={a}", f"real={b}", "metrics=[fd_probe,kid_probe,recall]")
    alone = values(evaluated(home, *asked, f"out={tmp_path / 'alone'}", f"cache_dir={tmp_path / 'c1'}"))

    def rank(number: int) -> Any:
        for key, value in {"RANK": number, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(tmp_path)}.items():
            monkeypatch.setenv(key, str(value))
        return evaluated(home, *asked, f"out={tmp_path / 'together'}", f"cache_dir={tmp_path / 'c2'}")

    _free_port(tmp_path)
    pids = []
    for number in range(1, world):
        if (pid := os.fork()) == 0:
            try:
                rank(number)
                os._exit(0)
            except BaseException:
                os._exit(1)
        pids.append(pid)
    assert in_child(lambda: rank(0)) == 0
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * (world - 1)
    (file,) = (tmp_path / "together").glob("*.json")
    together = {name: entry["value"] for name, entry in json.loads(file.read_text())["metrics"].items()}
    assert together == pytest.approx(alone, rel=1e-6)


def _free_port(folder: Path) -> int:
    """The same free port for every process that asks in `folder`."""
    path = folder / "port"
    if not path.exists():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            path.write_text(str(probe.getsockname()[1]))
    return int(path.read_text())
