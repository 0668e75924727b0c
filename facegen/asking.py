"""What is asked of a model that can be told something: names and weights, blends of them, and what is not said at all.

A wish names classes and attributes: `Indian`, `{European: 0.5, Indian: 0.5}`, `{Male: 1, Smiling: 0}`. Whatever of the data's labels it
leaves open is taken from a training image that agrees with the wish, another for each seed: the rest of a face is then as likely as in
the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from facegen.diffusion.guidance import Told
from facegen.errors import UserError, nearest
from facegen.families.labels import Labels, example_of
from facegen.wishes import NONE

MOST_PARTS = 16  # conditions that one image is made of

Wish = dict[str, float]
Blend = list[tuple[float, Wish | None]]  # shares, whose sum is 1, of wishes without any blend in them; None asks for nothing


class Asker:
    """Turns wishes into what a model is told.

    `labels` are what the columns of its conditions mean, `examples` (N,K) the labels of some training images.
    """

    def __init__(self, labels: Labels, examples: Tensor) -> None:
        self.labels, self.examples = labels, examples
        self.group_of = {labels.names[i]: group for group, columns in labels.groups.items() for i in columns}

    def blend(self, value: object, option: str = "condition") -> Blend:
        """What the value of `option` asks for: a name, {name: weight, ...}, `none`, or null for nothing in particular.

        Raises UserError with a line for each problem: a name that does not exist, a weight outside [0, 1], classes whose weights do not
        add up to 1, too many at once.
        """
        if value == NONE:
            return [(1.0, None)]
        weights = value if isinstance(value, Mapping) else {} if value is None else {value: 1}
        wish = {str(name): weight for name, weight in weights.items()}
        if problems := list(self._problems(wish, option)):
            raise UserError(*problems)
        corners = self._corners({name: float(weight) for name, weight in wish.items()})
        if len(corners) > MOST_PARTS:
            raise UserError(f"{option} blends {len(corners)} conditions; at most {MOST_PARTS} are allowed; type more weights of 0 or 1")
        return corners

    def _problems(self, wish: Mapping[str, object], option: str) -> Iterator[str]:
        names = self.labels.names
        for name, weight in wish.items():
            if name in self.labels.groups:
                yield f"{option}: {name} is a group; ask for one of its classes: {_listed(self._classes(name))}"
            elif name not in names:
                hint = _split_by_the_shell(name, option) or f"allowed: {_listed(names)}, {NONE}"
                yield f"{option}: {name} is nothing that this model was told{nearest(name, names)}; {hint}"
            elif not isinstance(weight, int | float) or not 0 <= weight <= 1:
                yield f"{option}: {name} must be a number from 0 to 1; got {weight}; type '{option}={{{name}:1}}'"
        totals: dict[str, float] = {}
        for name, weight in wish.items():
            if name in self.group_of and isinstance(weight, int | float):
                totals[self.group_of[name]] = totals.get(self.group_of[name], 0.0) + weight
        for group, total in totals.items():
            if not math.isclose(total, 1, abs_tol=1e-3):
                classes = _listed(self._classes(group))
                yield f"{option}: the weights of one face's {group} must add up to 1; got {total:g}; the classes are {classes}"

    def _classes(self, group: str) -> list[str]:
        return [self.labels.names[i] for i in self.labels.groups[group]]

    def _corners(self, wish: Wish) -> Blend:
        """`wish` as shares of wishes that have no blend in them; what is named first comes first."""
        choices: list[list[tuple[float, Wish]]] = []
        for name, weight in wish.items():
            group = self.group_of.get(name)
            if group is None:
                options = [(weight, {name: 1.0}), (1 - weight, {name: 0.0})]
            elif name == next(other for other in wish if self.group_of.get(other) == group):
                options = [(wish[other], {other: 1.0}) for other in wish if self.group_of.get(other) == group]
            else:
                continue
            choices.append([option for option in options if option[0] > 0])
        return [
            (math.prod(share for share, _ in chosen), {name: weight for _, part in chosen for name, weight in part.items()})
            for chosen in product(*choices)
        ]

    def told(self, blends: Sequence[Blend], seeds: Sequence[int], *, mixed: bool, like: Sequence[Blend] | None = None) -> Told:
        """What the image of each of `seeds` is told, for the blend that is asked of each.

        `mixed` mixes the parts of a blend into one condition; else they stay side by side. What a blend leaves open is taken from a
        training image that agrees with it or, where they are given, with the blends `like`.
        """
        if mixed and any(len(blend) > 1 and wish is None for blend in blends for _, wish in blend):
            raise UserError(f"condition={NONE} cannot be mixed with another condition; type blend=prediction, or blend=switch")
        parts, size = max(map(len, blends)), len(self.labels.names)
        conditions, shares = torch.zeros(len(blends), parts, size), torch.zeros(len(blends), parts)
        for row, (blend, seed, model) in enumerate(zip(blends, seeds, like or blends, strict=True)):
            base = self.examples[self._example(model, seed)]
            for part, (share, wish) in enumerate(blend):
                conditions[row, part], shares[row, part] = self._filled(wish, base), share
        shares /= shares.sum(dim=1, keepdim=True)
        if not mixed:
            return Told(conditions, shares)
        return Told.plainly((shares[:, :, None] * conditions).sum(dim=1))

    def _filled(self, wish: Wish | None, base: Tensor) -> Tensor:
        if wish is None:
            return torch.full_like(base, math.nan)
        filled = base.clone()
        for name in wish:
            if name in self.group_of:
                filled[self.labels.groups[self.group_of[name]]] = 0
        for name, weight in wish.items():
            filled[self.labels.names.index(name)] = weight
        return filled

    def usually(self, wish: Wish) -> Tensor:
        """The condition (K,) of `wish`, and in the columns that it leaves open the mean of the training images that agree with it best."""
        return self._filled(wish, self.examples[self._agreeing([(1.0, wish)])].mean(dim=0))

    def _example(self, blend: Blend, seed: int) -> int:
        """The training image whose labels agree best with `blend`; of several one by `seed`."""
        best = self._agreeing(blend)
        return int(best[example_of(seed, len(best))])

    def _agreeing(self, blend: Blend) -> Tensor:
        """The numbers of the training images whose labels agree best with `blend`."""
        agreement = torch.zeros(len(self.examples))
        for share, wish in blend:
            for name, weight in (wish or {}).items():
                column = self.examples[:, self.labels.names.index(name)]
                agreement += share * (column if weight else 1 - column)
        return (agreement >= agreement.max() - 1e-6).nonzero().flatten()


def between(first: Blend, second: Blend, weight: float) -> Blend:
    """The blend at `weight` in [0, 1] of the way from `first` to `second`; at both ends it is that end alone."""
    parts = [((1 - weight) * share, wish) for share, wish in first] + [(weight * share, wish) for share, wish in second]
    merged: dict[str, tuple[float, Wish | None]] = {}
    for share, wish in parts:
        key = repr(wish)
        merged[key] = (merged[key][0] + share if key in merged else share, wish)
    return [(share, wish) for share, wish in merged.values() if share > 0]


def _split_by_the_shell(name: str, option: str) -> str | None:
    """What to type where `name` is a part of a brace that has lost its braces."""
    return f"weights stand in braces, and those in quotes: '{option}={{{name},...}}'" if ":" in name else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
