"""The scorecard of edits: held-out photographs are made older and younger, and a probe reads what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from facegen.ages import AGE_GROUPS, middle, years
from facegen.asked_images import AskedImages
from facegen.editor import Editor, Wish
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
from facegen.seeding import uniform
from facegen.studio import Loaded

GUIDANCES, IMAGE_GUIDANCES = (1.0, 2.0, 3.0, 5.0), (1.0, 1.5, 2.0)
FEWEST = 32  # edits that a point of the curve is made of at least
OLDEST_TRUE, MALE = 99, "Male"  # years of the oldest people that the true pictures show


def unaskable(loaded: Loaded, probe: ProbeExtractor) -> list[str]:
    """What stands against a scorecard of edits by `loaded`, whatever the real images, a line each."""
    if not told_ages(loaded):
        what = f"{loaded.path} is model={loaded.provenance['family']}, which is told no age groups"
        return [f"edit asks a model for ages, {what}; leave edit out of metrics, or train one: python train.py experiment=pix2pix_cpu"]
    if age_group(probe) is None:
        return [f"edit: the probe reads no age groups, but {', '.join(probe.names[:3])}, ...; {TRAIN_A_PROBE}"]
    return []


def told_ages(loaded: Loaded) -> list[str]:
    """The age groups that a model can be asked for."""
    names = AGE_GROUPS if loaded.text is not None else loaded.labels.names if loaded.labels is not None else ()
    return [name for name in AGE_GROUPS if name in names]


def age_group(probe: ProbeExtractor) -> str | None:
    """The group of a probe that is one of ages, where it has one."""
    return next((group for group, names in probe.groups.items() if set(names) <= set(AGE_GROUPS)), None)


@dataclass
class EditScorecard:
    """All that a scorecard of edits is made of: a model at work (`editor`), the `probe` that reads, and the photographs that are edited.

    Of every photograph one edit is made, to an age group that it is not of; all are asked for alike. `first` is the first seed, `count` how
    many photographs at most, `home` where features are kept, `lpips` the distance of Zhang et al. where its weights are at hand, `curve`
    says whether some are also edited at other weights of guidance.
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

    def number(self) -> Number:
        """The mean error of the ages in years, with all other parts beside it."""
        metric, done = METRICS["edit"], self._edited(self.editor, len(self._places), "edits")
        pixels, read = done.rows(PIXELS, "pixels"), self._ages(done.rows(PROBE, "logits"))
        table = edit.ages(self._asked, read, self._middles)
        more: dict[str, Any] = {"age": table, "probe": self._of_photographs(), "unedited": self._unedited()}
        more |= {"identity": self._identity(done.rows(PROBE)), "outside": self._outside(pixels)}
        more |= {"drift": edit.drift(self._others, self._photograph_reads, self._others_read(done.rows(PROBE, "logits")), self._truth)}
        more |= {"eyes": edit.eyes(self._photographs, pixels, self._regions.eyes)}
        if self._true is not None:
            more["true"] = self._exact(pixels)
        more |= {"guidance": self._curve() if self.curve else [], "groups": self._groups, "notes": self.notes}
        deviation = (
            float(edit.off(self._asked, read, self._middles).std(ddof=1) / len(self._asked) ** 0.5) if len(self._asked) > 1 else None
        )
        options = {
            "definition": "mean distance in years of the age group that a probe reads from the one asked for, middle to middle",
            "photographs": len(self._places),
            "first_seed": self.first,
            "method": self.editor.method,
            **{key: value for key, value in self.editor.facts.items() if key in ("source", "strength")},
            "asked": digest(self._asked.tolist(), self._numbers.tolist()),
        }
        parts = {"deviation": deviation, "more": more, "extractor": self.probe.identity, "options": options}
        return Number(metric.name, metric.written(len(self._places)), table["years"], **parts)

    @property
    def _real(self) -> DataImages:
        assert isinstance(self.reference.source, DataImages), "folders, whose people have no known ages, are refused before"
        return self.reference.source

    @cached_property
    def _places(self) -> np.ndarray:
        """Which of the real images are edited, in order: some of all, chosen by their numbers."""
        chosen = np.argsort(uniform(self._real.numbers, "edited"), kind="stable")[: self.count]
        return np.sort(chosen)

    @cached_property
    def _numbers(self) -> np.ndarray:
        return self._real.numbers[self._places]

    @cached_property
    def _photographs(self) -> np.ndarray:
        return self._real.pixels(self._places)

    @cached_property
    def _groups(self) -> list[str]:
        """The age groups that the model is asked for and the probe reads, youngest first."""
        group = age_group(self.probe)
        assert group is not None, "probes that read no ages are refused before"
        told = told_ages(self.editor.loaded)
        return [name for name in self.probe.groups[group] if name in told]

    @cached_property
    def _middles(self) -> np.ndarray:
        return np.array([middle(name) for name in self._groups])

    @cached_property
    def _own(self) -> np.ndarray:
        """The number of the age group that each photograph is of (N,), -1 where that is none of those asked for."""
        known = self._labels(self._groups)
        return np.where(known.max(axis=1) > 0, known.argmax(axis=1), -1)

    @cached_property
    def _asked(self) -> np.ndarray:
        """The number of the age group that each photograph is to become (N,), never its own; every step up or down comes equally often."""
        steps = 1 + np.arange(len(self._places)) % max(1, len(self._groups) - 1)
        return (self._own + steps) % len(self._groups)

    def _labels(self, names: list[str]) -> np.ndarray:
        """What the data says of the photographs (N,K), 0 of what it has no name for."""
        known = list(self._real.names)
        rows = self._real.labels([name for name in names if name in known])[self._places]
        found = np.zeros((len(self._places), len(names)), np.float32)
        found[:, [i for i, name in enumerate(names) if name in known]] = rows
        return found

    def _wishes(self) -> list[Wish]:
        genders: list[str | None] = [None] * len(self._asked)
        if self._tells_gender:
            genders = ["male" if male else "female" for male in self._labels([MALE])[:, 0] > 0.5]
        return [Wish(self._groups[asked], gender) for asked, gender in zip(self._asked, genders, strict=True)]

    @property
    def _tells_gender(self) -> bool:
        labels = self.editor.loaded.labels
        return MALE in self._real.names and (labels is None or MALE in labels.names)

    def _edited(self, editor: Editor, count: int, title: str) -> Collected:
        """What the first `count` photographs become, and what the probe says of it."""
        photographs, wishes = self._photographs[:count], self._wishes()[:count]
        seeds = list(range(self.first, self.first + count))
        told, begin = editor.told(photographs, wishes, self._numbers[:count]), editor.begin(photographs, wishes)
        assert told is not None, "models that are told nothing are refused before"
        images = AskedImages(editor.studio, seeds, told, title, begin=begin)
        return collect(self.home, images, {PROBE: self.probe, PIXELS: AsTheyAre()}, rank_and_world())

    def _ages(self, logits: np.ndarray) -> np.ndarray:
        """What the probe reads (N,G): a softmax over the age groups."""
        chosen = logits[:, [self.probe.names.index(name) for name in self._groups]].astype(np.float64)
        powers = np.exp(chosen - chosen.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    @cached_property
    def _others(self) -> list[str]:
        """What the probe reads beside ages, and what does not follow from them."""
        ages = self.probe.groups[str(age_group(self.probe))]
        return [name for name in self.probe.names if name not in ages and name != "Young"]

    def _others_read(self, logits: np.ndarray) -> np.ndarray:
        """What the probe reads beside ages (N,K), 0 or 1: a sigmoid for an attribute, the likeliest class of a group."""
        said = (logits > 0).astype(np.float32)
        for names in self.probe.groups.values():
            columns = [self.probe.names.index(name) for name in names]
            said[:, columns] = np.eye(len(columns), dtype=np.float32)[logits[:, columns].argmax(axis=1)]
        return said[:, [self.probe.names.index(name) for name in self._others]]

    @cached_property
    def _said(self) -> tuple[np.ndarray, np.ndarray]:
        """The probe's features and logits of the photographs."""
        found = self.reference.of(self._real, {PROBE: self.probe})
        return found.rows(PROBE)[self._places], found.rows(PROBE, "logits")[self._places]

    @property
    def _photograph_reads(self) -> np.ndarray:
        return self._others_read(self._said[1])

    def _of_photographs(self) -> dict[str, Any] | None:
        """How well the probe reads ages of photographs: what an edit cannot be read better than."""
        known = self._own >= 0
        if not known.any():
            self.notes.append("the data says no ages: how well the probe reads them is not known")
            return None
        if self.reference.another(self.probe.fingerprint):
            self.notes.append("the probe was trained on other images than these: it may read them less well")
        return edit.ages(self._own[known], self._ages(self._said[1])[known], self._middles)

    def _unedited(self) -> dict[str, Any]:
        """What would be read if nothing had been done."""
        return edit.ages(self._asked, self._ages(self._said[1]), self._middles)

    def _identity(self, features: np.ndarray) -> dict[str, Any]:
        same = None if self._true_said is None else self._true_said[0]
        return edit.identity(self._said[0], features, same)

    @cached_property
    def _regions(self) -> Regions:
        return regions(self.editor.loaded.config["data"])

    def _outside(self, pixels: np.ndarray) -> dict[str, Any]:
        """What changed outside the face box: nothing should."""
        table: dict[str, Any] = {"psnr": float(edit.outside_psnr(self._photographs, pixels, self._regions.face).mean())}
        if self.lpips is None:
            self.notes.append("no LPIPS outside the face: its weights are not at hand; type lpips_weights=PATH")
            return table
        covered = [edit.covered(images, self._regions.face) for images in (self._photographs, pixels)]
        return {**table, "lpips": float(self.lpips.distance(*map(torch.from_numpy, covered)).mean())}

    @cached_property
    def _true(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The same people at the middle of the age group asked for, and their labels, where the data can draw them."""
        return self._real.aged(self._places, self._years[self._asked, 1])

    @property
    def _years(self) -> np.ndarray:
        """The first, the middle and the last age of each group (G,3), so far as anybody is so old."""
        ends = [(first, min(last, OLDEST_TRUE)) for first, last in map(years, self._groups)]
        return np.array([(first, (first + last) // 2, last) for first, last in ends])

    @cached_property
    def _true_said(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self._true is None:
            return None
        said = self.probe(torch.from_numpy(self._true[0]))
        return said["features"], said["logits"]

    @cached_property
    def _truth(self) -> np.ndarray | None:
        """What is true of the people at the age asked for (N,K), of all that the probe reads beside ages."""
        if self._true is None or not set(self._others) <= set(self._real.names):
            return None
        return self._true[1][:, [self._real.names.index(name) for name in self._others]]

    def _exact(self, pixels: np.ndarray) -> dict[str, Any]:
        """How far edits are from the true pictures, and which of a person's true pictures at all ages they are nearest to."""
        assert self._true is not None
        assert self._true_said is not None
        at_all = [self._real.aged(self._places, np.full(len(pixels), age)) for ages in self._years for age in ages]
        pictures = np.stack([one[0] for one in at_all if one is not None], axis=1)
        nearest = edit.nearest(pixels, pictures) // self._years.shape[1]
        psnr, before = edit.psnr(pixels, self._true[0]), edit.psnr(self._photographs, self._true[0])
        read = edit.ages(self._asked, self._ages(self._true_said[1]), self._middles)
        others = edit.drift(self._others, self._photograph_reads, self._others_read(self._true_said[1]), self._truth)
        return {
            "psnr": float(psnr.mean()),
            "psnr_unedited": float(before.mean()),
            "nearest_right": float((nearest == self._asked).mean()),
            "nearest_near": float((np.abs(nearest - self._asked) <= 1).mean()),
            "read": read,
            "drift": others,
        }

    def _curve(self) -> list[dict[str, Any]]:
        """The age error and the likeness of a part of the edits at other weights; `best` are those that no other weights beat."""
        count = min(len(self._places), max(FEWEST, len(self._places) // 4))
        points = []
        for weight, image_weight in self._weights():
            editor = self.editor.but(guidance=weight, image_guidance=image_weight)
            done = self._edited(editor, count, f"guidance={weight:g} image_guidance={image_weight:g}")
            table = edit.ages(self._asked[:count], self._ages(done.rows(PROBE, "logits")), self._middles)
            like = edit.identity(self._said[0][:count], done.rows(PROBE))
            point = {"guidance": weight, "image_guidance": image_weight, "count": count}
            points.append({**point, **{key: table[key] for key in ("years", "right")}, **{key: like[key] for key in ("cosine", "found")}})
        best = edit.pareto(points, "years", "cosine")
        return [{**point, "best": one} for point, one in zip(points, best, strict=True)]

    def _weights(self) -> list[tuple[float, float]]:
        options = self.editor.loaded.config["model"]
        by_source = self.editor.method == "edit" and options.get("drop_both", 0) > 0
        unasked = options.get("drop_text", options.get("drop_condition", 0)) > 0
        if not unasked:
            self.notes.append("no curve of guidance: the model has never drawn without being told what")
        return [(a, b) for b in (IMAGE_GUIDANCES if by_source else (1.0,)) for a in (GUIDANCES if unasked else (1.0,))]
