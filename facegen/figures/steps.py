"""Samplers against numbers of steps: the same seeds drawn by each, and the seconds that an image takes."""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from facegen import images
from facegen.diffusion.sampler import DDIM, DDPM
from facegen.errors import UserError
from facegen.generate import group_of
from facegen.studio import Studio, describe

SAMPLERS = (DDIM, DDPM)
STEPS = (10, 20, 50, 100, 1000)
SEEDS = 8  # columns at most
WARM_UP = 2  # steps of a walk that nobody times: the first calls of a network load kernels and choose among them
HEADS = ("sampler", "steps", "seconds_each", "times_faster")


@dataclass(frozen=True)
class Row:
    """What a sampler draws in a number of steps: images (N,C,H,W) uint8, and how many seconds one took."""

    sampler: str
    steps: int
    tiles: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Steps:
    """The figure, thought through and not yet drawn: a studio for each row, band by band, and the seeds that are its columns."""

    studios: Sequence[Studio]
    seeds: range
    facts: dict[str, str]

    def draw(self, out: Path) -> Path:
        """Writes steps.png and steps.csv into the folder `out`, and prints the latter as a table."""
        warming = copy.copy(self.studios[0])  # not made anew: that would look for its few steps in guidance_interval
        warming.sampler = DDIM(WARM_UP)
        warming.draw(self.seeds[:1], "warming up")
        rows = [timed(studio, self.seeds) for studio in self.studios]
        labels = [f"{row.sampler} {row.steps}\n{_short(row.seconds)} s each" for row in rows]
        heads, band = [f"seed {self.seeds[0]}", *map(str, self.seeds[1:])], len(rows) // len(SAMPLERS)
        facts = {**self.facts, "seconds_each": ", ".join(_short(row.seconds) for row in rows)}
        tiles, path = np.concatenate([row.tiles for row in rows]), out / "steps.png"
        images.save_grid(tiles, path, facts, columns=len(self.seeds), band=band, row_labels=labels, column_labels=heads)
        slowest = max(row.seconds for row in rows)
        records = [(row.sampler, row.steps, row.seconds, slowest / row.seconds) for row in rows]
        save_csv(records, out / "steps.csv")
        print(table(records))
        return path


def plan(studio: Studio, seeds: range, steps_shown: Sequence[int] | None) -> Steps:
    """The figure of the first `SEEDS` of `seeds`, drawn by DDIM and by DDPM whatever the sampler of `studio` is.

    `steps_shown` are the numbers of steps; None is 10, 20, 50, 100 and 1000, so far as the schedule has so many. Raises UserError where
    it has fewer than are asked for.
    """
    counts, seeds = _counts(studio, steps_shown), seeds[:SEEDS]
    samplers = [sampler(steps) for sampler in SAMPLERS for steps in counts]
    studios = [Studio(studio.loaded, sampler, studio.batch_size, studio.device, studio.direction) for sampler in samplers]
    told = {"figure": "steps", "sampler": "; ".join(map(describe, samplers)), "seeds": f"{seeds[0]}..{seeds[-1]}"}
    return Steps(studios, seeds, {**studio.facts, **told})


def _counts(studio: Studio, steps_shown: Sequence[int] | None) -> list[int]:
    most = studio.loaded.denoiser.schedule.length or math.inf  # schedules without betas have no end of times
    fitting = [steps for steps in STEPS if steps <= most] or [int(most)]
    if steps_shown is None:
        return fitting
    typed = f"type steps_shown=[{','.join(map(str, fitting))}]"
    if not steps_shown:
        raise UserError(f"steps_shown must be numbers of steps; got []; {typed}")
    if (highest := max(steps_shown)) > most:
        raise UserError(f"steps_shown must be at most scheduler.steps={most}; got {highest}; {typed}")
    return list(dict.fromkeys(steps_shown))


def timed(studio: Studio, seeds: range) -> Row:
    """The images of `seeds`, and the seconds that each of those drawn with them took.

    A network is given so many images at a time, and is as long about a part of them: others are drawn to make up the number.
    """
    group = group_of(studio.loaded.codec.shape, studio.device)
    drawn = range(seeds[0], seeds[0] + math.ceil(len(seeds) / group) * group)
    name, steps = type(studio.sampler).__name__, studio.sampler.steps
    begun = perf_counter()
    tiles = studio.draw(drawn, f"{name} {steps}")
    return Row(name, steps, tiles[: len(seeds)], (perf_counter() - begun) / len(drawn))


def save_csv(records: Sequence[tuple[str, int, float, float]], path: Path) -> None:
    """Writes a line for each of `records`: sampler, steps, seconds for an image, how many times faster than the slowest."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADS)
    writer.writerows((sampler, steps, f"{seconds:.4g}", f"{faster:.4g}") for sampler, steps, seconds, faster in records)
    images.write_whole(path, text.getvalue().encode())


def table(records: Sequence[tuple[str, int, float, float]]) -> str:
    """The same for a terminal."""
    lines = [f"{'sampler':8}{'steps':>6}{'s each':>10}  times faster than the slowest"]
    lines += [f"{sampler:8}{steps:6}{_short(seconds):>10}  {faster:.3g}" for sampler, steps, seconds, faster in records]
    return "\n".join(lines)


def _short(seconds: float) -> str:
    return f"{seconds:#.2g}" if seconds < 9.95 else f"{seconds:.0f}"
