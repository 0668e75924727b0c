"""The scorecard of a conditional model: it is asked for everything that it can be told, and a probe reads what its pictures show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from facegen.asked import WAYS
from facegen.asked_images import AskedImages
from facegen.asking import Asker, Blend, between
from facegen.diffusion.guidance import Told
from facegen.families.labels import Labels
from facegen.guiding import never_unasked
from facegen.loading import Loaded
from facegen.metrics import condition
from facegen.metrics.condition import Questions
from facegen.metrics.features import Collected, collect
from facegen.metrics.names import METRICS, PROBE
from facegen.metrics.probe import ProbeExtractor
from facegen.metrics.protocol import Number
from facegen.metrics.sources import DataImages
from facegen.ranks import rank_and_world
from facegen.reference import Reference
from facegen.seeding import mix
from facegen.studio import Studio

GUIDANCES = (1.0, 1.5, 2.0, 3.0, 5.0)
WEIGHTS = tuple(i / 8 for i in range(9))
PAIRS, FEWEST = 6, 4  # pairs of classes that are blended at most, and seeds that a change is averaged over at least
BLIND = 0.55  # balanced share of right answers in real images, below which a probe knows next to nothing of an attribute
TRAIN_A_PROBE = "train a probe on the same data: python train.py experiment=probe data=NAME"


def unaskable(loaded: Loaded, probe: ProbeExtractor, count: int) -> list[str]:
    """What stands against a scorecard of `loaded` from `count` images, whatever the real ones, a line each."""
    if loaded.labels is None:
        what = f"{loaded.path} is model={loaded.provenance['family']}, which is told nothing"
        return [f"condition asks a model for what it can be told, {what}; leave condition out of metrics"]
    questions, _ = _shared(loaded.labels, probe)
    if not questions.names:
        told, read = (", ".join(names[:3]) for names in (loaded.labels.names, probe.names))
        return [f"condition: {loaded.path} is told {told}, ... and the probe reads {read}, ...: no name in common; {TRAIN_A_PROBE}"]
    if count < (least := len(_wishes(questions))):
        return [f"condition asks for {least} things in turn, an image each at least; got n={count}; type n={least}, or more"]
    return []


def unlabelled(loaded: Loaded, probe: ProbeExtractor, real: DataImages) -> list[str]:
    """What the `real` images lack that the scorecard of an askable model looks at, a line each."""
    assert loaded.labels is not None, "models that are told nothing are refused before"
    return real.unlabelled(_shared(loaded.labels, probe)[0].names)


def _shared(labels: Labels, probe: ProbeExtractor) -> tuple[Questions, list[str]]:
    return condition.shared(_questions(labels), _questions(Labels(probe.names, probe.groups)))


def _questions(labels: Labels) -> Questions:
    names = labels.names
    return Questions([names[i] for i in labels.attributes], {group: [names[i] for i in at] for group, at in labels.groups.items()})


def _wishes(questions: Questions) -> list[tuple[str, int]]:
    """All that an image is asked for, one by one: each class, each attribute at 1 and at 0; in a mixed order, so that a part is fair."""
    classes = [(name, 1) for names in questions.groups.values() for name in names]
    return sorted([*classes, *((name, value) for name in questions.attributes for value in (1, 0))], key=lambda wish: mix("wish", *wish))


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Some pairs of classes in which all come about equally often: first those farthest apart in a ring, for neighbours are much alike."""
    ring = [(i, (i + apart) % len(names)) for apart in range(len(names) // 2, 0, -1) for i in range(len(names))]
    return [(names[a], names[b]) for a, b in dict.fromkeys((min(pair), max(pair)) for pair in ring)][:PAIRS]


def _alone(name: str, value: float = 1) -> Blend:
    """One class or attribute and nothing else."""
    return [(1.0, {name: float(value)})]


@dataclass
class Scorecard:
    """All that a scorecard is made of: a model in its `studio`, the `probe` that reads, the real images, and where features are kept.

    `first` is the first seed, `count` how many images the answers are read from; the other parts draw in proportion to it.
    """

    studio: Studio
    probe: ProbeExtractor
    reference: Reference
    home: Path
    first: int
    count: int

    def __post_init__(self) -> None:
        asker = self.studio.direction.asker
        assert asker is not None, "models that are told nothing are refused before"
        self.asker: Asker = asker
        self.questions, self.notes = _shared(asker.labels, self.probe)

    def number(self) -> Number:
        """The share of questions that the images answer as told, with all other parts beside it.

        Raises UserError where the data does not know the labels.
        """
        metric = METRICS["condition"]
        if (trained := self.studio.loaded.provenance.get("data")) and self.reference.another(trained):
            self.notes.append("the model was trained on other images than the real ones here: its distances and diversity are to those")
        real = self._of_photographs()  # first: what the probe cannot read in photographs it cannot be asked of drawn images
        group = condition.best_read(real)
        told, read = self._told_plainly.conditions[:, 0].numpy(), self._read(self._answers)
        told = self.questions.of(told, self.asker.labels.names)
        hits = condition.answered(self.questions, told, read)
        more = {"groups": hits.pop("of_groups"), "attributes": hits.pop("of_attributes"), "probe": real, "hits": hits}
        more |= {"rare": condition.rare(hits, self._shares()), "leakage": self._leakage(), "guidance": self._guidances(told, group)}
        more |= {"blends": self._blends(group)}
        more |= {"distances": self._compared(partial(condition.distances, self.questions), told, self._answers)}
        more["notes"] = self.notes
        deviation = condition.deviation(self.questions, told, read) or None  # all were right, or wrong: that says nothing of it
        options = {
            "definition": "mean over questions of the share that a probe reads as told, balanced for attributes",
            "images": self.count,
            "first_seed": self.first,
            "questions": self.questions.names,
            "examples": hashlib.sha256(self.asker.examples.numpy().tobytes()).hexdigest()[:16],
        }
        parts = {"deviation": deviation, "more": more, "extractor": self.probe.identity, "options": options}
        return Number(metric.name, metric.written(self.count), hits.pop("value"), **parts)

    @cached_property
    def _told_plainly(self) -> Told:
        """What the images are told that the answers are read from: full rows, of which one name at a time was asked for."""
        wishes = _wishes(self.questions)
        return self._asked([wishes[i % len(wishes)] for i in range(self.count)], self._seeds(self.count))

    def _asked(self, wishes: Sequence[tuple[str, int]], seeds: Sequence[int], like: Sequence[tuple[str, int]] | None = None) -> Told:
        blends, models = ([_alone(*wish) for wish in some] for some in (wishes, like or wishes))
        return self.asker.told(blends, seeds, mixed=True, like=models)

    def _seeds(self, count: int) -> list[int]:
        return list(range(self.first, self.first + count))

    @cached_property
    def _answers(self) -> Collected:
        return self._collect(self.studio, self._seeds(self.count), self._told_plainly, "everything in turn")

    def _collect(self, studio: Studio, seeds: Sequence[int], told: Told, title: str, count: int | None = None) -> Collected:
        return collect(self.home, AskedImages(studio, seeds, told, title, count), {PROBE: self.probe}, rank_and_world())

    def _read(self, said: Collected) -> np.ndarray:
        """What the probe reads in images, as probabilities (N,K)."""
        return self.questions.probabilities(self.questions.of(said.rows(PROBE, "logits"), self.probe.names))

    def _of_photographs(self) -> dict[str, Any]:
        """How well the probe reads photographs that it was not trained on."""
        held_out, which = self.reference.held_out, "held out"
        if held_out is None:
            which = "training"
            self.notes.append("no images are held out: the probe was asked of the images that it may have been trained on")
        elif unlike := self._unlike_the_probes():
            which = "not known to be held out"
            self.notes.append(f"the probe was trained on other images than these, perhaps on some of them: {unlike}")
        source = held_out or self._real
        labels = source.labels(self.questions.names)
        answers = condition.answered(self.questions, labels, self._read(self.reference.of(source, {PROBE: self.probe})))
        blind = [name for name, one in answers["attributes"].items() if one["balanced"] is not None and one["balanced"] < BLIND]
        if blind:
            self.notes.append(f"the probe reads {', '.join(blind)} hardly better than by chance: their hit rates say little")
        return {"images": which, **answers}

    def _unlike_the_probes(self) -> str:
        """In what the real images are not those that the probe was trained on, or split otherwise; empty where they are the same."""
        if self.reference.another(self.probe.fingerprint):
            return "the fingerprint of its data is another"
        options = self.reference.split_otherwise(self.probe.options)
        return f"its data is split otherwise ({', '.join(f'data.{name}' for name in options)})" if options else ""

    @property
    def _real(self) -> DataImages:
        assert isinstance(self.reference.source, DataImages), "folders, which have no labels, are refused before"
        return self.reference.source

    def _compared(self, measure: Any, told: np.ndarray, said: Collected) -> Any:
        """`measure` of the features of drawn images, told (N,K), and of real ones."""
        real = self.reference.of(self._real, {PROBE: self.probe})
        return measure(told, said.rows(PROBE), self._real.labels(self.questions.names), real.rows(PROBE))

    def _shares(self) -> dict[str, float]:
        """How many of the training images have each attribute."""
        shares = self.questions.of(self.asker.examples.numpy(), self.asker.labels.names).mean(axis=0)
        return dict(zip(self.questions.names, shares.tolist(), strict=True))

    def _leakage(self) -> dict[str, Any] | None:
        """What changes beside an attribute, from pairs of images that differ by it alone."""
        names = self.questions.attributes
        if not names:
            self.notes.append("no leakage: the model is told no attributes that the probe can read")
            return None
        each = max(FEWEST, self.count // (4 * len(names)))
        wishes = [(name, value) for name in names for value in (0, 1) for _ in range(each)]
        seeds = self._seeds(each) * (2 * len(names))
        told = self._asked(wishes, seeds, [(name, 1) for name, _ in wishes])
        read = self._read(self._collect(self.studio, seeds, told, "one attribute at a time"))
        read = read.reshape(len(names), 2, each, -1)
        return condition.leakage(self.questions, read[:, 0], read[:, 1])

    def _guidances(self, told: np.ndarray, group: str | None) -> list[dict[str, Any]]:
        """Hits, and diversity within the classes of `group`, of a part of the images at other weights of guidance."""
        count, weights = max(1, self.count // 4), GUIDANCES
        if never_unasked(self.studio.loaded) and self.studio.direction.guidance.weak is None:
            self.notes.append("no curve of guidance: the model was trained with model.drop_condition=0")
            weights = (1.0,)
        points = []
        for weight in weights:
            title = f"guidance={weight:g}"
            said = self._collect(self.studio.but(guidance=weight), self._seeds(self.count), self._told_plainly, title, count)
            hits = condition.answered(self.questions, told[:count], self._read(said))
            varied = self._compared(partial(condition.diversity, self.questions, group), told[:count], said)
            points.append({"guidance": weight, "count": count, "hit_rate": hits["value"], "diversity": varied})
        return points

    def _blends(self, group: str | None) -> dict[str, Any] | None:
        """Whether a face between two classes of `group` lies between them, for each way to blend."""
        if group is None:
            self.notes.append("no blends: the model is told no classes that the probe can read")
            return None
        pairs, each = _pairs(self.questions.groups[group]), max(FEWEST, self.count // 128)
        ends = self._blended("embedding", pairs, (0.0, 1.0), each, "ends of blends")
        found: list[dict[str, Any]] = [{"first": a, "second": b, "ways": {}} for a, b in pairs]
        for way in WAYS:
            middle = self._blended(way, pairs, WEIGHTS[1:-1], each, f"blend={way}")
            shares = np.concatenate([ends[..., :1], middle, ends[..., 1:]], axis=2)
            for entry, one in zip(found, shares, strict=True):
                entry["ways"][way] = condition.monotone(WEIGHTS, one)
        means = {way: {key: float(np.mean([one["ways"][way][key] for one in found])) for key in ("spearman", "pooled")} for way in WAYS}
        return {"group": group, "weights": list(WEIGHTS), "seeds": each, "ways": means, "pairs": found}

    def _blended(self, way: str, pairs: Sequence[tuple[str, str]], weights: Sequence[float], each: int, title: str) -> np.ndarray:
        """The share of the second class (pairs, seeds, weights) in blends of `pairs`; all of a pair and seed differ by weight alone."""
        ends = [(_alone(a), _alone(b)) for a, b in pairs]
        blends = [between(a, b, weight) for a, b in ends for _ in range(each) for weight in weights]
        like = [between(a, b, 0.5) for a, b in ends for _ in range(each) for _ in weights]
        seeds = [seed for _ in pairs for seed in self._seeds(each) for _ in weights]
        studio = self.studio.but(blend=way)
        read = self._read(self._collect(studio, seeds, studio.direction.blends(blends, seeds, like), title))
        read = read.reshape(len(pairs), each, len(weights), -1)
        return np.stack([one[..., self.questions.names.index(b)] for one, (_, b) in zip(read, pairs, strict=True)])
