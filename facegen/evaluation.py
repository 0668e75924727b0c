"""The job behind evaluate.py: numbers of checkpoints or folders against real images, each with the protocol it was measured by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from facegen import candidates, images, ranks
from facegen.candidates import Candidate, Load
from facegen.data.cache import cache_home
from facegen.editing.editor import Editor
from facegen.editing.scorecard import EditScorecard
from facegen.editing.scorecard import unaskable as edits_unaskable
from facegen.errors import UserError
from facegen.figures.edit_scorecard import save_edit_scorecard
from facegen.figures.neighbours import save_neighbours
from facegen.figures.scorecard import save_scorecard
from facegen.loading import Loaded, LoadedAutoencoder, load_measurable
from facegen.metrics.extractors import Extractors
from facegen.metrics.features import Collected, collect
from facegen.metrics.measure import Measurement, Options
from facegen.metrics.names import CONDITION, EDIT, PROBE, Metric
from facegen.metrics.neighbours import Neighbours, save_listing
from facegen.metrics.probe import ProbeExtractor
from facegen.metrics.protocol import Number, digest, save, software
from facegen.metrics.report import edit_tables, scorecard_tables, table
from facegen.metrics.sources import DataImages, Generated
from facegen.out_of_memory import of_measuring, out_of_memory
from facegen.reference import Build, Reference, open_reference
from facegen.request import Request
from facegen.scorecard import Scorecard, unaskable, unlabelled
from facegen.studio import device_of, prepare


@dataclass
class EvaluationResult:
    """The evaluations as they were written, the files they are in, and the figures."""

    records: list[dict[str, Any]]
    files: list[Path]
    figures: list[Path]


def evaluate_job(request: Request, load: Load, load_probe: Callable[..., Any], build: Build) -> EvaluationResult:
    """Measures what `request` asks for, after everything that can be wrong has been looked at."""
    metrics, options = request.chosen, Options(**request.options)
    found = [load_measurable(ckpt, build, request.ema) for ckpt in request.checkpoints]
    _refuse(line for one in found for line in candidates.unfit(one, metrics, request))
    weights = {"probe": request.probe, "inception_weights": request.inception_weights, "lpips_weights": request.lpips_weights}
    extractors = Extractors(metrics, device_of(request.device), load_probe, pixels=request.images, **weights)
    loaded = [one for one in found if isinstance(one, Loaded)]
    measured = [candidates.drawn(one, request, load, build) for one in loaded]
    measured += [candidates.given(folder, request) for folder in request.folders]
    home = cache_home(request.cache_dir) / "features"
    told = loaded if any(metric.kind == CONDITION for metric in metrics) else []
    _refuse(line for one in told for line in unaskable(one, _probe(extractors), request.scored))
    _refuse(line for one in loaded if request.edits for line in edits_unaskable(one, _probe(extractors)))
    reference = open_reference(request, home, found, build) if any(not metric.of_fake for metric in metrics) else None
    if reference and isinstance(reference.source, DataImages):
        _refuse(line for one in told for line in unlabelled(one, _probe(extractors), reference.source))
    autoencoders = [one for one in found if isinstance(one, LoadedAutoencoder)]
    measured += [candidates.reconstructed(one, reference.source, request) for one in autoencoders if reference]
    _refuse(candidates.misfits(measured, reference, metrics, request))
    for folder in {candidate.out for candidate in measured}:
        prepare(folder)
    prepare(home, option="cache_dir")
    ranks.join()
    job = _Job(request, metrics, options, extractors, home, reference)
    with out_of_memory("measuring", partial(of_measuring, request.count, bool(loaded), device_of(request.device))):
        return job.run(measured)


def _probe(extractors: Extractors) -> ProbeExtractor:
    probe = extractors.of_fake[PROBE]
    assert isinstance(probe, ProbeExtractor), "it is what reads in the space of the probe"
    return probe


def _refuse(problems: Iterable[str]) -> None:
    """Raises UserError with the `problems`, where there are any, each told once."""
    if told := list(dict.fromkeys(problems)):
        raise UserError(*told)


class _Job:
    """One evaluation on its way: the candidates one after another, against the same reference."""

    def __init__(
        self, request: Request, metrics: list[Metric], options: Options, extractors: Extractors, home: Path, reference: Reference | None
    ) -> None:
        self.request, self.metrics, self.options = request, metrics, options
        self.extractors, self.home, self.reference = extractors, home, reference

    def run(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        result = EvaluationResult([], [], [])
        real = self.reference.collect(self.extractors.of_real) if self.reference else None
        for candidate in candidates:
            self._measure(candidate, real, result)
        if ranks.is_first():
            print(table([candidate.name for candidate in candidates], result.records))
            for candidate, record in zip(candidates, result.records, strict=True):
                for entry in record["metrics"].values():
                    if entry["metric"] in TABLES:
                        print(TABLES[entry["metric"]](candidate.name, entry))
            for path in [*result.files, *result.figures]:
                print(path)
        return result

    def _measure(self, candidate: Candidate, real: Collected | None, result: EvaluationResult) -> None:
        common = {
            "generated": candidate.generated,
            "real": dict(self.reference.source.identity) if self.reference else None,
            "software": software(),
            "device": device_of(self.request.device),
            "dtype": "float32",
        }
        how = {name: value for name, value in self.request.options.items() if name not in ("bootstrap", "infinity")}
        hashed = digest(candidate.subject, common, self.extractors.identities, how)[:8]
        stem = f"{candidate.stem}-{candidate.source.count}-{hashed}"
        found: dict[str, Neighbours] = {}
        scored = [SCORED[metric.kind](self, candidate).number() for metric in self.metrics if metric.kind in SCORED]
        plain = [metric for metric in self.metrics if metric.kind not in SCORED]
        fake = collect(self.home, candidate.source, self.extractors.of_fake, ranks.rank_and_world()) if plain else None
        numbers = [*self._numbers(plain, fake, real, found), *scored]
        if not ranks.is_first():
            return
        result.files.append(candidate.out / f"{stem}.json")
        subject = {**candidate.subject, "against": self.reference.name if self.reference else None}
        record = save(result.files[-1], subject, common, numbers)
        asked = {number.name: record["metrics"][number.name] for number in numbers}
        result.records.append({**record, "metrics": asked})
        _note(candidate, common, numbers)
        result.figures += [path for number in scored for path in FIGURES[number.metric](asked[number.name], candidate.out, stem)]
        if fake is None:
            return
        for space, neighbours in found.items():
            self._show(neighbours, fake, candidate, f"{stem}-neighbours-{space}", result)
        if self.request.images and isinstance(candidate.source, Generated):
            _write_images(fake, candidate.source, candidate.out / stem)

    def _numbers(
        self, metrics: Sequence[Metric], fake: Collected | None, real: Collected | None, found: dict[str, Neighbours]
    ) -> list[Number]:
        """The numbers of one set of images; what is `found` of their neighbours is shown later."""
        if fake is None:
            return []
        sets = Measurement(fake, real, self.options, self.extractors.identities, self.extractors.foreign, self.extractors.lpips)
        sets.neighbours_in = lambda space: found.setdefault(space, self._neighbours(fake, space))
        if ranks.is_first():
            print(f"measuring {', '.join(metric.name for metric in metrics)}", file=sys.stderr)
        return [sets.number(metric) for metric in metrics]

    def _scorecard(self, candidate: Candidate) -> Scorecard:
        """What a conditional model makes of all that it can be told."""
        source, probe = candidate.source, _probe(self.extractors)
        assert isinstance(source, Generated), "folders are refused before"
        assert self.reference is not None, "the scorecard is not of_fake"
        return Scorecard(source.studio, probe, self.reference, self.home, self.request.seed, self.request.scored)

    def _edits(self, candidate: Candidate) -> EditScorecard:
        """What becomes of photographs that a model edits."""
        source, request = candidate.source, self.request
        assert isinstance(source, Generated), "folders are refused before"
        assert self.reference is not None, "the scorecard is not of_fake"
        editor = Editor(source.studio, request.method, request.strength, request.degrade)
        lpips = self.extractors.lpips_at_hand(request.lpips_weights)
        return EditScorecard(editor, _probe(self.extractors), self.reference, self.home, request.seed, request.edited, lpips, request.curve)

    def _show(self, neighbours: Neighbours, fake: Collected, candidate: Candidate, stem: str, result: EvaluationResult) -> None:
        """Every image with its nearest training images as a list, and some of them as a figure."""
        assert self.reference is not None
        first = candidate.source.first if isinstance(candidate.source, Generated) else 0
        listing, figure = candidate.out / f"{stem}.csv", candidate.out / f"{stem}.png"
        result.files.append(save_listing(listing, neighbours, first, self.reference.training_names))
        images_of = self.reference.training_images
        result.figures.append(save_neighbours(fake.rows("pixels", "pixels"), neighbours, images_of, figure, first))

    def _neighbours(self, fake: Collected, space: str) -> Neighbours:
        assert self.reference is not None
        return self.reference.neighbours(fake.rows("pixels", "pixels"), fake.rows(space), space, self.extractors.of_fake[space])


def _note(candidate: Candidate, common: dict[str, Any], numbers: Sequence[Number]) -> None:
    """What a reader of the numbers has to know beside them."""
    fingerprint, trained = (common["real"] or {}).get("fingerprint"), candidate.subject.get("trained_on")
    if fingerprint and trained and fingerprint != trained:
        print(f"{candidate.name} was trained on other images than those it is measured against", file=sys.stderr)
    unreliable = [number.name for number in numbers if number.more.get("infinity_reliable") is False]
    if unreliable:
        print(f"{', '.join(unreliable)}: too few images for a limit at infinity that can be relied on", file=sys.stderr)


def _write_images(fake: Collected, source: Generated, folder: Path) -> None:
    for number, image in enumerate(fake.rows("pixels", "pixels")):
        seed = source.first + number
        path = folder / f"{seed:06d}.png"
        if not path.exists():
            images.save_png(image, path, {**source.studio.facts, "seed": str(seed)})
    print(folder)


SCORED: dict[str, Callable[[_Job, Candidate], Any]] = {CONDITION: _Job._scorecard, EDIT: _Job._edits}
TABLES = {CONDITION: scorecard_tables, EDIT: edit_tables}
FIGURES = {CONDITION: save_scorecard, EDIT: save_edit_scorecard}
