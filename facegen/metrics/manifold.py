"""How far two sets of features cover each other: exact nearest neighbours, and the balls that reach to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

BLOCK = 1 << 23  # float64 numbers at a time: 64 MB
ROUNDING = 64 * np.finfo(np.float64).eps  # of |x|^2 - 2 x.y + |y|^2, relative to the sum of the squares


def nearest(queries: np.ndarray, gallery: np.ndarray, k: int, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Distances (N,k) float64, ascending, and indices (N,k) int64 of the `k` of `gallery` (M,D) nearest to each of `queries` (N,D).

    Euclidean and exact: matrix products only find the candidates, whose distances are then computed from differences (identical
    rows are 0 apart); among equal distances the lower index comes first. `block` numbers are held at a time. Raises ValueError
    unless 1 <= k <= M.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"cannot find {k} neighbours among {len(gallery)} features")
    distances, indices = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    for rows, squares, slack in _squares(queries, gallery, block):
        kth = squares.topk(k, largest=False).values[:, -1:]
        i, j = (found.numpy() for found in torch.nonzero(squares <= kth + 2 * slack, as_tuple=True))
        exact = _apart(queries[rows], gallery, i, j, block)
        order = np.lexsort((exact, i))  # stable, and `j` ascends: equal distances stay in the order of their indices
        first = np.searchsorted(i, np.arange(len(squares)))  # `i` ascends too, so row r has its best at order[first[r]] and after
        best = order[first[:, None] + np.arange(k)]
        distances[rows], indices[rows] = exact[best], j[best]
    return distances, indices


def precision_recall(fake: np.ndarray, real: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall, each in [0, 1], of `fake` (N,D) against `real` (M,D) (Kynkaanniemi et al. 2019, eqs. 1-3).

    The fraction of the fake features within the ball of some real one, and the reverse; a ball reaches, edge included, to the k-th
    neighbour of its centre in its own set, the centre itself left out (an equal one is a neighbour). Raises ValueError unless both
    sets have more than k.
    """
    reached = [
        sum(int(inside.any(1).sum()) for inside in _inside(points, centres, k)) / len(points)
        for points, centres in ((fake, real), (real, fake))
    ]
    return reached[0], reached[1]


def density_coverage(fake: np.ndarray, real: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Density (0 or more, about 1 for equal distributions) and coverage in [0, 1] of `fake` (N,D) against `real` (M,D).

    How many balls of real features hold a fake one, over k, and the fraction of these balls that hold any (Naeem et al. 2020,
    eqs. 3 and 4); the balls are those of `precision_recall`. Raises ValueError unless `real` has more than k.
    """
    held, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    for inside in _inside(fake, real, k):
        held += int(inside.sum())
        covered |= inside.any(0)
    return held / (k * len(fake)), float(covered.double().mean())


def _inside(points: np.ndarray, centres: np.ndarray, k: int) -> Iterator[torch.Tensor]:
    """For a block of `points` after the other, which lie in which ball of `centres`: (rows, M) bool."""
    radii = nearest(centres, centres, k + 1)[0][:, k]  # the centre itself is one of its k + 1 nearest
    reach = torch.from_numpy(radii).square()
    for rows, squares, slack in _squares(points, centres, BLOCK):
        inside = squares <= reach
        i, j = torch.nonzero((squares - reach).abs() <= 2 * slack, as_tuple=True)
        exact = _apart(points[rows], centres, i.numpy(), j.numpy(), BLOCK)
        inside[i, j] = torch.from_numpy(exact <= radii[j.numpy()])
        yield inside


def _squares(queries: np.ndarray, gallery: np.ndarray, block: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Squared distances (rows, M) of a block of `queries` after the other by matrix products, and (rows, 1) how far they may be off."""
    centre = gallery.mean(0, dtype=np.float64)  # about which the norms, and with them the rounding, are small
    height, tall = max(1, block // max(gallery.shape)), max(1, block // gallery.shape[1])
    tiles = [slice(start, start + tall) for start in range(0, len(gallery), tall)]
    norms = torch.cat([_centred(gallery[tile], centre).square().sum(1) for tile in tiles])
    for start in range(0, len(queries), height):
        rows = slice(start, start + height)
        these = _centred(queries[rows], centre)
        own = these.square().sum(1, keepdim=True)
        squares = own + norms
        for tile in tiles:
            squares[:, tile].addmm_(these, _centred(gallery[tile], centre).T, alpha=-2)
        yield rows, squares, ROUNDING * (own + norms.max())


def _centred(rows: np.ndarray, centre: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows - centre)


def _apart(queries: np.ndarray, gallery: np.ndarray, i: np.ndarray, j: np.ndarray, block: int) -> np.ndarray:
    """The distances of the pairs queries[i], gallery[j], from differences."""
    step = max(1, block // gallery.shape[1])
    parts = [slice(start, start + step) for start in range(0, len(i), step)]
    return np.concatenate(
        [np.linalg.norm(queries[i[part]].astype(np.float64) - gallery[j[part]], axis=1) for part in parts] or [np.empty(0)]
    )
