"""Whether images show what their model was told: numbers from what was told and what a probe reads, all of them plain arrays.

`told` (N,K) and `read` (N,K) have a column for each name of `Questions.names`: 0 or 1 where told, a probability where read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facegen.metrics.frechet import frechet_distance
from facegen.seeding import mix

RARE = 0.05  # an attribute of a smaller share of the training images
UNMOVED = 0.01  # a smaller change of a mean share is noise, whose ranks mean nothing
RESAMPLED = 100  # draws for the deviation of the headline
Table = dict[str, Any]


@dataclass(frozen=True)
class Questions:
    """What images can be told and a probe can read: `attributes`, each by itself, and the classes of `groups`, of which one is true."""

    attributes: list[str]
    groups: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """The columns of all arrays here, in order."""
        return [*self.attributes, *(name for classes in self.groups.values() for name in classes)]

    @property
    def columns(self) -> dict[str, slice]:
        """The columns of each group."""
        found, start = {}, len(self.attributes)
        for group, classes in self.groups.items():
            found[group] = slice(start, start + len(classes))
            start += len(classes)
        return found

    def of(self, rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The columns of the questions (N,K) out of `rows` (N,M), whose columns are `names`."""
        return rows[:, [names.index(name) for name in self.names]]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What `logits` (N,K) mean, float64: a sigmoid for an attribute, a softmax over the classes of a group."""
        logits = logits.astype(np.float64)
        said = 0.5 * (1 + np.tanh(logits / 2))
        for columns in self.columns.values():
            powers = np.exp(logits[:, columns] - logits[:, columns].max(axis=1, keepdims=True))
            said[:, columns] = powers / powers.sum(axis=1, keepdims=True)
        return said


def shared(mine: Questions, theirs: Questions) -> tuple[Questions, list[str]]:
    """The questions of a model (`mine`) that a probe (`theirs`) can answer, and notes of those that it cannot.

    A group counts where the probe has all its classes in one group.
    """
    known = [name for name in mine.attributes if name in theirs.attributes]
    groups = {
        group: classes for group, classes in mine.groups.items() if any(set(classes) <= set(others) for others in theirs.groups.values())
    }
    unread = [*(name for name in mine.attributes if name not in known), *(group for group in mine.groups if group not in groups)]
    return Questions(known, groups), [f"the probe cannot read {', '.join(unread)}"] if unread else []


def answered(questions: Questions, told: np.ndarray, read: np.ndarray) -> Table:
    """How often what was read is what was told, for every question that some image was told an answer to.

    A group has its `accuracy`, the share right of each class (`classes`) and its `confusion` (rows told, columns read, counts); an
    attribute the share read among those told 1 (`found`), not read among those told 0 (`not_found`), and their mean (`balanced`; None
    where there is only one side). `value` is the mean over all questions, `of_groups` and `of_attributes` over those of a kind.
    """
    said, seen = told[:, : len(questions.attributes)] > 0.5, read[:, : len(questions.attributes)] >= 0.5
    attributes = {name: _both_sides(said[:, i], seen[:, i]) for i, name in enumerate(questions.attributes)}
    groups = {group: _confused(questions.groups[group], told[:, at], read[:, at]) for group, at in questions.columns.items()}
    accuracies = [one["accuracy"] for one in groups.values() if one["accuracy"] is not None]
    balanced = [one["balanced"] for one in attributes.values() if one["balanced"] is not None]
    means = {"value": _mean([*accuracies, *balanced]), "of_groups": _mean(accuracies), "of_attributes": _mean(balanced)}
    return {**means, "count": len(told), "groups": groups, "attributes": attributes}


def _both_sides(said: np.ndarray, seen: np.ndarray) -> Table:
    told, not_told = int(said.sum()), int((~said).sum())
    found, not_found = _share(seen[said]), _share(~seen[~said])
    balanced = (found + not_found) / 2 if found is not None and not_found is not None else None
    return {"balanced": balanced, "found": found, "not_found": not_found, "told": told, "not_told": not_told}


def _confused(classes: Sequence[str], told: np.ndarray, read: np.ndarray) -> Table:
    known = told.max(axis=1) > 0.5
    rows, columns = told[known].argmax(axis=1), read[known].argmax(axis=1)
    confusion = np.zeros((len(classes),) * 2, dtype=int)
    np.add.at(confusion, (rows, columns), 1)
    each = {name: {"hit": _share(columns[rows == i] == i), "count": int((rows == i).sum())} for i, name in enumerate(classes)}
    return {"accuracy": _share(rows == columns), "count": int(known.sum()), "classes": each, "confusion": confusion.tolist()}


def _share(right: np.ndarray) -> float | None:
    return float(right.mean()) if len(right) else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def deviation(questions: Questions, told: np.ndarray, read: np.ndarray) -> float:
    """The standard deviation of the headline of `answered` where the images are drawn anew with replacement (Efron 1979)."""
    values = []
    for i in range(RESAMPLED):
        rows = np.random.default_rng(mix("condition", i)).integers(0, len(told), len(told))
        values.append(answered(questions, told[rows], read[rows])["value"])
    return float(np.std([value for value in values if value is not None], ddof=1))


def rare(answers: Table, shares: Mapping[str, float]) -> Table:
    """Of each attribute that fewer than `RARE` of the training images have (`shares`), the share found among those told 1: `coverage`."""
    return {
        name: {"share": shares[name], "coverage": one["found"], "told": one["told"]}
        for name, one in answers["attributes"].items()
        if shares[name] < RARE
    }


def leakage(questions: Questions, without: np.ndarray, with_it: np.ndarray) -> Table:
    """What else changes when one attribute does: L[i, j] is the mean change of the probability of j when i goes from 0 to 1.

    `without` and `with_it` (A,M,K) are read in images that differ by attribute i alone. The diagonal is what was asked for, the rest
    leaks; `largest` are the three largest leaks.
    """
    matrix = (with_it - without).mean(axis=1)
    own = np.eye(*matrix.shape, dtype=bool)
    leaks = [(i, j) for i, j in np.argwhere(~own)]
    largest = sorted(leaks, key=lambda at: -abs(matrix[at]))[:3]
    names = questions.names
    return {
        "rows": questions.attributes,
        "columns": names,
        "matrix": matrix.tolist(),
        "seeds": without.shape[1],
        "mean_asked": float(matrix[own].mean()),
        "mean_leak": float(np.abs(matrix[~own]).mean()) if leaks else 0.0,
        "largest": [{"asked": names[i], "changes": names[j], "by": float(matrix[i, j])} for i, j in largest],
    }


def best_read(answers: Table) -> str | None:
    """The group whose classes are read right most often, of those in `answers`; None where there is none."""
    groups = {group: one["accuracy"] for group, one in answers["groups"].items() if one["accuracy"] is not None}
    return max(groups, key=lambda group: groups[group], default=None)


def diversity(
    questions: Questions, group: str | None, told: np.ndarray, drawn: np.ndarray, labels: np.ndarray, real: np.ndarray
) -> float | None:
    """How varied images of one class are, over how varied photographs of it are: the total variance of features, mean over classes.

    `drawn` (N,D) and `real` (M,D) are features of images that were told `told` (N,K) and are labelled `labels` (M,K). The classes are
    those of `group`; without one all images are one. A class of fewer than 2 images on a side, or of real images that are
    all alike, is left out; None where all are.
    """
    at = questions.columns.get(group) if group else None
    sets = [(drawn, real)] if at is None else [(drawn[a > 0.5], real[b > 0.5]) for a, b in zip(told[:, at].T, labels[:, at].T, strict=True)]
    spread = [(_spread(a), _spread(b)) for a, b in sets if min(len(a), len(b)) > 1]
    return _mean([a / b for a, b in spread if b > 0])


def _spread(features: np.ndarray) -> float:
    return float(features.astype(np.float64).var(axis=0, ddof=1).sum())


def distances(questions: Questions, told: np.ndarray, drawn: np.ndarray, labels: np.ndarray, real: np.ndarray) -> Table:
    """Of every class the Frechet distance between the images told it and the real ones of it, and how many there are of each.

    Arguments as for `diversity`; the distance is None below 2 images.
    """
    found: Table = {}
    for group, at in questions.columns.items():
        found[group] = {}
        for name, a, b in zip(questions.groups[group], told[:, at].T > 0.5, labels[:, at].T > 0.5, strict=True):
            counts = {"told": int(a.sum()), "real": int(b.sum())}
            distance = frechet_distance(drawn[a], real[b]) if min(counts.values()) > 1 else None
            found[group][name] = {"distance": distance, **counts}
    return found


def monotone(weights: Sequence[float], shares: np.ndarray) -> Table:
    """Whether a blend does what its `weights` (W,) say: the mean `shares` of the second class, read in images (S,W) of S seeds.

    `spearman` is the rank correlation of the weight with the mean over seeds, `pooled` with single images; both are 0 where
    the means differ by less than `UNMOVED`.
    """
    means = shares.mean(axis=0)
    if np.ptp(means) < UNMOVED:
        return {"spearman": 0.0, "pooled": 0.0, "shares": means.tolist()}
    single = _spearman(np.tile(weights, len(shares)), shares.ravel())
    return {"spearman": _spearman(np.asarray(weights), means), "pooled": single, "shares": means.tolist()}


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)
