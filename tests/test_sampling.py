"""A job of samples can be interrupted and completed, never mixes what was drawn differently, and its figures show what was drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor, nn

from facegen import images, sampling
from facegen.codecs import Pixels
from facegen.diffusion.denoiser import Denoiser
from facegen.diffusion.discrete import Cosine
from facegen.diffusion.sampler import DDIM, DDPM, Heun, Sampler
from facegen.diffusion.schedule import EDM, Schedule
from facegen.errors import UserError
from facegen.figures.denoise import FRAME_MS, FRAMES, HOLD_MS
from facegen.generate import generate
from facegen.interop import DiffusersSampler
from facegen.loading import sampler_of
from facegen.sampling import SampleResult, sample_job

SAMPLER = DDIM(3)


class Net(nn.Module):
    """Something smooth that depends on every pixel; counts the images it is asked about and can be interrupted."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))
        self.calls, self.fail_at = 0, -1

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return torch.tanh(2 * x + x.roll(1, 2) + self.bias)


class Run:
    """A trained model as `sample_job` sees it, with as many checkpoints in its run as asked for."""

    def __init__(self, run_dir: Path, step: int = 2, schedule: Schedule | None = None, resolution: int = 8) -> None:
        self.path = run_dir / "checkpoints" / f"step-{step:08d}.ckpt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(step.to_bytes(4))
        self.run_dir, self.codec = run_dir, Pixels(resolution, 3)
        self.denoiser = Denoiser(Net(step / 10), schedule or Cosine(100), "v")
        self.provenance = {"checkpoint": self.path.name, "step": str(step), "ema": "raw"}

    @property
    def checkpoints(self) -> list[Path]:
        return sorted(self.path.parent.glob("step-*.ckpt"))

    def reload(self, path: Path) -> Run:
        return Run(self.run_dir, int(path.stem[5:]))

    @property
    def net(self) -> Net:
        return self.denoiser.network

    def plain(self, seeds: range | list[int], sampler: Sampler = SAMPLER) -> dict[int, np.ndarray]:
        """The images of `seeds`, straight from `generate`."""
        batches = generate(self.denoiser, self.codec, sampler, seeds)
        return {seed: image.numpy() for chosen, batch in batches for seed, image in zip(chosen, batch, strict=True)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def job(run: Run, out: Path | None, sampler: Sampler = SAMPLER, **options: Any) -> SampleResult:
    return sample_job(run, sampler, out=None if out is None else str(out), device="cpu", **options)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_every_image_is_a_file_that_says_where_it_comes_from(run: Run, tmp_path: Path) -> None:
    result = job(run, tmp_path / "out", n=70, seed=5)
    expected = run.plain(range(5, 75))
    assert result.drawn == 70
    for seed, image in expected.items():
        path = tmp_path / "out" / f"{seed:06d}.png"
        assert np.array_equal(images.read_png(path), image)
        facts = images.read_provenance(path)
        assert facts["seed"] == str(seed)
        assert {key: facts[key] for key in ("checkpoint", "step", "ema")} == run.provenance
        assert facts["sampler"] == "DDIM(eta=0.0, steps=3)"
        assert len(facts["sha256"]) == 64
    assert result.figures == [tmp_path / "out" / "sheet.png"]
    assert np.array_equal(images.split_grid(result.figures[0]), np.stack(list(expected.values())[:64]))
    assert images.read_provenance(result.figures[0])["seeds"] == "5..68"


def test_an_interrupted_job_is_completed_and_equals_one_that_was_not(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegen.generate.CPU_AREA", 8 * 8**2)  # groups of 8
    job(run, tmp_path / "whole", DDPM(3), n=32, batch_size=8)
    broken, steps_of_one_batch = tmp_path / "broken", 3
    run.net.calls, run.net.fail_at = 0, 2 * steps_of_one_batch + 2  # in the third batch
    with pytest.raises(KeyboardInterrupt):
        job(run, broken, DDPM(3), n=32, batch_size=8)
    whole, left = contents(tmp_path / "whole"), contents(broken)
    assert left == {f"{seed:06d}.png": whole[f"{seed:06d}.png"] for seed in range(16)}  # all of two batches, nothing half-done
    (broken / "000003.png").unlink()
    (broken / "000007.png").write_bytes(left["000007.png"][:-20])
    run.net.calls, run.net.fail_at = 0, -1
    assert job(run, broken, DDPM(3), n=32, batch_size=64).drawn == 18
    assert run.net.calls == 3 * 3  # 18 images are three groups
    assert contents(broken) == whole


def test_a_finished_job_draws_nothing(run: Run, tmp_path: Path) -> None:
    job(run, tmp_path, n=4)
    run.net.calls = 0
    assert job(run, tmp_path, n=4).drawn == 0
    assert run.net.calls == 0


def test_other_seeds_may_join(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job(run, out, n=4)
    assert job(run, out, n=4, seed=2).drawn == 2
    assert [path.stem for path in sorted(out.glob("0*.png"))] == [f"{seed:06d}" for seed in range(6)]


@pytest.mark.parametrize("change", ["sampler.steps", "sampler.eta", "checkpoint"])
def test_images_drawn_otherwise_are_never_mixed(run: Run, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    job(run, out, n=4)
    before, other, sampler = contents(out), run, {"sampler.steps": DDIM(4), "sampler.eta": DDIM(3, eta=0.5)}.get(change, SAMPLER)
    if change == "checkpoint":  # of the same name and step, but with other weights
        run.path.write_bytes(b"trained anew")
    other.net.calls = 0
    with pytest.raises(UserError, match=f"{'sha256' if change == 'checkpoint' else 'sampler'}: .* choose another with out="):
        job(other, out, sampler, n=8)
    assert other.net.calls == 0
    assert contents(out) == before


def test_pictures_of_somebody_else_are_left_alone(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "000001.png")
    with pytest.raises(UserError, match="drawn otherwise"):
        job(run, tmp_path, n=4)
    assert [path.name for path in tmp_path.glob("*.png")] == ["000001.png"]


def test_by_default_a_way_of_drawing_has_a_folder_of_its_own_in_the_run(run: Run) -> None:
    folders = {job(run, None, sampler, n=2).out for sampler in (DDIM(3), DDIM(3, eta=0.5), DDIM(4), Heun(3), DDIM(3))}
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {run.run_dir / "samples"}
    assert all(folder.name.startswith("step-00000002-") and "=" not in folder.name for folder in folders)


def test_a_figure_says_what_it_has_no_room_for_and_leaves_those_of_other_seeds(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    few, many, later = (job(run, None, DDIM(3), n=n, seed=seed, figure="denoise") for n, seed in ((2, 0), (20, 0), (2, 5)))
    assert len({few.out, many.out, later.out}) == 3
    assert capsys.readouterr().err.count("figure=denoise shows the first 16 of n=20 seeds") == 1


def test_more_steps_than_the_schedule_has_are_refused_before_anything_is_drawn() -> None:
    config = {"scheduler": {"steps": 20}, "sampler": {"_target_": "facegen.diffusion.sampler.DDIM"}}
    with pytest.raises(UserError, match=r"^sampler\.steps must be at most scheduler\.steps=20; got 21; type sampler\.steps=20$"):
        sampler_of(SimpleNamespace(config=config), {"steps": 21})
    assert sampler_of(SimpleNamespace(config=config), {"steps": 20})["steps"] == 20


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_drawn(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        job(run, tmp_path / "file" / "out", n=2)
    with pytest.raises(UserError, match="disk nearly full"):
        job(run, tmp_path / "out", n=10**13)
    assert run.net.calls == 0


@pytest.mark.parametrize(
    ("schedule", "sampler"), [(Cosine(100), DDIM(50)), (EDM(), Heun(4)), (Cosine(100), DiffusersSampler("UniPCMultistepScheduler", 12))]
)
def test_a_strip_and_an_animation_end_in_the_plain_images(tmp_path: Path, schedule: Schedule, sampler: Sampler) -> None:
    run = Run(tmp_path / "run", schedule=schedule)
    strip, animation = job(run, tmp_path / "out", sampler, n=64, seed=3, figure="denoise").figures
    expected, columns = run.plain(range(3, 7), sampler), min(sampler.steps, 9) + 1
    tiles = images.split_grid(strip).reshape(4, 2, columns, 3, 8, 8)
    assert np.array_equal(tiles[:, 0, -1], np.stack(list(expected.values())))
    assert np.array_equal(tiles[:, 0, -1], tiles[:, 1, -1])
    assert len({tile.tobytes() for tile in tiles[0, 0]}) == columns
    with Image.open(animation) as film:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(film) if frame.load()]
    assert 2 < len(durations) <= min(sampler.steps, FRAMES) + 1  # WebP shows two frames that are alike as one, for longer
    assert sum(durations) == min(sampler.steps, FRAMES) * FRAME_MS + HOLD_MS
    assert durations[-1] >= HOLD_MS


def test_a_strip_begins_with_noise_of_unit_size_on_any_schedule(tmp_path: Path) -> None:
    first = []
    for schedule, sampler in ((EDM(), Heun(4)), (Cosine(100), DDIM(4))):
        strip = job(Run(tmp_path / "run", schedule=schedule), tmp_path / "out", sampler, n=1, figure="denoise").figures[0]
        first.append(images.split_grid(strip)[0].astype(int))
    assert np.abs(first[0] - first[1]).mean() < 8  # the same noise of seed 0, shown at the same strength


def test_an_interpolation_ends_in_the_plain_images(run: Run, tmp_path: Path) -> None:
    figure = job(run, tmp_path, DDPM(4), n=5, seed=10, figure="interpolate").figures[0]
    tiles, plain = images.split_grid(figure).reshape(2, 9, 3, 8, 8), run.plain(range(10, 14), DDPM(4))
    for row, (first, second) in enumerate([(10, 11), (12, 13)]):
        assert np.array_equal(tiles[row, 0], plain[first])
        assert np.array_equal(tiles[row, -1], plain[second])
        assert len({tile.tobytes() for tile in tiles[row]}) == 9
    with pytest.raises(UserError, match="type n=2"):
        job(run, tmp_path, n=1, figure="interpolate")


def test_stages_are_drawn_from_every_checkpoint(tmp_path: Path) -> None:
    runs = [Run(tmp_path / "run", step) for step in (1, 5, 9)]
    figure = job(runs[-1], tmp_path / "out", n=64, figure="stages").figures[0]
    tiles = images.split_grid(figure).reshape(3, 10, 3, 8, 8)
    for row, run in zip(tiles, runs, strict=True):
        assert np.array_equal(row, np.stack(list(run.plain(range(10)).values())))


def previews(run: Run, steps: list[int], first: int = 0) -> dict[int, np.ndarray]:
    kept = {step: np.full((16, 3, 8, 8), step, dtype=np.uint8) for step in steps}
    for step, tiles in kept.items():
        facts = {"step": str(step), "seeds": f"{first}..{first + 15}"}
        images.save_grid(tiles, run.run_dir / "previews" / f"step-{step:08d}.png", facts)
    return kept


def test_stages_are_taken_from_the_previews_where_they_show_these_seeds(run: Run, tmp_path: Path) -> None:
    kept = previews(run, [1, 2, 3])
    figure = job(run, tmp_path / "out", n=4, figure="stages").figures[0]
    assert run.net.calls == 0
    assert np.array_equal(images.split_grid(figure), np.concatenate([tiles[:4] for tiles in kept.values()]))
    other = job(run, tmp_path / "out", n=4, seed=100, figure="stages").figures[0]
    assert np.array_equal(images.split_grid(other), np.stack(list(run.plain(range(100, 104)).values())))


def test_of_many_stages_first_and_last_are_among_those_shown(run: Run, tmp_path: Path) -> None:
    previews(run, list(range(1, 31)))
    figure = job(run, tmp_path / "out", n=2, figure="stages").figures[0]
    steps = images.split_grid(figure)[::2, 0, 0, 0]
    assert len(steps) == sampling.STAGES
    assert (steps[0], steps[-1]) == (1, 30)
