"""From what was extracted of two sets of images to the numbers asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from facegen.errors import UserError
from facegen.metrics import manifold, paired, scores
from facegen.metrics.features import Collected, Identity
from facegen.metrics.frechet import bootstrap, extrapolated, frechet_distance
from facegen.metrics.kernel import kid, standard_error
from facegen.metrics.names import INCEPTION, Metric
from facegen.metrics.neighbours import Neighbours
from facegen.metrics.protocol import Number
from facegen.types import NonNegativeInt, PositiveInt

BOOTSTRAP_SEED, KID_SEED = 0, 2020  # the second is torch-fidelity's own
FEWEST_EXTRAPOLATED = 4


@dataclass(frozen=True)
class Options:
    """How the numbers are computed from the features.

    Args:
        splits: parts that the Inception score is averaged over.
        kid_subsets, kid_subset_size: subsets that the kernel distance is averaged over, and images in each.
        k: neighbours that make the radius of precision and recall (Kynkaanniemi et al. take 3).
        density_k: the same of density and coverage (Naeem et al. take 5).
        bootstrap: draws for the interval of a Frechet distance; 0 for none.
        infinity: extrapolate Frechet distances to infinitely many images.
    """

    splits: PositiveInt = 10
    kid_subsets: PositiveInt = 100
    kid_subset_size: PositiveInt = 1_000
    k: PositiveInt = 3
    density_k: PositiveInt = 5
    bootstrap: NonNegativeInt = 20
    infinity: bool = True


class Measurement:
    """Numbers of one set of images against another, each from the features that its metric is measured in.

    `fake` and `real` say what was extracted of each; `identities` what extracted it; `foreign` is the SHA-256 of Inception weights that
    are not the published ones. `lpips` and `neighbours_in` serve the metrics that need more than features.
    """

    def __init__(
        self,
        fake: Collected,
        real: Collected | None,
        options: Options,
        identities: Mapping[str, Identity],
        foreign: str | None = None,
        lpips: Any = None,
    ) -> None:
        self.fake, self._real, self.options, self.identities = fake, real, options, identities
        self.foreign, self._lpips = foreign, lpips
        self.neighbours_in: Callable[[str], Neighbours]
        self._pairs: dict[tuple[str, str], Any] = {}

    @property
    def real(self) -> Collected:
        assert self._real is not None, "metrics that need real images are refused before where there are none"
        return self._real

    def number(self, metric: Metric) -> Number:
        """The number of `metric`, under the name that says its features and the count."""
        try:
            value, parts, options = KINDS[metric.kind](self, metric.space or INCEPTION)
        except (ValueError, np.linalg.LinAlgError) as error:
            raise UserError(
                f"{metric.name} cannot be measured of these features: {error}; look at the images, or give another probe="
            ) from error
        return Number(
            metric.name,
            metric.written(self.fake.count, self.foreign),
            float(value),
            **parts,
            extractor=self.identities.get(metric.space or INCEPTION, {}),
            options=options,
            of_fake=metric.of_fake,
        )

    def rows(self, space: str) -> tuple[np.ndarray, np.ndarray]:
        """The features of the generated and the real images."""
        return self.fake.rows(space), self.real.rows(space)

    def once(self, what: str, space: str, compute: Callable[[np.ndarray, np.ndarray], Any]) -> Any:
        """`compute` of both sets of features, which several metrics share."""
        if (what, space) not in self._pairs:
            self._pairs[what, space] = compute(*self.rows(space))
        return self._pairs[what, space]

    def frechet(self, space: str) -> float:
        """The Frechet distance in `space`: from the rows, or from the moments that several processes have summed."""
        if torch.distributed.is_initialized():
            return frechet_distance(self.fake.moments(space), self.real.moments(space))
        return self.once("frechet", space, frechet_distance)


Parts = dict[str, Any]
Told = tuple[float, Parts, dict[str, object]]  # the value, what else Number takes, the metric's own options


def _frechet(sets: Measurement, space: str) -> Told:
    value, asked = sets.frechet(space), sets.options
    parts: Parts = {"more": {}}
    if asked.bootstrap:
        parts["more"]["bootstrap"] = asked.bootstrap
        parts["deviation"], parts["interval"] = bootstrap(*sets.rows(space), value=value, draws=asked.bootstrap, seed=BOOTSTRAP_SEED)
    if asked.infinity and min(sets.fake.count, sets.real.count) >= FEWEST_EXTRAPOLATED:
        limit = extrapolated(*sets.rows(space), seed=BOOTSTRAP_SEED)
        parts["more"] |= {"infinity": limit.value, "infinity_reliable": limit.linear}
    return value, parts, {"definition": "Heusel et al. 2017"}


def _inception_score(sets: Measurement, space: str) -> Told:
    splits = sets.options.splits
    value, deviation = scores.inception_score(sets.fake.rows(space, "logits"), splits)
    parts = {"deviation": deviation / math.sqrt(splits), "more": {"split_deviation": deviation}}
    return value, parts, {"definition": "Salimans et al. 2016", "splits": splits, "order": "global index"}


def _kid(sets: Measurement, space: str) -> Told:
    subsets, size = sets.options.kid_subsets, sets.options.kid_subset_size
    value, deviation = kid(*sets.rows(space), subsets=subsets, subset_size=size, seed=KID_SEED)
    kernel = "polynomial of degree 3, unbiased (Binkowski et al. 2018)"
    parts = {"deviation": standard_error(*sets.rows(space), seed=KID_SEED), "more": {"subset_deviation": deviation}}
    return value, parts, {"definition": kernel, "subsets": subsets, "subset_size": size, "seed": KID_SEED}


def _mifid(sets: Measurement, space: str) -> Told:
    distance = scores.memorization_distance(*sets.rows(space))
    value = scores.mifid(sets.frechet(space), distance)
    return value, {"more": {"memorization_distance": float(distance)}}, {"definition": "Bai et al. 2021"}


def _improved(place: int) -> Callable[[Measurement, str], Told]:
    def part(sets: Measurement, space: str) -> Told:
        k = sets.options.k
        value = sets.once("improved", space, lambda fake, real: manifold.precision_recall(fake, real, k))[place]
        count = sets.fake.count if place == 0 else sets.real.count
        return value, {"deviation": math.sqrt(value * (1 - value) / count)}, {"definition": "Kynkaanniemi et al. 2019", "k": k}

    return part


def _naeem(place: int) -> Callable[[Measurement, str], Told]:
    def part(sets: Measurement, space: str) -> Told:
        k = sets.options.density_k
        value = sets.once("naeem", space, lambda fake, real: manifold.density_coverage(fake, real, k))[place]
        return value, {}, {"definition": "Naeem et al. 2020", "k": k}

    return part


def _neighbours(sets: Measurement, space: str) -> Told:
    found = sets.neighbours_in(space)
    over = " over that of held-out images" if found.features.ratio is not None else ""
    definition = f"median distance to the nearest of the training images{over}"
    return found.ratio, {"more": found.summary()}, {"definition": definition, **found.compared}


def _lpips_diversity(sets: Measurement, space: str) -> Told:
    pixels = sets.fake.rows("pixels", "pixels")
    values = sets._lpips.distance(*(torch.from_numpy(pixels[i : len(pixels) // 2 * 2 : 2]) for i in (0, 1))).numpy()
    return values.mean(), {"deviation": _standard_error(values)}, {"definition": "mean LPIPS of images 2i and 2i + 1"}


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _of_pairs(compute: Callable[[Measurement, Any, Any], Any], definition: str) -> Callable[[Measurement, str], Told]:
    def part(sets: Measurement, space: str) -> Told:
        a, b = (torch.from_numpy(images.rows("pixels", "pixels")) for images in (sets.fake, sets.real))
        values = np.asarray(compute(sets, a, b), dtype=np.float64)
        return float(values.mean()), {"deviation": _standard_error(values)}, {"definition": definition}

    return part


KINDS: dict[str, Callable[[Measurement, str], Told]] = {
    "frechet": _frechet,
    "inception_score": _inception_score,
    "kid": _kid,
    "mifid": _mifid,
    "precision": _improved(0),
    "recall": _improved(1),
    "density": _naeem(0),
    "coverage": _naeem(1),
    "neighbours": _neighbours,
    "lpips_diversity": _lpips_diversity,
    "psnr": _of_pairs(lambda sets, a, b: paired.psnr(a, b).clip(max=paired.PSNR_OF_EQUALS), "mean over pairs, dB, at most 100"),
    "ssim": _of_pairs(lambda sets, a, b: paired.ssim(a, b), "mean over pairs, Wang et al. 2004"),
    "lpips": _of_pairs(lambda sets, a, b: sets._lpips.distance(a, b), "mean over pairs, Zhang et al. 2018"),
}
