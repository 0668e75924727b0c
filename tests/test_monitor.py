"""A metric while training: it keeps the best weights, leaves the training as it was, and never ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import equal
from runs import in_child, tiny, tiny_probe

from facegen import checkpoint
from facegen.callbacks.monitor import Monitor
from facegen.errors import UserError
from facegen.experiment import load, train
from facegen.figures.curves import read_metrics

DATA = ("data.size=200", "data.held_out=60")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("monitor") / "probe"
    train(tiny_probe(run, *DATA))
    return run


def monitored(run: Path, probe: Path, *arguments: str) -> Any:
    options = (f"monitor.probe={probe}", "monitor.every=3", "monitor.images=48", "monitor.steps=2", "monitor.seconds=null")
    return tiny(run, *DATA, *options, "checkpoint.every=5", "trainer.max_steps=12", *arguments)


def final(run: Path) -> dict[str, Any]:
    return checkpoint.read(run)


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    train(tiny(tmp_path / "run", *DATA))
    assert not any("monitor" in name for name in read_metrics(tmp_path / "run" / "metrics.csv"))


@pytest.mark.parametrize("metric", ["fd_probe", "kid_probe"])
def test_the_curve_and_the_best_weights_are_kept(tmp_path: Path, probe: Path, metric: str) -> None:
    train(monitored(tmp_path / "run", probe, f"monitor.metric={metric}"))
    steps, values = read_metrics(tmp_path / "run" / "metrics.csv")[f"monitor/{metric}"]
    assert steps.tolist() == [2, 5, 8, 11]
    best = tmp_path / "run" / "checkpoints" / f"best_{metric}.ckpt"
    assert checkpoint.read(best)["global_step"] == steps[values.argmin()] + 1
    assert load(str(best)).provenance["step"] == str(steps[values.argmin()] + 1)


def test_training_does_not_notice(tmp_path: Path, probe: Path) -> None:
    train(monitored(tmp_path / "with", probe))
    train(monitored(tmp_path / "without", probe, "monitor.every=0"))
    a, b = final(tmp_path / "with"), final(tmp_path / "without")
    for part in ("state_dict", "ema", "optimizer_states"):
        assert equal(a[part], b[part])


def test_a_killed_run_measures_the_same(tmp_path: Path, probe: Path) -> None:
    train(monitored(tmp_path / "whole", probe))
    killed = tmp_path / "killed"
    reached = killed / "checkpoints" / "step-00000005.ckpt"
    assert in_child(lambda: train(monitored(killed, probe)), kill_when=reached.exists) == -9
    train(monitored(killed, probe))
    (steps, one), (again, other) = (read_metrics(run / "metrics.csv")["monitor/fd_probe"] for run in (tmp_path / "whole", killed))
    assert steps.tolist() == again.tolist() == [2, 5, 8, 11]
    assert one.tolist() == other.tolist()
    assert equal(final(tmp_path / "whole")["state_dict"], final(killed)["state_dict"])


def test_a_failure_is_said_and_training_goes_on(
    tmp_path: Path, probe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = Monitor.measure

    def failing(self: Monitor, trainer: Any) -> float:
        if trainer.global_step == 6:
            raise RuntimeError("out of memory\nand more")
        return measure(self, trainer)

    monkeypatch.setattr(Monitor, "measure", failing)
    assert train(monitored(tmp_path / "run", probe)).steps == 12
    assert "fd_probe of step 6 could not be measured (RuntimeError: out of memory)" in "".join(capsys.readouterr())
    assert read_metrics(tmp_path / "run" / "metrics.csv")["monitor/fd_probe"][0].tolist() == [2, 8, 11]


def test_a_short_budget_draws_fewer_images_and_then_always_as_many(tmp_path: Path, probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = Monitor._draw

    def counted(self: Monitor, model: Any) -> Any:
        features = draw(self, model)
        drawn.append(len(features))
        return features

    monkeypatch.setattr(Monitor, "_draw", counted)
    train(monitored(tmp_path / "run", probe, "monitor.images=400", "monitor.seconds=1e-9"))
    assert drawn == [64] * 4
    assert final(tmp_path / "run")["callbacks"]["Monitor"]["count"] == 64


def test_what_it_needs_is_told_before_training(tmp_path: Path, probe: Path) -> None:
    with pytest.raises(UserError, match=r"fd_probe is measured in the features of a probe; type monitor.probe=RUN; train one by: "):
        train(monitored(tmp_path / "run", probe, "monitor.probe=null"))
    with pytest.raises(UserError, match=r"monitor.probe=nowhere: no file 'nowhere'"):
        train(monitored(tmp_path / "run", probe, "monitor.probe=nowhere"))
    with pytest.raises(UserError, match=r"monitor.metric must be one of kid, kid_probe, fd_probe; got 'fid'"):
        train(monitored(tmp_path / "run", probe, "monitor.metric=fid"))
    with pytest.raises(UserError, match=r"monitor.steps must be at most scheduler.steps=20; got 50; type monitor.steps=20"):
        train(monitored(tmp_path / "run", probe, "scheduler=linear", "scheduler.steps=20", "sampler=ddim", "monitor.steps=50"))
    assert not [*(tmp_path / "run").glob("checkpoints/*")]
    assert torch.is_grad_enabled()
