"""A network that is told what to draw: a condition vector behind one linear map, and a learned null in the place of none."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NOTHING = math.nan  # in every column of a condition: nothing is said


class Conditioned(nn.Module):
    """`network` with the condition it is told: (B, `columns`) weights, of classes and attributes, or NOTHING in a whole row.

    One linear map leads to the numbers that the network takes, so that what lies between two conditions is told as what lies between
    their embeddings. Where nothing is said a learned null stands in its place (Ho and Salimans 2022), chosen for each row by a mask.
    """

    def __init__(self, network: nn.Module, columns: int, size: int) -> None:
        super().__init__()
        self.network = network
        self.embed = nn.Linear(columns, size)
        self.null = nn.Parameter(torch.zeros(size))
        nn.init.normal_(self.embed.weight, std=0.5)  # of the size of the time embedding that it is added to
        nn.init.zeros_(self.embed.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, *shown: Tensor) -> Tensor:
        """The network's prediction for `x` (B,C,H,W) at the times `t` (B,), told `condition` (B, columns) and shown what else it takes."""
        said = ~condition.isnan().any(dim=1, keepdim=True)
        told = torch.where(said, self.embed(condition.nan_to_num()), self.null)
        return self.network(x, t, told, *shown)
