"""The probe: a classifier of the data's labels, trained in minutes, whose features and answers judge what other models draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from facegen.families.family import Family
from facegen.families.labels import Labels
from facegen.families.optimization import Adam
from facegen.networks.probe import Classifier, ProbeNet
from facegen.types import NonNegativeInt, ProperFraction

LOSS = "val/loss"


class Probe(Family):
    """A classifier of attributes (binary cross entropy) and of exclusive groups (softmax cross entropy), all questions weighing alike.

    Args:
        network: from images (B,C,H,W) to features (B,D).
        optimizer: with its learning rate over the run.
        condition_names, condition_groups: what the columns of a batch's `condition` are: facts of the data, given by the run and, later,
            by the checkpoint.
        shift: training images are moved by up to this share of their side in either direction, their edges repeated.
        smoothing: share of the truth that is spread over all answers, in training.
        seed: root of all randomness of the training steps.
    """

    family, averaged, draws = "probe", "classifier", False

    def __init__(
        self,
        network: ProbeNet,
        optimizer: Adam,
        condition_names: list[str],
        condition_groups: dict[str, list[str]],
        shift: ProperFraction = 0.0625,
        smoothing: ProperFraction = 0.0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(optimizer, seed)
        self.labels = Labels(condition_names, condition_groups)
        self.classifier = Classifier(network, len(condition_names))
        self.shift, self.smoothing = shift, smoothing
        self._columns = _measured(self.labels)
        self._held_out = torch.zeros(2, len(self._columns), dtype=torch.float64)

    @property
    def network(self) -> nn.Module:
        return self.classifier.network

    def losses(self, batch: dict[str, Any]) -> Tensor:
        """The cross entropy (B,) of each image, moved at random."""
        images = batch["image"]
        logits = self.classifier(shifted(images, round(self.shift * images.shape[-1])))
        return self.labels.losses(logits.float(), batch["condition"], self.smoothing)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds to what is measured on held-out images: a sum and a count for each of `_columns`."""
        logits, truth = self.classifier(batch["image"]).float(), batch["condition"]
        values = [(self.labels.losses(logits, truth), torch.ones_like(logits[:, 0])), *_answers(self.labels, logits, truth)]
        self._held_out += torch.stack([torch.stack([(value * known).sum(), known.sum()]) for value, known in values], dim=1).double()

    def on_validation_epoch_end(self) -> None:
        """Logs the loss, the accuracy of each group, the mean over attributes of their balanced accuracy (the mean of the shares found
        among those that have it and those that do not, so that a rare one cannot be won by always saying no), and, where a group is
        ranges of years, the mean error in years of the expected middle."""
        total, count = self.held_out_sums()
        means = dict(zip(self._columns, zip(total / count.clamp(min=1), count, strict=True), strict=True))
        found = {name: mean for name, (mean, n) in means.items() if n > 0 and name.startswith("val/")}
        both = [(means[f"has {i}"], means[f"lacks {i}"]) for i in self.labels.attributes]
        balanced = [(has + lacks) / 2 for (has, n), (lacks, m) in both if n > 0 and m > 0]
        if balanced:
            found["val/balanced_accuracy"] = torch.stack(balanced).mean()
        for name, value in found.items():
            self.log(name, value.float(), rank_zero_only=True)


def _measured(labels: Labels) -> list[str]:
    """What is measured on held-out images, in the order of `_answers`: those that begin with val/ are logged as they are."""
    names = [LOSS, *(f"{side} {i}" for i in labels.attributes for side in ("has", "lacks"))]
    for group in labels.groups:
        names += [f"val/accuracy_{group}"] + [f"val/{group}_error"] * (labels.years(group) is not None)
    return names


def _answers(labels: Labels, logits: Tensor, truth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For all that is measured but the loss its value for each image (B,), and where it applies: 1, else 0 (B,)."""
    for i in labels.attributes:
        for has in (True, False):
            yield (logits[:, i] > 0).float() if has else (logits[:, i] <= 0).float(), ((truth[:, i] > 0.5) == has).float()
    for group, columns in labels.groups.items():
        answer, wanted = logits[:, columns], truth[:, columns]
        known = (wanted.sum(dim=1) > 0).float()
        yield (answer.argmax(dim=1) == wanted.argmax(dim=1)).float(), known
        if (years := labels.years(group)) is not None:
            years = years.to(answer)
            yield (answer.softmax(dim=1) @ years - wanted @ years).abs(), known


def shifted(images: Tensor, most: int) -> Tensor:
    """`images` (B,C,H,W), each moved by up to `most` pixels in either direction, what comes in at an edge repeating it."""
    if not most:
        return images
    count, _, height, width = images.shape
    down, right = torch.randint(0, 2 * most + 1, (2, count, 1), device=images.device)
    rows, columns = down + torch.arange(height, device=images.device), right + torch.arange(width, device=images.device)
    wider = pad(images, (most,) * 4, mode="replicate").permute(0, 2, 3, 1)
    picked = wider[torch.arange(count, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
