"""What the columns of a condition are called, which of them are asked for, and over which the classes are balanced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from facegen.errors import UserError, nearest


class Columns(NamedTuple):
    """The names of a condition's K columns in order and, by the name of the group, of those that exclude each other."""

    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]

    @property
    def attributes(self) -> list[str]:
        """The columns in no group: each is true of an image or not, whatever the others are."""
        grouped = {name for members in self.groups.values() for name in members}
        return [name for name in self.names if name not in grouped]


NO_LABELS = Columns((), {})


def choose(columns: Columns, wanted: Sequence[str | int] | None, unlabelled: str) -> Columns:
    """The columns that `data.attributes` names, in the data's own order; the name of a group stands for all its columns.

    A group of which one column is left is an attribute. `unlabelled` says why there are no labels, for where there are none.
    Raises UserError where a name is unknown or comes twice, or where there is none.
    """
    if wanted is None:
        return columns
    names = [str(name) for name in wanted]
    got = f"data.attributes=[{','.join(names)}]"
    if not columns.names:
        raise UserError(f"{got} needs labels, {unlabelled}")
    if not names:
        raise UserError(f"{got} names no label; allowed: {_listed(columns)}; type data.attributes=null for all of them")
    found = [column for name in names for column in _meant(name, columns, got)]
    if twice := next((name for name in found if found.count(name) > 1), None):
        around = next((f", in group {group} too" for group in names if twice in columns.groups.get(group, ()) and twice in names), "")
        raise UserError(f"{got} names {twice} twice{around}; type each once")
    kept = {group: tuple(name for name in members if name in found) for group, members in columns.groups.items()}
    groups = {group: members for group, members in kept.items() if len(members) > 1}
    return Columns(tuple(name for name in columns.names if name in found), groups)


def _meant(name: str, columns: Columns, got: str) -> tuple[str, ...]:
    if name in columns.groups:
        return columns.groups[name]
    if name not in columns.names:
        near = nearest(name, (*columns.names, *columns.groups))
        raise UserError(f"{got}: the data has no label {name}{near}; type some of: {_listed(columns)}")
    return (name,)


def _listed(columns: Columns) -> str:
    groups = f"; whole groups: {', '.join(columns.groups)}" if columns.groups else ""
    return f"{', '.join(columns.names)}{groups}"


def balanced_by(columns: Columns, balance: bool | int | str | list[str | int], unlabelled: str) -> tuple[str, ...]:
    """The groups and attributes that `data.balance` means, of the chosen `columns`; none where it is false.

    True means the only group, a list that every combination comes equally often. Raises UserError where there is no only group, or where
    a name is no group or attribute, or comes twice.
    """
    if not isinstance(balance, list):
        return () if balance is False else (_balanced_by(columns, balance, unlabelled),)
    names = tuple(_balanced_by(columns, name, unlabelled) for name in balance)
    if not names or len(set(names)) < len(names):
        raise UserError(f"data.balance=[{','.join(map(str, balance))}] must name one or more labels, each once; type data.balance=false")
    return names


def _balanced_by(columns: Columns, balance: bool | int | str, unlabelled: str) -> str:
    got = f"data.balance={str(balance).lower() if balance is True else balance}"
    if not columns.names:
        raise UserError(f"{got} needs labels, {unlabelled}")
    allowed = [*columns.groups, *columns.attributes]
    if balance is True:
        if len(columns.groups) != 1:
            raise UserError(f"{got} means the only group of labels, and there are {len(columns.groups)}; type data.balance={_one(allowed)}")
        return next(iter(columns.groups))
    if str(balance) in allowed:
        return str(balance)
    if group := next((group for group, members in columns.groups.items() if str(balance) in members), None):
        raise UserError(f"{got} is one class of the group {group}; type data.balance={group} to show all of its classes equally often")
    raise UserError(
        f"{got} is no group and no attribute of the labels in use{nearest(str(balance), allowed)}; type data.balance={_one(allowed)}"
    )


def _one(names: list[str]) -> str:
    return f"NAME with one of: {', '.join(names)}" if len(names) > 1 else names[0]
