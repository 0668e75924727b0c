"""evaluate.py of models that can be told something: their scorecard, and other numbers of what they were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from runs import configure, tiny, tiny_probe

from facegen.errors import UserError
from facegen.experiment import evaluate, train
from facegen.metrics.compare import main as compare
from facegen.request import request_of
from facegen.studio import Studio

DATA = ("data.size=400", "data.held_out=60")
OPTIONS = ("n=16", "sampler.steps=1", "batch_size=64", "device=cpu")


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many images studios draw from now on, by the title of the bar."""
    drawn: dict[str, int] = {}
    batches = Studio.batches

    def counting(studio: Studio, seeds: Any, title: str, *arguments: Any, **options: Any) -> Any:
        drawn[title] = drawn.get(title, 0) + len(seeds)
        return batches(studio, seeds, title, *arguments, **options)

    monkeypatch.setattr(Studio, "batches", counting)
    return drawn


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional model in run/, one that is told nothing in plain/, and a probe in probe/, all hardly trained."""
    home = tmp_path_factory.mktemp("scorecard")
    few = ("preview.count=0", "trainer.max_steps=2", "checkpoint.keep=4")
    train(tiny(home / "run", "model=class_conditional", "data.attributes=[group,Male,Smiling]", *DATA, *few))
    train(tiny(home / "plain", *DATA, *few))
    train(tiny_probe(home / "probe", *DATA, "trainer.max_steps=2"))
    train(tiny_probe(home / "other", *DATA, "trainer.max_steps=1", "data.attributes=[Bald]"))
    return home


def evaluated(home: Path, *arguments: str) -> Any:
    drawn = OPTIONS if any(argument.startswith("ckpt=") for argument in arguments) else ()
    return evaluate(configure("evaluate", *drawn, f"probe={home / 'probe'}", f"cache_dir={home / 'cache'}", *arguments))


def test_a_conditional_checkpoint_gets_a_scorecard_beside_other_numbers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (f"ckpt={home / 'run'}", "metrics=[fd_probe,condition]", "guidance=2", "guidance_interval=[0.1,100]")
    result = evaluated(home, *asked)
    (file,), (maps, curves) = result.files, result.figures
    record = json.loads(file.read_text())
    assert list(record["metrics"]) == ["fd_probe@16", "condition@16"]
    entry = record["metrics"]["condition@16"]
    assert list(entry["hits"]["groups"]) == ["group"]
    assert list(entry["hits"]["attributes"]) == entry["leakage"]["rows"] == ["Male", "Smiling"]
    assert entry["probe"]["count"] == 60
    assert sum(one["real"] for one in entry["distances"]["group"].values()) == 400
    assert {"condition": "as in the data", "guidance": 2.0, "guidance_interval": "[0.1, 100.0]"}.items() <= record["protocol"][
        "generated"
    ].items()
    assert (maps.name, curves.name) == (f"{file.stem}-condition.png", f"{file.stem}-condition-curves.png")
    assert maps.exists()
    assert curves.exists()
    printed = capsys.readouterr().out
    assert "what the probe reads in real images (held out)" in printed
    assert all(name in printed for name in ("Amber", "Smiling", "embedding", "hit rate"))


@pytest.mark.parametrize("option", ["data.held_out=50", "data.size=390"])
def test_images_that_are_split_otherwise_than_the_probes_are_not_said_to_be_held_out(
    home: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluated(home, f"ckpt={home / 'run'}", "metrics=[condition]", "n=9", option, f"out={tmp_path}")
    entry = result.records[0]["metrics"]["condition@9"]
    assert entry["probe"]["images"] == "not known to be held out"
    line = f"perhaps on some of them: its data is split otherwise ({option.partition('=')[0]})"
    assert any(note.endswith(line) for note in entry["notes"])
    assert "what the probe reads in real images (not known to be held out)" in capsys.readouterr().out


def test_a_scorecard_alone_draws_no_other_images_and_can_be_compared(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, asked = counted(monkeypatch), (f"ckpt={home / 'run'}", "metrics=[condition]", "n=8")
    first = evaluated(home, *asked, f"out={tmp_path / 'a'}")
    assert drawn["everything in turn"] == 8
    assert not any("step" in title for title in drawn)
    drawn.clear()
    second = evaluated(home, *asked, f"out={tmp_path / 'b'}")
    assert drawn == {}
    assert first.records == second.records
    assert compare([str(first.files[0]), str(second.files[0])]) == 0
    assert "condition@8" in capsys.readouterr().out
    third = evaluated(home, *asked, "guidance=3", f"out={tmp_path / 'c'}")
    assert compare([str(first.files[0]), str(third.files[0])]) == 1
    assert "generated.guidance: 1.0 and 3.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "count", "scored"),
    [
        (("metrics=[condition]",), 1_000, 1_000),
        (("metrics=[condition,fd_probe]",), 10_000, 1_000),
        (("metrics=[condition,fd_probe]", "n=50"), 50, 50),
        (("metrics=[fd_probe]",), 10_000, 1_000),
    ],
)
def test_a_scorecard_takes_a_thousand_images_where_nothing_is_said(arguments: tuple[str, ...], count: int, scored: int) -> None:
    config: Any = OmegaConf.to_container(configure("evaluate", "ckpt=x", *arguments))
    request = request_of(config)
    assert (request.count, request.scored) == (count, scored)


def test_a_condition_is_asked_of_the_images_that_other_metrics_look_at(home: Path, tmp_path: Path) -> None:
    asked = (f"ckpt={home / 'run'}", "metrics=[fd_probe]", f"out={tmp_path}", "infinity=false", "bootstrap=0")
    amber, teal = (evaluated(home, *asked, f"condition={name}") for name in ("Amber", "Teal"))
    blend = evaluated(home, *asked, "condition={Amber:0.5,Teal:0.5}", "blend=prediction")
    assert amber.records[0]["protocol"]["generated"]["condition"] == "Amber"
    assert blend.records[0]["protocol"]["generated"]["condition"] == "{Amber:0.5,Teal:0.5}"
    assert blend.records[0]["protocol"]["generated"]["blend"] == "prediction"
    assert len({path for one in (amber, teal, blend) for path in one.files}) == 3
    assert len({one.records[0]["metrics"]["fd_probe@16"]["protocol_hash"] for one in (amber, teal, blend)}) == 3


def test_models_that_are_told_nothing_keep_their_protocol(home: Path, tmp_path: Path) -> None:
    result = evaluated(home, f"ckpt={home / 'plain'}", "metrics=[fd_probe]", f"out={tmp_path}", "infinity=false")
    generated = result.records[0]["protocol"]["generated"]
    assert list(generated) == ["source", "count", "first_seed", "sampler", "guidance", "ema", "resolution", "channels"]
    assert generated["guidance"] == 1.0
    weak = ("guidance=2", f"autoguidance={home / 'plain' / 'checkpoints' / 'step-00000002.ckpt'}", "autoguidance_ema=raw")
    guided = evaluated(home, f"ckpt={home / 'plain'}", "metrics=[fd_probe]", f"out={tmp_path}", "infinity=false", *weak)
    assert guided.records[0]["protocol"]["generated"]["autoguidance"].endswith("step-00000002.ckpt")
    assert len(guided.records[0]["protocol"]["generated"]["autoguidance_sha256"]) == 64


WRONG = [
    (
        ("ckpt=plain", "metrics=[condition]"),
        r"condition asks a model for what it can be told, .* is model=ddpm, which is told nothing; leave",
    ),
    (("fake=run", "metrics=[condition]"), r"what it can be told, fake=.*run is a folder; leave it out of metrics"),
    (("ckpt=run", "metrics=[condition]", "real=run"), r"condition looks at labelled images, real=.*run has no labels; leave real out"),
    (
        ("ckpt=run", "metrics=[condition]", "condition=Male"),
        r"metrics=\[condition\] asks for every class and attribute in turn; leave cond",
    ),
    (("ckpt=run", "metrics=[condition]", "images=true"), r"images=true writes the images of other metrics than condition; leave it out"),
    (("ckpt=run", "metrics=[condition]", "n=6"), r"condition asks for 7 things in turn, an image each at least; got n=6; type n=7"),
    (("ckpt=run", "metrics=[condition]", "probe=other"), r"no name in common; train a probe on the same data: python train.py exper"),
    (("ckpt=run", "metrics=[condition]", "probe=null"), r"condition is measured in the features of a probe; type probe=RUN"),
    (("ckpt=run", "metrics=[fd_probe]", "condition=[Amber,Teal]"), r"condition=\[Amber,Teal\] is several; type one of them, or a blend"),
    (("ckpt=run", "metrics=[fd_probe]", "condition=Ambre"), r"Ambre is nothing that this model was told \(did you mean 'Amber'\?\)"),
    (("ckpt=run", "metrics=[fd_probe]", "blend=mix"), r"blend must be one of embedding, prediction, switch; got 'mix'"),
    (("ckpt=plain", "metrics=[fd_probe]", "condition=Male"), r"condition=Male: .* is model=ddpm, which is told nothing"),
    (("ckpt=run", "metrics=[fd_probe]", "guidance_rescale=0.5"), r"guidance_rescale changes nothing at guidance=1; type guidance=2"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_what_is_wrong_is_one_line_before_anything_is_drawn(
    home: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Studio, "batches", lambda *_, **__: pytest.fail("an image was drawn"))
    spelled = [f"{key}={home / value if (home / value).is_dir() else value}" for key, _, value in (one.partition("=") for one in arguments)]
    with pytest.raises(UserError, match=message) as caught:
        evaluated(home, *spelled)
    assert len(caught.value.lines) == 1
