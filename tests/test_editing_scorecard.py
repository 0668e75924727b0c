"""The scorecard of edits as a command: every part is there, the same command gives the same numbers, and what cannot be is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import configure, tiny, tiny_probe

from facegen.asked import Asked
from facegen.editing.editor import Editor
from facegen.editing.scorecard import EditScorecard, unaskable
from facegen.errors import UserError
from facegen.experiment import build, evaluate, load, load_probe, train
from facegen.guiding import direct
from facegen.loading import sampler_of
from facegen.metrics.probe import ProbeExtractor
from facegen.metrics.sources import DataImages
from facegen.reference import Reference
from facegen.studio import Studio

DATA = ("data=cartoon", "data.size=32", "data.held_out=24")
DRAWN = (*DATA, "scheduler=edm", "preview.count=0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEGEN_CACHE", str(home / "cache"))
        train(tiny(home / "pix2pix", "model=pix2pix", *DRAWN))
        train(tiny(home / "told", "model=class_conditional", *DRAWN, "data.attributes=[Male,age]"))
        train(tiny(home / "ddpm", *DRAWN, "trainer.max_steps=1"))
        train(tiny_probe(home / "probe", *DATA))
        train(tiny_probe(home / "ageless", *DATA, "data.attributes=[Male,Smiling]", "trainer.max_steps=1"))
    return {path.name: path for path in home.iterdir()}


def asked(runs: dict[str, Path], run: str, out: Path, *options: str) -> Any:
    told = ("metrics=[edit]", f"probe={runs['probe']}", f"out={out}", f"cache_dir={out / 'cache'}", "n=12", "device=cpu")
    return evaluate(configure("evaluate", f"ckpt={runs[run]}", *told, *options))


def test_every_part_of_the_card_is_measured_and_written(runs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    result = asked(runs, "pix2pix", tmp_path, "guidance=2")
    entry = json.loads(result.files[0].read_text())["metrics"]["edit@12"]
    assert entry["value"] == entry["age"]["years"] > 0
    assert {"age", "probe", "unedited", "identity", "outside", "drift", "eyes", "true", "guidance", "groups", "notes"} <= set(entry)
    assert entry["age"]["count"] == 12
    assert np.sum(entry["age"]["confusion"]) == 12
    assert {(point["guidance"], point["image_guidance"]) for point in entry["guidance"]} == {
        (a, b) for a in (1.0, 2.0, 3.0, 5.0) for b in (1.0, 1.5, 2.0)
    }
    assert any(point["best"] for point in entry["guidance"])
    assert entry["protocol"]["options"]["method"] == "edit"
    assert [path.name.endswith("-edit.png") for path in result.figures] == [True]
    printed = capsys.readouterr().out
    for part in ("edited", "identity: cosine", "outside the face: PSNR", "eyes: sharpness", "to the true picture", "image guidance"):
        assert part in printed


def test_the_same_command_gives_the_same_numbers_from_what_was_kept(runs: dict[str, Path], tmp_path: Path) -> None:
    first = asked(runs, "pix2pix", tmp_path, "curve=false").records[0]["metrics"]["edit@12"]
    assert first["guidance"] == []
    again = asked(runs, "pix2pix", tmp_path, "curve=false").records[0]["metrics"]["edit@12"]
    assert again == first


def test_another_weight_is_another_number(runs: dict[str, Path], tmp_path: Path) -> None:
    values = [asked(runs, "pix2pix", tmp_path, "curve=false", f"guidance={w}").records[0]["metrics"]["edit@12"] for w in (1, 5)]
    assert values[0]["identity"] != values[1]["identity"]


@pytest.mark.parametrize("options", [("method=sdedit", "strength=0.3"), ("method=invert", "sampler=ddim", "sampler.steps=3")])
def test_models_that_were_not_trained_to_edit_have_a_card_too(runs: dict[str, Path], tmp_path: Path, options: tuple[str, ...]) -> None:
    entry = asked(runs, "told", tmp_path, "curve=false", *options).records[0]["metrics"]["edit@12"]
    assert entry["protocol"]["options"]["method"] == options[0].partition("=")[2]


def card(runs: dict[str, Path], home: Path, count: int = 24) -> EditScorecard:
    loaded = load(str(runs["pix2pix"]))
    sampler = build(sampler_of(loaded, None))
    studio = Studio(loaded, sampler, 64, "cpu", direct(loaded, Asked(), lambda *_: loaded))
    data = build({**loaded.config["data"], "attributes": None, "batch_size": 1})
    data.prepare()
    reference = Reference(home, DataImages(data, "held_out"), data, loaded.config["data"])
    return EditScorecard(Editor(studio), ProbeExtractor(load_probe(str(runs["probe"])), "cpu"), reference, home, 0, count, curve=False)


def test_nobody_is_asked_for_their_own_age_and_all_steps_come_equally_often(runs: dict[str, Path], tmp_path: Path) -> None:
    scored = card(runs, tmp_path, 18)
    assert len(scored.subjects.asked) == 18
    steps = (scored.subjects.asked - scored.subjects.own) % len(scored.reader.groups)
    assert np.bincount(steps).tolist() == [0, *[2] * 9]
    male = scored.subjects.labels(["Male"])[:, 0] > 0.5
    assert [wish.gender == "male" for wish in scored.subjects.wishes(scored.editor.loaded)] == male.tolist()


def test_a_perfect_edit_is_right_in_everything_that_is_exact(runs: dict[str, Path], tmp_path: Path) -> None:
    scored = card(runs, tmp_path)
    assert scored.subjects.true is not None
    exact = scored.exact(scored.subjects.true[0])
    assert exact["psnr"] == 100
    assert (exact["nearest_right"], exact["nearest_near"]) == (1.0, 1.0)
    assert exact["psnr_unedited"] < 40


def test_doing_nothing_keeps_everything_but_the_age(runs: dict[str, Path], tmp_path: Path) -> None:
    scored = card(runs, tmp_path)
    features, _ = scored._said
    assert scored.identity(features)["found"] == 1
    assert scored.outside(scored.subjects.photographs)["psnr"] == 100
    assert scored.exact(scored.subjects.photographs)["nearest_right"] < 0.2


class Difference:
    """In place of LPIPS, whose weights are not at hand: the mean difference of two pictures."""

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.float() - b.float()).abs().mean(dim=(1, 2, 3))


def test_what_changes_in_the_face_is_no_change_outside_it(runs: dict[str, Path], tmp_path: Path) -> None:
    scored = card(runs, tmp_path)
    scored.lpips = Difference()
    inner, outer = scored.subjects.photographs.copy(), scored.subjects.photographs.copy()
    inner[:, :, 6:10, 6:10] = 0
    outer[:, :, :2] = 0
    assert scored.outside(inner) == {"psnr": 100, "lpips": 0}
    assert scored.outside(outer)["lpips"] > 0
    assert not any("no LPIPS" in note for note in scored.notes)


def test_what_cannot_be_asked_or_read_is_told(runs: dict[str, Path]) -> None:
    probe, ageless = (ProbeExtractor(load_probe(str(runs[name])), "cpu") for name in ("probe", "ageless"))
    assert unaskable(load(str(runs["pix2pix"])), probe) == []
    [line] = unaskable(load(str(runs["ddpm"])), probe)
    assert "is told no age groups; leave edit out of metrics, or train one: python train.py experiment=pix2pix_cpu" in line
    [line] = unaskable(load(str(runs["pix2pix"])), ageless)
    assert line.startswith("edit: the probe reads no age groups, but Male, Smiling")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["metrics=[edit,fd_probe]"],
            r"^metrics=\[edit\] edits held-out photographs, other metrics draw faces; measure them by a",
        ),
        (["real=somewhere"], r"^edit looks at people of known ages, real=somewhere has no labels; leave real out, or type data=NAME$"),
        (["condition={Male:1}"], r"^metrics=\[edit\] asks for every age in turn; leave condition= out$"),
        (["guidance=0.5"], r"^guidance=0.5: below 1 it would lead away from what is asked; type guidance=1 or more$"),
        (["strength=0.5", "method=edit"], r"^strength=0.5 is of method=sdedit and invert; leave it out, or type method=sdedit$"),
        (["metrics=[fd_probe]", "method=sdedit"], r"^method=sdedit is of edits; leave method out, or type metrics=\[edit\]$"),
        (["method=blur"], r"^method must be one of edit, sdedit, invert, null; got 'blur'"),
    ],
)
def test_a_card_that_cannot_be_is_one_line(runs: dict[str, Path], tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        asked(runs, "pix2pix", tmp_path, *options)
    assert len(caught.value.lines) == 1
