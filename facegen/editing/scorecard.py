"""The scorecard of edits: held-out photographs are made older and younger, and a probe reads what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from facegen.asked_images import AskedImages
from facegen.editing.editor import Editor
from facegen.editing.subjects import AgeReader, Subjects, age_group, told_ages
from facegen.metrics import edit
from facegen.metrics.features import AsTheyAre, Collected, collect
from facegen.metrics.names import METRICS, PIXELS, PROBE
from facegen.metrics.probe import ProbeExtractor
from facegen.metrics.protocol import Number, digest
from facegen.metrics.sources import DataImages
from facegen.ranks import rank_and_world
from facegen.reference import Reference
from facegen.regions import Regions, regions
from facegen.scorecard import TRAIN_A_PROBE
from facegen.studio import Loaded

GUIDANCES, IMAGE_GUIDANCES = (1.0, 2.0, 3.0, 5.0), (1.0, 1.5, 2.0)
FEWEST = 32  # edits that a point of the curve is made of at least


def unaskable(loaded: Loaded, probe: ProbeExtractor) -> list[str]:
    """What stands against a scorecard of edits by `loaded`, whatever the real images, a line each."""
    if not told_ages(loaded):
        what = f"{loaded.path} is model={loaded.provenance['family']}, which is told no age groups"
        return [f"edit asks a model for ages, {what}; leave edit out of metrics, or train one: python train.py experiment=pix2pix_cpu"]
    if age_group(probe) is None:
        return [f"edit: the probe reads no age groups, but {', '.join(probe.names[:3])}, ...; {TRAIN_A_PROBE}"]
    return []


@dataclass
class EditScorecard:
    """All that a scorecard of edits is made of: a model at work (`editor`), the `probe` that reads, and the photographs that are edited.

    Of every photograph one edit is made, to an age group that it is not of. `first` is the first seed, `count` how many photographs at
    most, `home` where features are kept, `lpips` the distance of Zhang et al. where its weights are at hand, `curve` says whether some are
    also edited at other weights of guidance.
    """

    editor: Editor
    probe: ProbeExtractor
    reference: Reference
    home: Any
    first: int
    count: int
    lpips: Any = None
    curve: bool = True
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        real = self.reference.source
        assert isinstance(real, DataImages), "folders, whose people have no known ages, are refused before"
        self.reader = AgeReader(self.probe, told_ages(self.editor.loaded))
        self.subjects = Subjects(real, self.reader.groups, self.count)

    def number(self) -> Number:
        """The mean error of the ages in years, with all other parts beside it."""
        metric, count, done = METRICS["edit"], len(self.subjects), self._edited(self.editor, len(self.subjects), "edits")
        pixels, logits = done.rows(PIXELS, "pixels"), done.rows(PROBE, "logits")
        ages = self._ages(self.subjects.asked, logits)
        more: dict[str, Any] = {"age": ages, "probe": self._of_photographs(), "unedited": self._ages(self.subjects.asked, self._said[1])}
        more |= {"identity": self.identity(done.rows(PROBE)), "outside": self.outside(pixels), "drift": self._drift(logits)}
        more |= {"eyes": edit.eyes(self.subjects.photographs, pixels, self._regions.eyes)}
        if self.subjects.true is not None:
            more["true"] = self.exact(pixels)
        more |= {"guidance": self._curve() if self.curve else [], "groups": self.reader.groups, "notes": self.notes}
        off = edit.off(self.subjects.asked, self.reader.ages(logits), self.reader.middles)
        options = {
            "definition": "mean distance in years of the age group that a probe reads from the one asked for, middle to middle",
            "photographs": count,
            "first_seed": self.first,
            "method": self.editor.method,
            **{key: value for key, value in self.editor.facts.items() if key in ("source", "strength")},
            "asked": digest(self.subjects.asked.tolist(), self.subjects.numbers.tolist()),
        }
        deviation = float(off.std(ddof=1) / count**0.5) if count > 1 else None
        parts = {"deviation": deviation, "more": more, "extractor": self.probe.identity, "options": options}
        return Number(metric.name, metric.written(count), ages["years"], **parts)

    def _edited(self, editor: Editor, count: int, title: str) -> Collected:
        """What the first `count` photographs become, and what the probe says of it."""
        photographs, wishes = self.subjects.photographs[:count], self.subjects.wishes(editor.loaded)[:count]
        told, begin = editor.told(photographs, wishes, self.subjects.numbers[:count]), editor.begin(photographs, wishes)
        assert told is not None, "models that are told nothing are refused before"
        images = AskedImages(editor.studio, list(range(self.first, self.first + count)), told, title, begin=begin)
        return collect(self.home, images, {PROBE: self.probe, PIXELS: AsTheyAre()}, rank_and_world())

    def _ages(self, asked: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
        return edit.ages(asked, self.reader.ages(logits), self.reader.middles)

    def _drift(self, logits: np.ndarray) -> dict[str, Any]:
        others = self.reader.others
        return edit.drift(others, self.reader.rest(self._said[1]), self.reader.rest(logits), self.subjects.truth(others))

    @cached_property
    def _said(self) -> tuple[np.ndarray, np.ndarray]:
        """The probe's features and logits of the photographs."""
        found, places = self.reference.of(self.subjects.real, {PROBE: self.probe}), self.subjects.places
        return found.rows(PROBE)[places], found.rows(PROBE, "logits")[places]

    @cached_property
    def _true_said(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The same of the true pictures, where they are known."""
        if self.subjects.true is None:
            return None
        said = self.probe(torch.from_numpy(self.subjects.true[0]))
        return said["features"], said["logits"]

    def _of_photographs(self) -> dict[str, Any] | None:
        """How well the probe reads ages of photographs: what an edit cannot be read better than."""
        known = self.subjects.own >= 0
        if not known.any():
            self.notes.append("the data says no ages: how well the probe reads them is not known")
            return None
        if self.reference.another(self.probe.fingerprint):
            self.notes.append("the probe was trained on other images than these: it may read them less well")
        return self._ages(self.subjects.own[known], self._said[1][known])

    def identity(self, features: np.ndarray) -> dict[str, Any]:
        """How like their photographs edits with `features` (N,D) are."""
        return edit.identity(self._said[0], features, None if self._true_said is None else self._true_said[0])

    @cached_property
    def _regions(self) -> Regions:
        return regions(self.editor.loaded.config["data"])

    def outside(self, pixels: np.ndarray) -> dict[str, Any]:
        """What changed outside the face box in edits (N,C,H,W) uint8: nothing should."""
        photographs, face = self.subjects.photographs, self._regions.face
        table: dict[str, Any] = {"psnr": float(edit.outside_psnr(photographs, pixels, face).mean())}
        if self.lpips is None:
            self.notes.append("no LPIPS outside the face: its weights are not at hand; type lpips_weights=PATH")
            return table
        covered = [torch.from_numpy(edit.covered(images, face)) for images in (photographs, pixels)]
        return {**table, "lpips": float(self.lpips.distance(*covered).mean())}

    def exact(self, pixels: np.ndarray) -> dict[str, Any]:
        """How far edits (N,C,H,W) uint8 are from the true pictures, and which of a person's pictures at all ages they are nearest to."""
        assert self.subjects.true is not None
        assert self._true_said is not None
        asked, (true, _) = self.subjects.asked, self.subjects.true
        nearest = edit.nearest(pixels, self.subjects.at_all_ages()) // self.subjects.years.shape[1]
        return {
            "psnr": float(edit.psnr(pixels, true).mean()),
            "psnr_unedited": float(edit.psnr(self.subjects.photographs, true).mean()),
            "nearest_right": float((nearest == asked).mean()),
            "nearest_near": float((np.abs(nearest - asked) <= 1).mean()),
            "read": self._ages(asked, self._true_said[1]),
            "drift": self._drift(self._true_said[1]),
        }

    def _curve(self) -> list[dict[str, Any]]:
        """The age error and the likeness of a part of the edits at other weights; `best` are those that no other weights beat."""
        count = min(len(self.subjects), max(FEWEST, len(self.subjects) // 4))
        points = []
        for weight, image_weight in self._weights():
            editor = self.editor.but(guidance=weight, image_guidance=image_weight)
            done = self._edited(editor, count, f"guidance={weight:g} image_guidance={image_weight:g}")
            ages = self._ages(self.subjects.asked[:count], done.rows(PROBE, "logits"))
            like = edit.identity(self._said[0][:count], done.rows(PROBE))
            point = {"guidance": weight, "image_guidance": image_weight, "count": count, "years": ages["years"], "right": ages["right"]}
            points.append({**point, "cosine": like["cosine"], "found": like["found"]})
        best = edit.pareto(points, "years", "cosine")
        return [{**point, "best": one} for point, one in zip(points, best, strict=True)]

    def _weights(self) -> list[tuple[float, float]]:
        options = self.editor.loaded.config["model"]
        by_source = self.editor.method == "edit" and options.get("drop_both", 0) > 0
        unasked = options.get("drop_text", options.get("drop_condition", 0)) > 0
        if not unasked:
            self.notes.append("no curve of guidance: the model has never drawn without being told what")
        return [(a, b) for b in (IMAGE_GUIDANCES if by_source else (1.0,)) for a in (GUIDANCES if unasked else (1.0,))]
