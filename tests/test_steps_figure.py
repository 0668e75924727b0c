"""The figure of samplers against steps shows what each of them draws, and charges an image for its own steps alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from stand_in import Run, heads, job, studio

from facegen import images
from facegen.codecs import Pixels
from facegen.diffusion.discrete import Cosine
from facegen.diffusion.sampler import DDIM, DDPM, Heun
from facegen.diffusion.schedule import EDM, Flow, Schedule
from facegen.figures import steps
from facegen.guiding import Direction
from facegen.studio import Studio


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def clocked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a second pass with every image that the network is asked about."""
    monkeypatch.setattr(steps, "perf_counter", lambda: run.net.asked)


@pytest.mark.parametrize("schedule", [Cosine(100), EDM(), Flow()], ids=lambda schedule: type(schedule).__name__)
def test_the_rows_of_steps_are_the_images_of_each_sampler_in_so_many_steps(tmp_path: Path, schedule: Schedule) -> None:
    run = Run(tmp_path / "run", schedule)
    found = images.split_grid(job(run, "steps", n=20, seed=3, steps_shown=[5, 2]).figures[0]).reshape(4, 8, 3, 8, 8)
    for row, sampler in zip(found, (DDIM(5), DDIM(2), DDPM(5), DDPM(2)), strict=True):
        assert np.array_equal(row, run.plain(range(3, 11), sampler))


@pytest.mark.parametrize(("resolution", "n"), [(8, 2), (32, 8), (64, 5)])
def test_an_image_is_charged_for_its_own_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolution: int, n: int) -> None:
    run = Run(tmp_path / "run", codec=Pixels(resolution, 3))
    clocked(run, monkeypatch)
    written = heads(monkeypatch)
    png = job(run, "steps", n=n, steps_shown=[2, 3]).figures[0]
    with (png.parent / "steps.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["sampler", "steps", "seconds_each", "times_faster"],
            ["DDIM", "2", "2", "1.5"],
            ["DDIM", "3", "3", "1"],
            ["DDPM", "2", "2", "1.5"],
            ["DDPM", "3", "3", "1"],
        ]
    assert [text for text in written if "each" in text] == [f"{name} {k}\n{k}.0 s each" for name in ("DDIM", "DDPM") for k in (2, 3)]
    assert images.read_provenance(png)["seconds_each"] == "2.0, 3.0, 2.0, 3.0"


def test_the_table_says_what_the_csv_says(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clocked(run, monkeypatch)
    png = job(run, "steps", n=2, steps_shown=[2, 50]).figures[0]
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[1:5] == [["DDIM", "2", "2.0", "25"], ["DDIM", "50", "50", "1"], ["DDPM", "2", "2.0", "25"], ["DDPM", "50", "50", "1"]]
    assert printed[5] == [str(png)]


@pytest.mark.parametrize(
    ("schedule", "counts"),
    [
        (EDM(), [10, 20, 50, 100, 1000]),
        (Flow(), [10, 20, 50, 100, 1000]),
        (Cosine(1000), [10, 20, 50, 100, 1000]),
        (Cosine(999), [10, 20, 50, 100]),
        (Cosine(20), [10, 20]),
        (Cosine(4), [4]),
    ],
)
def test_by_default_there_are_as_many_steps_as_the_schedule_allows(tmp_path: Path, schedule: Schedule, counts: list[int]) -> None:
    planned = steps.plan(studio(Run(tmp_path, schedule)), range(64), None)
    drawn_by = [(type(one.sampler), one.sampler.steps) for one in planned.studios]
    assert drawn_by == [(kind, count) for kind in (DDIM, DDPM) for count in counts]
    assert planned.seeds == range(8)


def test_every_row_of_steps_is_asked_for_the_same(run: Run) -> None:
    asking = Studio(run, DDIM(3), 64, "cpu", Direction(facts={"guidance": "2"}))
    planned = steps.plan(asking, range(8), [3, 2, 3])
    assert [(one.sampler.steps, one.direction is asking.direction) for one in planned.studios] == [(3, True), (2, True)] * 2
    assert planned.facts["guidance"] == "2"


def test_steps_lie_in_one_folder_whatever_the_sampler_and_others_in_another(run: Run) -> None:
    outs = [job(run, "steps", sampler, n=2, steps_shown=[2]).out for sampler in (DDIM(3), Heun(4))]
    assert outs[0] == outs[1]
    assert outs[0].name.startswith("step-00000002-steps-")
    assert job(run, "steps", n=2, steps_shown=[3]).out != outs[0]
    assert images.read_provenance(outs[0] / "steps.png")["sampler"] == "DDIM(eta=0.0, steps=2); DDPM(steps=2)"
