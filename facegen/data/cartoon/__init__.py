"""Cartoon faces: a procedural data set of labelled, anti-aliased faces, the ground truth of conditional training.

A face is a function of (seed, index): `parameters` says who it is, `render` paints it at any resolution, and the labels
(`attributes`, `age_groups`, `groups`, `conditions`) are read off the same parameters. Needs nothing but numpy.
"""

from __future__ import annotations

from facegen.ages import AGE_GROUPS
from facegen.data.cartoon.labels import ATTRIBUTES, CONDITION_NAMES, GROUPS, age_groups, attributes, conditions, groups
from facegen.data.cartoon.parameters import Parameters, with_age
from facegen.data.cartoon.picture import draw, render
from facegen.data.cartoon.population import parameters

__all__ = [
    "AGE_GROUPS",
    "ATTRIBUTES",
    "CONDITION_NAMES",
    "GROUPS",
    "Parameters",
    "age_groups",
    "attributes",
    "conditions",
    "draw",
    "groups",
    "parameters",
    "render",
    "with_age",
]
