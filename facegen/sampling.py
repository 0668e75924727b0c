"""The job behind sample.py: images of a trained model as files that say where they come from, and figures of how it draws."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np

from facegen import images
from facegen.asked import Asked
from facegen.diffusion.sampler import Sampler, Stepwise
from facegen.errors import UserError
from facegen.figures import first, latents, steps
from facegen.figures.compare import COLUMNS, previews, save_rows
from facegen.figures.conditions import SEEDS, picture
from facegen.figures.denoise import Film, evenly, save_animation, save_strip
from facegen.generate import Between
from facegen.guiding import Direction
from facegen.seeding import mix
from facegen.studio import Loaded, Studio, device_of, in_tiles, prepare
from facegen.types import NonNegativeFloat, NonNegativeInt, PositiveInt, Tile

ON_SHEET, ON_FILM = 64, 16  # images that a sheet and an animation show at most
STAGES, PAIRS, BETWEEN = 12, 6, 9  # rows of stages, rows and columns of an interpolation, at most
SHOWN = {  # seeds that a figure has room for
    "denoise": ON_FILM,
    "stages": COLUMNS,
    "interpolate": 2 * PAIRS,
    "steps": steps.SEEDS,
    "first": first.COUNT,
    "latents": latents.SEEDS,
    **SEEDS,
}

Stage = TypeVar("Stage")
OfAny = Literal["sheet", "first", "denoise", "stages", "interpolate", "steps", "latents", "reconstruct"]
OfConditions = Literal["classes", "attributes", "strip", "blends", "ternary", "ways", "guidance"]
Figure = Literal[OfAny, OfConditions]


@dataclass
class SampleResult:
    """Where the pictures are: the folder, the figures in it, and how many single images were drawn now (the rest was there)."""

    out: Path
    figures: list[Path]
    drawn: int = 0


class Planned(Protocol):
    """A figure that is thought through and not yet drawn; `facts` are what is said beside it."""

    @property
    def facts(self) -> dict[str, str]: ...

    def draw(self, out: Path) -> Path: ...


def sample_job(
    loaded: Loaded,
    sampler: Sampler,
    direction: Direction | None = None,
    *,
    n: PositiveInt = 64,
    seed: NonNegativeInt = 0,
    out: str | None = None,
    batch_size: PositiveInt = 64,
    tile: Tile | None = None,
    figure: Figure = "sheet",
    group: str | None = None,
    guidances: list[NonNegativeFloat] | None = None,
    steps_shown: list[PositiveInt] | None = None,
    device: Literal["cpu", "cuda"] | None = None,
) -> SampleResult:
    """Draws the images of seeds `seed` .. `seed + n - 1` into `out`, or a figure of them.

    Args:
        n: how many; a figure shows as many of them as it has room for, figure=first always 80.
        out: by default a folder of the run, named after the checkpoint and the sampler.
        tile: side of the tiles, in latent pixels, that a larger latent is decoded in; None decodes it whole.
        figure: `sheet` writes every image as a file of its own, named by its seed, and the first 64 as sheet.png; what is there already
            is not drawn again. `denoise` writes the walk from noise to face as denoise.png and denoise.webp, `stages` the same seeds at
            every kept preview or checkpoint of the run, `interpolate` the images between seeds. `steps` draws the same seeds by DDIM and
            DDPM in few and in many steps, whatever the sampler, and measures the seconds that an image takes (steps.csv). `first` shows
            16 seeds large and the next 64 small, `latents` what a model that works in latents has drawn before it is decoded. The rest
            show what a model is told, and are explained where they are drawn (`facegen.figures.conditions`).
        group: whose classes are shown; None is the first group.
        guidances: the weights of figure=guidance; None is 0, 1, 1.5, 2, 3, 5, 8.
        steps_shown: the numbers of steps of figure=steps; None is 10, 20, 50, 100, 1000, so far as the schedule has so many.
        device: where to draw; None is the graphics card where there is one.

    Raises UserError where `out` cannot be written or holds what was drawn otherwise, or the figure cannot show what is asked.
    """
    in_tiles(loaded, tile)
    studio = Studio(loaded, sampler, batch_size, device_of(device), direction or Direction())
    seeds = range(seed, seed + n)
    planned = _planned(figure, studio, seeds, group, guidances, steps_shown)  # what is wrong with it is said before anything is made
    _tell_room(figure, n)
    shown = {} if figure == "sheet" else {"figure": figure, "seeds": f"{seed}..{seed + n - 1}"}  # figures of other seeds lie elsewhere
    way = figure if figure == "steps" else f"{type(sampler).__name__.lower()}-{sampler.steps}"
    folder = Path(out) if out else default_out(loaded, way, planned.facts if planned else {**studio.facts, **shown})
    prepare(folder, n * max(4096, int(np.prod(loaded.codec.image_shape))) if figure == "sheet" else 0)
    result = SampleResult(folder, [planned.draw(folder)]) if planned else DRAWN[figure](studio, seeds, folder)
    print(*result.figures, sep="\n")
    return result


def _planned(
    figure: str,
    studio: Studio,
    seeds: range,
    group: str | None,
    guidances: Sequence[float] | None,
    steps_shown: Sequence[int] | None,
) -> Planned | None:
    """The figure, where it is one that is thought through first; raises UserError where options do not go with it, or with the model."""
    if steps_shown is not None and figure != "steps":
        raise UserError(f"steps_shown is an option of figure=steps; got figure={figure}; leave steps_shown out")
    of_conditions = picture(figure, studio, seeds, group, guidances)  # asked of every figure: it refuses options of others
    if figure == "steps":
        return steps.plan(studio, seeds, steps_shown)
    return PLANNED[figure](studio, seeds) if figure in PLANNED else of_conditions


def _tell_room(figure: str, n: int) -> None:
    """Says so where a figure shows another number of seeds than `n`."""
    if (most := SHOWN.get(figure, n)) < n:
        print(f"figure={figure} shows the first {most} of n={n} seeds", file=sys.stderr)
    elif figure == "first" and n < most:
        print(f"figure=first shows {most} seeds, more than n={n}", file=sys.stderr)


def default_out(loaded: Loaded, way: str, facts: Mapping[str, str]) -> Path:
    """RUN/samples/CHECKPOINT-WAY-DIGEST, with the samples that were drawn just so and no others; the way is SAMPLER-STEPS, or `steps`."""
    digest = f"{mix(*sorted(map(str, facts.items()))) & 0xFFFF:04x}"
    return (loaded.run_dir or loaded.path.parent) / "samples" / f"{loaded.path.stem}-{way}-{digest}"


def _sheet(studio: Studio, seeds: range, out: Path) -> SampleResult:
    kept = _kept(out, studio.facts)
    missing = [seed for seed in seeds if seed not in kept]
    for chosen, drawn in studio.batches(missing, "images", kept=len(seeds) - len(missing)):
        for seed, image in zip(chosen, drawn, strict=True):
            images.save_png(image, _file(out, seed), {**studio.facts, "seed": str(seed)})
    shown = seeds[:ON_SHEET]
    images.save_grid([images.read_png(_file(out, seed)) for seed in shown], out / "sheet.png", _about(studio, shown))
    return SampleResult(out, [out / "sheet.png"], len(missing))


def _file(out: Path, seed: int) -> Path:
    return out / f"{seed:06d}.png"


def _kept(out: Path, facts: dict[str, str]) -> set[int]:
    """The seeds whose images are in `out` undamaged; raises UserError where one of them was drawn otherwise."""
    seeds = set()
    for path in out.glob("*.png"):
        if not path.stem.isdecimal():
            continue
        try:
            there = images.read_provenance(path)
        except UserError:  # spoilt by a power cut or a full disk: drawn again
            continue
        for key in {**facts, **there}:
            if key != "seed" and there.get(key) != facts.get(key):
                was = f"{key}: {there.get(key, 'not told')} there, {facts.get(key, 'not told')} now"
                raise UserError(f"out={out} holds images that were drawn otherwise ({path.name}, {was}): choose another with out=")
        seeds.add(int(path.stem))
    return seeds


def _denoise(studio: Studio, seeds: range, out: Path) -> SampleResult:
    seeds, codec = seeds[:ON_FILM], studio.loaded.codec
    film = Film(codec, studio.sampler.steps)
    faces = studio.draw(seeds, "denoise", film)
    strip, animation = out / "denoise.png", out / "denoise.webp"
    heads = _noise_shares(studio, film.columns)
    save_strip(film, faces, strip, _about(studio, seeds), [f"seed {seed}" for seed in seeds], heads)
    save_animation(film, faces, animation)
    return SampleResult(out, [strip, animation])


def _noise_shares(studio: Studio, steps: Sequence[int]) -> list[str]:
    """How much of the image is noise at each of `steps`, sigma / (alpha + sigma); a foreign scheduler's steps are only numbered."""
    if not isinstance(studio.sampler, Stepwise):
        return [f"step {i + 1}" for i in steps]
    schedule = studio.loaded.denoiser.schedule
    times = studio.sampler.times(schedule)[list(steps)]
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    return [f"noise {share:.0%}" for share in (sigma / (alpha + sigma)).tolist()]


def _stages(studio: Studio, seeds: range, out: Path) -> SampleResult:
    """From the previews where they show these seeds and are more than the checkpoints, which cost time to draw from."""
    seeds = seeds[:COLUMNS]
    run_dir, checkpoints = studio.loaded.run_dir, studio.loaded.checkpoints
    asked = studio.direction.asked != Asked() or "tile" in studio.facts  # previews show what nobody asked for
    seen = [] if asked or not run_dir else [(step, path) for step, path in previews(run_dir).items() if _shows(path, seeds)]
    if seen and len(seen) >= len(checkpoints):
        rows = [(step, images.split_grid(path)[: len(seeds)]) for step, path in _some(seen)]
        facts = {"figure": "stages", "drawn": "by the run, as its previews", "seeds": f"{seeds[0]}..{seeds[-1]}"}
    else:
        rows = [(stage.step, stage.draw(seeds, f"step {stage.step}")) for stage in map(studio.at, _some(checkpoints))]
        facts = _about(studio, seeds)
    path = save_rows([(f"step {step:,}", tiles) for step, tiles in rows], out / "stages.png", facts)
    return SampleResult(out, [path])


def _some(stages: Sequence[Stage]) -> list[Stage]:
    return [stages[i] for i in evenly(len(stages), STAGES)]


def _shows(preview: Path, seeds: range) -> bool:
    first, _, last = images.read_provenance(preview).get("seeds", "").partition("..")
    return first == str(seeds[0]) and int(last) >= seeds[-1]


def _interpolate(studio: Studio, seeds: range, out: Path) -> SampleResult:
    if len(seeds) < 2:
        raise UserError(f"n must be at least 2 for figure=interpolate, which draws between pairs of seeds; got {len(seeds)}; type n=2")
    pairs, weights = list(zip(seeds[::2], seeds[1::2], strict=False))[:PAIRS], np.linspace(0, 1, BETWEEN).tolist()
    drawn = studio.draw([Between(*pair, weight) for pair in pairs for weight in weights], "interpolate")
    rows, columns = [f"seeds {a}, {b}" for a, b in pairs], [f"{weight:g}" for weight in weights]
    path, facts = out / "interpolate.png", _about(studio, seeds[: 2 * len(pairs)])
    images.save_grid(drawn, path, facts, columns=BETWEEN, row_labels=rows, column_labels=columns)
    return SampleResult(out, [path])


def _about(studio: Studio, seeds: range) -> dict[str, str]:
    return {**studio.facts, "seeds": f"{seeds[0]}..{seeds[-1]}"}


DRAWN: dict[str, Callable[[Studio, range, Path], SampleResult]] = {
    "sheet": _sheet,
    "denoise": _denoise,
    "stages": _stages,
    "interpolate": _interpolate,
}
PLANNED: dict[str, Callable[[Studio, range], Planned]] = {"first": first.plan, "latents": latents.plan}
FIGURES = (*DRAWN, *PLANNED, "steps", "reconstruct")  # those that are not of conditions; the last is a job of its own
