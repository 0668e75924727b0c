"""Scores of one set by a classifier's logits, and how near a model's features come to those that it was trained on."""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 1024  # rows of cosines at a time
SMALLEST_FID = 1e-8  # below which `mifid` is 0
TINY = 10e-15  # what torchmetrics keeps its denominator from 0 by


def inception_score(logits: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation over `splits` parts, each 1 or more, of exp E KL(p(y|x) || p(y)) (Salimans et al. 2016, sec. 4).

    `logits` (N,classes) are parted in their order, at i N // splits. Raises ValueError for fewer logits than splits.
    """
    if not 1 <= splits <= len(logits):
        raise ValueError(f"cannot part {len(logits)} logits into {splits}")
    scores = []
    for i in range(splits):
        part = torch.from_numpy(logits[i * len(logits) // splits : (i + 1) * len(logits) // splits].astype(np.float64))
        logs = part.log_softmax(1)
        negentropy = (logs.exp() * logs).sum(1).mean()  # E KL is the entropy of the mean less the mean entropy: no log of 0
        mean = logs.exp().mean(0)
        scores.append(float((negentropy - torch.xlogy(mean, mean).sum()).exp()))
    return float(np.mean(scores)), float(np.std(scores))


def memorization_distance(fake: np.ndarray, real: np.ndarray) -> float:
    """The mean over `real` (M,D) of the least cosine distance 1 - |cos|, in [0, 1], to any of `fake` (N,D) (Bai et al. 2021).

    0 where each real feature is that of a sample; the order (real to fake) is that of torchmetrics. Rows of zeros have no
    direction and are left out. Raises ValueError where a set has no others.
    """
    ours, theirs = _directions(fake), _directions(real)
    largest = torch.cat([(rows @ ours.T).abs().amax(1) for rows in theirs.split(BLOCK)])
    return float((1 - largest).mean())


def mifid(fid: float, distance: float, threshold: float = 0.1) -> float:
    """The memorization-informed FID: `fid` over the `memorization_distance` where this is below `threshold`, else `fid` (Bai et al. 2021).

    With torchmetrics, 0 where `fid` is at most 1e-8.
    """
    if fid <= SMALLEST_FID:
        return 0.0
    return fid / ((distance if distance < threshold else 1.0) + TINY)


def _directions(rows: np.ndarray) -> torch.Tensor:
    vectors = torch.from_numpy(rows.astype(np.float64))
    norms = vectors.norm(dim=1, keepdim=True)
    some = norms[:, 0] > 0
    if not some.any():
        raise ValueError("all features are zero")
    return vectors[some] / norms[some]
