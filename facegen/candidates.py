"""What an evaluation measures: images that a model draws, that an autoencoder makes of the real ones, or that lie in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegen.guiding import direct
from facegen.loading import Loaded, LoadedAutoencoder, sampler_of
from facegen.metrics.names import FULL_COUNT, Metric, too_few, too_small
from facegen.metrics.sources import DataImages, FolderImages, Generated, Reconstructed
from facegen.reference import Build, Reference, unlike
from facegen.request import Request
from facegen.studio import Studio, describe, device_of, in_tiles

Load = Callable[..., Loaded]


@dataclass(frozen=True)
class Candidate:
    """What is measured: its images, what to say of it, how its images came about, and where its numbers go (`out`, `stem`)."""

    name: str
    source: Generated | Reconstructed | FolderImages
    subject: dict[str, Any]
    generated: dict[str, Any]
    out: Path
    stem: str


def unfit(loaded: Loaded | LoadedAutoencoder, metrics: Sequence[Metric], request: Request) -> Iterator[str]:
    """The problems of what is asked of a checkpoint: an autoencoder is measured pair by pair and draws nothing, others the reverse."""
    reconstructs = isinstance(loaded, LoadedAutoencoder)
    what = f"{loaded.path} is a checkpoint of model={loaded.provenance['family']}"
    wrong = [metric.name for metric in metrics if metric.paired != reconstructs]
    if reconstructs and wrong:
        verb = "are" if wrong[1:] else "is"
        yield f"{', '.join(wrong)} {verb} of models that draw, {what}; type metrics=[psnr,ssim,rfid], or [psnr,ssim,rfd_probe] probe=RUN"
    elif wrong:
        way_out = "give one of model=autoencoder, or type fake=FOLDER real=FOLDER"
        yield f"{wrong[0]} compares images one by one, {what}, which draws its own; {way_out}"
    for name in request.of_models if reconstructs else ():
        way_out = f"type real_n={request.n}" if name == "n" else f"leave {name} out"
        yield f"{name} is of models that draw, {what}; {way_out}"


def drawn(loaded: Loaded, request: Request, load: Load, build: Build) -> Candidate:
    """The images that a checkpoint will draw."""
    sampler = build(sampler_of(loaded, request.sampler))
    direction = direct(loaded, request.asked, load)
    in_tiles(loaded, request.tile)
    studio = Studio(loaded, sampler, request.batch_size, device_of(request.device), direction)
    source, facts = Generated(studio, request.seed, request.count), studio.facts
    generated = {
        "source": "model",
        "count": request.count,
        "first_seed": request.seed,
        "sampler": describe(sampler),
        **direction.facts,
        "guidance": request.asked.guidance,  # a number, as ever: old files can be compared
        "ema": facts["ema"],
        "resolution": source.resolution,
        "channels": source.channels,
        **({} if request.tile is None else {"tile": request.tile}),  # of older numbers it is not told either
    }
    subject = {key: facts[key] for key in ("checkpoint", "sha256", "family", "step", "schedule", "prediction")}
    return _of_run(loaded, source, subject, generated, request, f"{type(sampler).__name__.lower()}-{sampler.steps}")


def reconstructed(loaded: LoadedAutoencoder, of: FolderImages | DataImages, request: Request) -> Candidate:
    """What an autoencoder will make of the real images."""
    source, facts = Reconstructed(loaded, of, device_of(request.device)), loaded.provenance
    size = {"resolution": source.resolution, "channels": source.channels}
    generated = {"source": "reconstruction", "count": source.count, "ema": facts["ema"], **size}
    subject = {"checkpoint": facts["checkpoint"], "sha256": source.sha256, "family": facts["family"], "step": facts["step"]}
    return _of_run(loaded, source, subject, generated, request, "reconstruct")


def _of_run(
    loaded: Loaded | LoadedAutoencoder,
    source: Generated | Reconstructed,
    subject: dict[str, Any],
    generated: dict[str, Any],
    request: Request,
    way: str,
) -> Candidate:
    run = loaded.run_dir.resolve().name if loaded.run_dir else None
    out = Path(request.out) if request.out else (loaded.run_dir or loaded.path.parent) / "evaluations"
    name = f"{run}/{loaded.path.stem}" if run else loaded.path.stem
    subject = {**subject, "run": run, "trained_on": loaded.provenance["data"]}
    return Candidate(name, source, subject, generated, out, f"{loaded.path.stem}-{way}")


def given(folder: str, request: Request) -> Candidate:
    """The images of a folder."""
    source = FolderImages(folder, "fake")
    name = source.folder.resolve().name
    generated = {"source": "folder", "count": source.count, "resolution": source.resolution, "channels": source.channels}
    subject = {"folder": name, "sha256": source.identity["sha256"]}
    return Candidate(name, source, subject, generated, Path(request.out or "evaluations"), name)


def misfits(candidates: Sequence[Candidate], reference: Reference | None, metrics: Sequence[Metric], request: Request) -> Iterator[str]:
    """The problems of two sides that do not fit together or are too small, a line each."""
    for candidate in candidates:
        fake, real = candidate.source, reference.source if reference else None
        yield from unlike(candidate.name, fake, real) if real else []
        # there are as many reconstructions as real images, so that it is told of these alone
        count = FULL_COUNT if isinstance(fake, Reconstructed) else fake.count
        is_folder = isinstance(fake, FolderImages)
        yield from too_few(metrics, request.options, count, real.count if real else 0, is_folder, request.real_n)
        yield from too_small(metrics, fake.resolution)
        if any(metric.paired for metric in metrics) and isinstance(fake, FolderImages) and isinstance(real, FolderImages):
            yield from _unpaired(fake, real)


def _unpaired(fake: FolderImages, real: FolderImages) -> list[str]:
    mine, theirs = ([name.rpartition(".")[0] for name in source.names] for source in (fake, real))
    if mine == theirs:
        return []
    alone = sorted(set(mine) ^ set(theirs))[:1] or mine[:1]
    return [f"fake={fake.folder} and real={real.folder} must hold images of the same names; {alone[0]} is in one only; rename or remove it"]
