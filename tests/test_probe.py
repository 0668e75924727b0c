"""The probe learns what the data is labelled with, is enough in a checkpoint alone, and says the same of an image in any batch."""

from __future__ import annotations

import csv
import hashlib
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from runs import configure, in_child, tiny

import facegen.families.probe
import facegen.networks.probe
import facegen.training  # noqa: F401 (imported before the forks, which then start warm)
from facegen import images
from facegen.checkpoint import read, steps, write
from facegen.data.faces import Cartoon, UTKFace
from facegen.errors import UserError
from facegen.experiment import load, load_probe, resolve, sample, train
from facegen.families.labels import Labels
from facegen.families.probe import Probe, shifted
from facegen.metrics.probe import ProbeExtractor
from facegen.networks.probe import Classifier, ProbeNet

ROOT = Path(__file__).parent.parent
LABELS = Labels(["Male", "0-2", "3-6", "7-10", "Smiling"], {"age": ["0-2", "3-6", "7-10"]})
SMALL = (
    "model=probe",
    "model.network.widths=[16,32]",
    "data.resolution=16",
    "trainer.precision=32",
    "trainer.threads=1",
    "logger.tensorboard=false",
)


def small(run_dir: Path, *overrides: str) -> DictConfig:
    return configure("train", *SMALL, f"run_dir={run_dir}", *overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe of cartoon faces, trained for seconds."""
    run_dir = tmp_path_factory.mktemp("probe")
    options = ("optimizer.lr=3e-3", "optimizer.decay=cosine", "ema.halflives=[2000,500]", "data.batch_size=32", "data.size=3000")
    train(small(run_dir, *options, "data.held_out=500", "trainer.max_steps=300", "trainer.validate_every=100", "trainer.log_every=10"))
    return run_dir


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("painter")
    train(tiny(run_dir, "trainer.max_steps=1", "preview.count=0"))
    return run_dir


def last_metrics(run_dir: Path) -> dict[str, float]:
    rows = [row for row in csv.DictReader((run_dir / "metrics.csv").open()) if row["val/loss"]]
    return {name: float(value) for name, value in rows[-1].items() if value}


def test_the_loss_is_the_mean_cross_entropy_of_all_questions() -> None:
    logits = torch.tensor([[0.3, 1.0, 2.0, -1.0, -0.7]])
    truth = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]])
    male, smiling = -math.log(1 / (1 + math.exp(-0.3))), -math.log(1 - 1 / (1 + math.exp(0.7)))
    age = math.log(math.exp(1.0) + math.exp(2.0) + math.exp(-1.0)) - 2.0
    assert LABELS.losses(logits, truth).tolist() == pytest.approx([(male + smiling + age) / 3])


def test_a_group_that_is_not_known_teaches_nothing() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    truth = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0]])
    for smoothing in (0.0, 0.1):
        (slope,) = torch.autograd.grad(LABELS.losses(logits, truth, smoothing).sum(), logits)
        assert slope[0, 1:4].tolist() == [0, 0, 0]
        assert slope[1, 1:4].abs().min() > 0
        assert slope[:, [0, 4]].abs().min() > 0


def test_a_smoothed_truth_is_not_surpassed_by_being_surer() -> None:
    truth = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]])
    sure = torch.tensor([[9.0, -9.0, 9.0, -9.0, -9.0]])
    logits = torch.tensor([[math.log(0.95 / 0.05), 0.0, math.log((0.9 + 0.1 / 3) / (0.1 / 3)), 0.0, math.log(0.05 / 0.95)]])
    losses = [LABELS.losses(x, truth, 0.1).item() for x in (logits, sure, logits + 0.1 * torch.randn(1, 5))]
    assert losses[0] == min(losses)
    assert LABELS.losses(sure, truth).item() < LABELS.losses(logits, truth).item()


def test_ranges_of_years_have_a_middle_and_other_groups_none() -> None:
    years = LABELS.years("age")
    assert years is not None
    assert years.tolist() == [1.0, 4.5, 8.5]
    assert Labels(["a", "1-2"], {"mixed": ["a", "1-2"]}).years("mixed") is None


@pytest.mark.parametrize(
    ("names", "groups"),
    [([], {}), (["a", "a"], {}), (["a"], {"g": ["b"]}), (["a"], {"g": []}), (["a", "b"], {"g": ["a"], "h": ["a", "b"]})],
)
def test_labels_that_cannot_be_are_refused(names: list[str], groups: dict[str, list[str]]) -> None:
    with pytest.raises(UserError, match=r"condition_names=.* cannot be: "):
        Labels(names, groups)


def test_a_shifted_image_is_the_image_elsewhere() -> None:
    x = torch.randn(64, 2, 6, 6)
    torch.manual_seed(0)
    moved = shifted(x, 1)
    assert moved.shape == x.shape
    offsets = set()
    for before, after in zip(x, moved, strict=True):
        found = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if torch.equal(after[:, 1:5, 1:5], before[:, 1 + i : 5 + i, 1 + j : 5 + j])]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) == 9
    assert torch.equal(shifted(x, 0), x)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [8, 17, 32, 64])
def test_one_network_takes_every_resolution(channels: int, resolution: int) -> None:
    classifier = Classifier(ProbeNet(channels=channels, widths=[8, 16], features=24, blocks=2), 5)
    x = torch.randn(2, channels, resolution, resolution)
    assert classifier.features(x).shape == (2, 24)
    assert classifier(x).shape == (2, 5)
    assert not list(classifier.buffers())  # averaged weights are all there is


def test_the_data_says_which_labels_exclude_each_other() -> None:
    data = Cartoon(resolution=16, channels=3, batch_size=4, seed=0, size=300, held_out=0)
    data.prepare()
    facts = data.facts()
    labels = Labels(facts["condition_names"], facts["condition_groups"])
    assert {name: len(columns) for name, columns in labels.groups.items()} == {"age": 10, "group": 3}
    assert len(labels.attributes) == 32
    _, truth = data._source.read(np.arange(300))
    assert all((truth[:, columns].sum(axis=1) == 1).all() for columns in labels.groups.values())
    assert {name: len(columns) for name, columns in UTKFace.reader.condition_groups.items()} == {"age": 10, "race": 5}


def test_a_probe_learns_the_labels_of_cartoon_faces(trained: Path) -> None:
    found = last_metrics(trained)
    assert found["val/accuracy_group"] > 0.9  # chance: 0.33
    assert found["val/accuracy_age"] > 0.25  # the commonest group: 0.2
    assert found["val/balanced_accuracy"] > 0.55
    assert 0 < found["val/age_error"] < 20
    assert found["val/loss"] < 0.5


def test_a_probe_draws_no_previews_but_a_curve(trained: Path) -> None:
    assert not (trained / "previews").exists()
    assert (trained / "loss.png").stat().st_size > 0


def test_what_is_measured_does_not_depend_on_how_it_is_batched(trained: Path) -> None:
    classifier = load_probe(str(trained)).probe
    data = Cartoon(resolution=16, channels=3, batch_size=64, seed=0, size=64, held_out=200)
    data.prepare()
    facts = data.facts()
    sums = []
    for size in (200, 7):
        probe = Probe(classifier.network, None, facts["condition_names"], facts["condition_groups"])  # type: ignore[arg-type]
        probe.classifier = classifier
        pixels, truth = data._source.read(64 + np.arange(200))
        for rows in torch.arange(200).split(size):
            probe.validation_step({"image": images.to_float(torch.from_numpy(pixels)[rows]), "condition": torch.from_numpy(truth)[rows]}, 0)
        sums.append(probe._held_out)
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-3)


def test_a_checkpoint_alone_has_the_weights_the_names_and_the_groups(trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "moved.ckpt"
    alone.write_bytes(steps(trained)[-1].read_bytes())
    loaded, stored = load_probe(str(alone)), read(alone)
    assert loaded.sha256 == hashlib.sha256(alone.read_bytes()).hexdigest()
    assert (loaded.data["resolution"], loaded.data["channels"], len(loaded.data["condition_names"])) == (16, 3, 45)
    assert list(loaded.data["condition_groups"]) == ["age", "group"]
    assert not loaded.probe.training
    for asked, kept in ((None, stored["ema"]["2000"]), ("500", stored["ema"]["500"]), ("raw", stored["state_dict"])):
        weights = dict(load_probe(str(alone), asked).probe.named_parameters())
        assert {f"classifier.{name}" for name in weights} == set(kept)
        assert all(torch.equal(weights[name.removeprefix("classifier.")], value) for name, value in kept.items())
        assert not any(weight.requires_grad for weight in weights.values())


def test_a_run_means_its_best_checkpoint_or_its_newest(trained: Path, tmp_path: Path) -> None:
    assert load_probe(str(trained)).path.name == "best.ckpt"
    (tmp_path / "checkpoints").mkdir()
    for path in steps(trained):
        (tmp_path / "checkpoints" / path.name).write_bytes(path.read_bytes())
    assert load_probe(str(tmp_path)).path.name == "step-00000300.ckpt"


def test_a_probe_is_not_sampled_and_a_painter_is_no_probe(trained: Path, painter: Path) -> None:
    with pytest.raises(UserError, match=r"is a checkpoint of model=probe, which draws nothing; .*ckpt=RUN_OR_FILE") as caught:
        sample(configure("sample", f"ckpt={trained}"))
    assert len(caught.value.lines) == 1
    assert load(str(painter)).provenance["family"] == "ddpm"
    with pytest.raises(UserError, match=r"is a checkpoint of model=ddpm; give one of model=probe"):
        load_probe(str(painter))


@pytest.mark.parametrize(
    "data",
    [
        {"condition_groups": {"age": [{"_target_": "os.getcwd"}]}},
        {"condition_groups": {"_target_": "os.getcwd"}},
        {"condition_names": None},
        {"condition_names": "abc"},
        {"resolution": "32"},
    ],
)
def test_what_a_checkpoint_says_of_its_data_is_plain_or_refused(trained: Path, tmp_path: Path, data: dict[str, Any]) -> None:
    stored = read(trained)
    stored["facegen"]["data"] |= data
    write(stored, tmp_path / "crafted.ckpt")
    with pytest.raises(UserError, match=r"does not say the \w+ of its data: use another checkpoint"):
        load_probe(str(tmp_path / "crafted.ckpt"))


def test_a_probe_says_the_same_of_an_image_in_any_batch(trained: Path) -> None:
    extractor = ProbeExtractor(load_probe(str(trained)), "cpu")
    pixels = torch.randint(0, 256, (70, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = extractor(pixels)
    assert whole["features"].shape == (70, 128)
    assert whole["logits"].shape == (70, 45)
    assert {value.dtype for value in whole.values()} == {np.dtype("float32")}
    for parts in (pixels.split(1), pixels.split(33)):
        for name in ("features", "logits"):
            assert np.array_equal(np.concatenate([extractor(part)[name] for part in parts]), whole[name])


def test_an_extractor_brings_images_to_the_probes_size_and_channels(trained: Path) -> None:
    extractor = ProbeExtractor(load_probe(str(trained)), "cpu")
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    larger = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert np.abs(extractor(larger)["features"] - extractor(pixels)["features"]).mean() < 0.2
    grey = pixels[:, :1]
    assert np.array_equal(extractor(grey)["features"], extractor(grey.repeat(1, 3, 1, 1))["features"])
    with pytest.raises(UserError, match=r"images must be uint8 in 0\.\.255; got torch\.float32; convert with facegen\.images\.to_uint8"):
        extractor(pixels.float())
    with pytest.raises(UserError, match=r"1 or 3 channels; got \(2, 2, 16, 16\)"):
        extractor(pixels[:, :2])


def test_an_extractor_says_what_it_is(trained: Path) -> None:
    loaded = load_probe(str(trained))
    identity = ProbeExtractor(loaded, "cpu").identity
    assert identity["sha256"] == loaded.sha256
    assert identity["data"] == loaded.data["fingerprint"]
    assert (identity["name"], identity["ema"], identity["resolution"], identity["dtype"]) == ("probe", "2000", "16", "float32")


def test_a_grey_probe_sees_the_luma_of_colours(tmp_path: Path) -> None:
    train(small(tmp_path, "data.channels=1", "trainer.max_steps=1", "data.size=100", "data.held_out=64"))
    extractor = ProbeExtractor(load_probe(str(tmp_path)), "cpu")
    colour = torch.tensor([[10], [200], [90]], dtype=torch.uint8).expand(1, 3, 256).reshape(1, 3, 16, 16)
    luma = torch.full((1, 1, 16, 16), round(0.299 * 10 + 0.587 * 200 + 0.114 * 90), dtype=torch.uint8)
    assert np.allclose(extractor(colour)["features"], extractor(luma)["features"], atol=1e-2)


def test_a_killed_probe_ends_where_an_unstopped_one_ends(tmp_path: Path) -> None:
    options = ("trainer.max_steps=20", "checkpoint.every=3", "trainer.validate_every=4", "trainer.validate_batches=1")
    options += ("data.batch_size=8", "data.size=100", "data.held_out=64", "ema.halflives=[50]", "optimizer.decay=cosine")
    options += ("model.network.dropout=0.2", "data.flip=true")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert in_child(lambda: train(small(whole, *options))) == 0
    saved = killed / "checkpoints" / "step-00000003.ckpt"
    assert in_child(lambda: train(small(killed, *options)), kill_when=saved.exists) == -signal.SIGKILL
    assert in_child(lambda: train(small(killed, *options))) == 0
    a, b = read(steps(whole)[-1]), read(steps(killed)[-1])
    assert a["global_step"] == b["global_step"] == 20
    for part in ("state_dict", "ema", "optimizer_states"):
        left, right = flat(a[part]), flat(b[part])
        assert left.keys() == right.keys()
        assert [name for name in left if not torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name]))] == [], part


def flat(node: Any, path: str = "") -> dict[str, Any]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else None
    if items is None:
        return {path: node} if torch.is_tensor(node) or isinstance(node, int | float) else {}
    return {k: v for key, value in items for k, v in flat(value, f"{path}/{key}").items()}


def test_data_without_labels_is_told_before_anything_is_built(tmp_path: Path) -> None:
    layouts.folder(tmp_path / "data", 4)
    command = [sys.executable, "-X", "importtime", "train.py", "model=probe", "data=folder", f"data.root={tmp_path / 'data'}"]
    done = subprocess.run([*command, f"run_dir={tmp_path / 'run'}"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line == "error: model=probe needs labels, data=folder has none; type data=celeba64, utkface64 or cartoon"
    assert "| torch\n" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_celeba_without_its_table_is_told_which_file_is_missing(tmp_path: Path) -> None:
    root = layouts.celeba(tmp_path / "celeba", 20, tables="none")
    options = ("data=celeba32", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "data.batch_size=2", "data.resolution=16")
    with pytest.raises(UserError, match=r"model=probe needs labels, data\.root=.* has none: list_attr_celeba\.txt or \.csv is missing"):
        train(small(tmp_path / "run", *options))
    labelled = layouts.celeba(tmp_path / "labelled", 20)
    options = tuple(option.replace(str(root), str(labelled)) for option in options)
    train(small(tmp_path / "labelled run", *options, "trainer.max_steps=1"))
    assert load_probe(str(tmp_path / "labelled run")).data["condition_groups"] == {}


def test_what_the_data_says_is_no_option() -> None:
    with pytest.raises(UserError, match=r"model\.condition_names is not an option of Probe") as caught:
        resolve(configure("train", "model=probe", "model.condition_names=[a]"))
    assert "it has: network, optimizer, shift, smoothing, seed" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.network.groups=7", r"model\.network\.groups must divide each of model\.network\.widths=\[48, 96, 192\]; got 7; type .*=6"),
        ("model.network.widths=[]", r"model\.network\.widths must be one positive integer or more; got \[\]; type .*=\[48,96,192\]"),
        ("model.shift=1", r"model\.shift must be less than 1; got 1"),
    ],
)
def test_options_that_do_not_fit_are_told_before_training(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(configure("train", "model=probe", option))
