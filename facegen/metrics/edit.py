"""Whether edits did what was asked and nothing else: numbers from what a probe reads and from pixels, all of them plain arrays.

`read` (N,G) are probabilities of the age groups, whose middles are `middles` (G,) years; `asked` (N,) are numbers of groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facegen.metrics.paired import PSNR_OF_EQUALS, WHITE
from facegen.metrics.probe import LUMA
from facegen.regions import Box, inside

GREY = 128
BLURRED = 0.5  # of the sharpness that the eyes had: less is told as lost
Table = dict[str, Any]


def ages(asked: np.ndarray, read: np.ndarray, middles: np.ndarray) -> Table:
    """How far the ages that are read are from those that were asked for.

    `right` is the share read in the group asked for, `near` in that or a neighbouring one, `years` the mean distance of the middle of the
    group read from that of the group asked for, `expected_years` the same for the mean of the middles, weighted by probability.
    `confusion` has rows asked, columns read.
    """
    seen = read.argmax(axis=1)
    confusion = np.zeros((len(middles),) * 2, dtype=int)
    np.add.at(confusion, (asked, seen), 1)
    return {
        "right": float((seen == asked).mean()),
        "near": float((np.abs(seen - asked) <= 1).mean()),
        "years": float(off(asked, read, middles).mean()),
        "expected_years": float(np.abs(read @ middles - middles[asked]).mean()),
        "count": len(asked),
        "confusion": confusion.tolist(),
    }


def off(asked: np.ndarray, read: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """The distance (N,) in years of the group that is read from the one that was asked for, middle to middle."""
    return np.abs(middles[read.argmax(axis=1)] - middles[asked])


def identity(photographs: np.ndarray, edits: np.ndarray, same: np.ndarray | None = None) -> Table:
    """How like their photographs edits are, by features (N,D) of both, from which the mean of the photographs is taken.

    `cosine` is the mean similarity of an edit and its photograph, `strangers` that of photographs of two people, `found` the share of edits
    that are more like their own photograph than like any other of the N. `same_person` is the similarity of photographs and of true ones
    of the same people at the age asked for (`same`), `same_person_found` their share found.
    """
    center = photographs.astype(np.float64).mean(axis=0)
    known, seen = _unit(photographs - center), _unit(edits - center)
    among = known @ known.T
    others = among[~np.eye(len(among), dtype=bool)]
    table: Table = {**_likeness(known, seen), "strangers": float(others.mean()) if len(others) else None}
    if same is not None:
        table |= {f"same_person{'_found' * (key == 'found')}": value for key, value in _likeness(known, _unit(same - center)).items()}
    return table


def _likeness(known: np.ndarray, seen: np.ndarray) -> Table:
    likeness = seen @ known.T
    return {"cosine": float(np.diag(likeness).mean()), "found": float((likeness.argmax(axis=1) == np.arange(len(seen))).mean())}


def _unit(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)


def outside_psnr(a: np.ndarray, b: np.ndarray, face: Box) -> np.ndarray:
    """Peak signal-to-noise ratio in dB (N,) of `a` and `b` (N,C,H,W) uint8 over what lies outside the box `face`, at most 100."""
    around = np.ones(a.shape[-2:], bool)
    around[inside(face, a.shape[-1])] = False
    squared = (a[:, :, around].astype(np.float64) - b[:, :, around]) ** 2
    return _decibels(squared.mean(axis=(1, 2)))


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB (N,) of `a` and `b` (N,C,H,W) uint8, at most 100."""
    return _decibels(((a.astype(np.float64) - b) ** 2).mean(axis=(1, 2, 3)))


def _decibels(squared: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(WHITE**2 / squared), PSNR_OF_EQUALS)


def covered(images: np.ndarray, face: Box) -> np.ndarray:
    """A copy of `images` (N,C,H,W) uint8 with grey in the box `face`."""
    hidden = images.copy()
    hidden[:, :, *inside(face, images.shape[-1])] = GREY
    return hidden


def drift(names: Sequence[str], before: np.ndarray, after: np.ndarray, truth: np.ndarray | None = None) -> Table:
    """What else changes, by what is read (N,K) as 0 or 1 `before` and `after` an edit under `names`, none of which was asked for.

    Of each name the share of edits that are read as their photograph was (`kept`), how often it came (`gained`) and went (`lost`), and,
    where the `truth` is known (N,K) of the person at the age asked for, the share that agrees with it (`right`). `mean_kept` is over names.
    """
    table: Table = {}
    for i, name in enumerate(names):
        was, became = before[:, i] > 0.5, after[:, i] > 0.5
        one = {"kept": float((was == became).mean()), "gained": float((~was & became).mean()), "lost": float((was & ~became).mean())}
        table[name] = one if truth is None else {**one, "right": float((became == (truth[:, i] > 0.5)).mean())}
    return {"names": table, "mean_kept": float(np.mean([one["kept"] for one in table.values()])) if table else None}


def sharpness(images: np.ndarray, eyes: Box) -> np.ndarray:
    """The mean squared Laplacian (N,) of the luma of `images` (N,C,H,W) uint8 within the box `eyes`: eyes that are smeared have little."""
    grey = images[:, 0].astype(np.float64) if images.shape[1] == 1 else np.einsum("nchw,c->nhw", images.astype(np.float64), LUMA)
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    rows, columns = inside(eyes, images.shape[-1])
    return ((around - 4 * grey)[:, rows, columns] ** 2).mean(axis=(1, 2))


def eyes(photographs: np.ndarray, edits: np.ndarray, box: Box) -> Table:
    """The median `ratio` of the sharpness of the eyes after and before, and the share of edits that have `lost` more than half of it."""
    ratio = sharpness(edits, box) / np.maximum(sharpness(photographs, box), 1.0)
    return {"ratio": float(np.median(ratio)), "lost": float((ratio < BLURRED).mean())}


def nearest(edits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Which of the `true` pictures (N,A,C,H,W) uint8 of the same people at A ages each of `edits` (N,C,H,W) is nearest to, (N,)."""
    squared = ((true.astype(np.float32) - edits[:, None].astype(np.float32)) ** 2).mean(axis=(2, 3, 4))
    return squared.argmin(axis=1)


def pareto(points: Sequence[Mapping[str, float]], less: str, more: str) -> list[bool]:
    """Which of `points` no other one beats: none has as little of `less` and as much of `more`, and better of one of them."""
    return [
        not any(
            other[less] <= point[less] and other[more] >= point[more] and (other[less] < point[less] or other[more] > point[more])
            for other in points
        )
        for point in points
    ]
