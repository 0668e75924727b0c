"""What the columns of a condition are: attributes, each true or not, and groups of which an image is in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from facegen.errors import UserError
from facegen.seeding import mix

_YEARS = re.compile(r"(\d+)-(\d+)")


class Labels:
    """The K columns of a condition by what they mean: numbers of columns in `attributes` and, by name, in `groups`.

    Args:
        names: of all columns, in order.
        groups: the names of the columns that exclude each other, by the name of the group; what is in none is an attribute.

    Raises:
        UserError: there are no names, two are alike, a group is empty or names what is no column, or two groups share a column.
    """

    def __init__(self, names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
        grouped = [name for columns in groups.values() for name in columns]
        problem = _problem(list(names), groups, grouped)
        if problem:
            raise UserError(f"condition_names={list(names)} with condition_groups={dict(groups)} cannot be: {problem}")
        self.names = list(names)
        self.attributes = [i for i, name in enumerate(names) if name not in grouped]
        self.groups = {group: [self.names.index(name) for name in columns] for group, columns in groups.items()}
        self.questions = len(self.attributes) + len(self.groups)

    def years(self, group: str) -> Tensor | None:
        """The middle (N,) of each of a group's ranges of whole numbers, such as `20-29`; None where its names are not all ranges."""
        ranges = [_YEARS.fullmatch(self.names[i]) for i in self.groups[group]]
        return torch.tensor([(int(r[1]) + int(r[2])) / 2 for r in ranges if r]) if all(ranges) else None

    def losses(self, logits: Tensor, condition: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean over all questions of their cross entropy, (B,), for `logits` and `condition` (B, K).

        Binary for an attribute, softmax for a group; a group that is all zero is not known and counts 0. `smoothing` is the share of
        the truth that is spread evenly over the answers (Szegedy et al. 2016).
        """
        truth = condition[:, self.attributes] * (1 - smoothing) + smoothing / 2
        total = binary_cross_entropy_with_logits(logits[:, self.attributes], truth, reduction="none").sum(dim=1)
        for columns in self.groups.values():
            truth = condition[:, columns]
            truth = truth * (1 - smoothing) + truth.sum(dim=1, keepdim=True) * smoothing / len(columns)
            total = total - (truth * logits[:, columns].log_softmax(dim=1)).sum(dim=1)
        return total / self.questions


def examples_of(columns: Sequence[Sequence[int]], count: int) -> Tensor:
    """The labels (N, count) of training images, of each the numbers of the `columns` that are 1.

    They are no buffer of a model: they are told anew when it is loaded.
    """
    examples = torch.zeros(len(columns), count)
    for row, ones in enumerate(columns):
        examples[row, list(ones)] = 1.0
    return examples


def example_of(seed: int, count: int) -> int:
    """Which of `count` training images the image of `seed` takes its labels from, where nobody says otherwise."""
    return mix("condition", seed) % count


def usual(examples: Tensor, seeds: Sequence[int]) -> Tensor:
    """The labels (B,K), out of `examples` (N,K), that the images of `seeds` are told where nobody asks for anything."""
    return examples[[example_of(seed, len(examples)) for seed in seeds]]


def _problem(names: list[str], groups: Mapping[str, Sequence[str]], grouped: list[str]) -> str | None:
    if not names:
        return "there are no labels"
    if len(set(names)) < len(names) or len(set(grouped)) < len(grouped):
        return "a name comes twice"
    if strange := [name for name in grouped if name not in names]:
        return f"{strange[0]} is no column"
    return next((f"group {group} is empty" for group, columns in groups.items() if not columns), None)
