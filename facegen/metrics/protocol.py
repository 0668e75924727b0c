"""How a number was measured, beside the number: written, hashed and compared.

    {"subject": {...}, "protocol": {"generated": {...}, "real": {...}, "software": {...}, "device": "cpu", "dtype": "float32"},
     "metrics": {"fd_probe@2k": {"metric": "fd_probe", "value": 4.3, "deviation": 0.1, "interval": [4.1, 4.5], "of_fake": false,
                                 "protocol": {"extractor": {...}, "options": {...}}, "protocol_hash": "0123456789abcdef"}}}

The subject is what was measured (a checkpoint, a folder); all that could change the number for the same subject is the protocol.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from facegen import __version__
from facegen.durable import replacing
from facegen.errors import UserError

SOFTWARE = ("torch", "numpy", "torchmetrics", "torch-fidelity", "pillow")
UNSET = "(not told)"


def digest(*parts: object) -> str:
    """A short name for plain values: 16 hexadecimal digits that depend on all of them."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Number:
    """One measured number of `metric`; its `name` also says the count and foreign weights.

    `deviation` (standard) and `interval` (95%) are there where they were measured, `more` is what else belongs to it. `extractor` and
    `options` are the part of the protocol that is its own; `of_fake`: the real images have no part in it.
    """

    metric: str
    name: str
    value: float
    deviation: float | None = None
    interval: tuple[float, float] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    of_fake: bool = False

    def entry(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """The number as it is written, with the hash of its whole protocol."""
        own = {"extractor": dict(self.extractor), "options": dict(self.options)}
        told = {"value": self.value, "deviation": self.deviation, "interval": self.interval and list(self.interval), **self.more}
        return {
            "metric": self.metric,
            **{key: value for key, value in told.items() if value is not None},
            "of_fake": self.of_fake,
            "protocol": own,
            "protocol_hash": digest(self.metric, whole_protocol(common, own, self.of_fake)),
        }


def software() -> dict[str, str]:
    """The versions of what computes."""
    return {"facegen": __version__, **{name: version(name) for name in SOFTWARE}}


def whole_protocol(common: Mapping[str, Any], own: Mapping[str, Any], of_fake: bool) -> dict[str, Any]:
    """All that a number depends on beside its subject."""
    return {**{key: value for key, value in common.items() if not (of_fake and key == "real")}, **own}


def save(path: Path, subject: Mapping[str, Any], common: Mapping[str, Any], numbers: list[Number]) -> dict[str, Any]:
    """Writes numbers of one subject and one protocol into `path`, beside those that are there already; returns what is then in it."""
    record = {"subject": dict(subject), "protocol": dict(common), "metrics": {number.name: number.entry(common) for number in numbers}}
    record = json.loads(json.dumps(record))  # as it will be read: tuples are lists
    if path.exists() and (there := _there(path)) and all(there.get(key) == record[key] for key in ("subject", "protocol")):
        record["metrics"] = {
            **there["metrics"],
            **{name: _added(there["metrics"].get(name), new) for name, new in record["metrics"].items()},
        }
    with replacing(path) as file:
        file.write((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    return record


def _added(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """A number measured again: what was measured with it before, such as its interval, is kept."""
    return {**old, **new} if old and old.get("protocol_hash") == new["protocol_hash"] else new


def _there(path: Path) -> dict[str, Any] | None:
    try:
        return load(path)
    except UserError:  # damaged: written anew
        return None


def load(path: Path) -> dict[str, Any]:
    """The evaluation in `path`. Raises UserError where it is none."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file; give a file that evaluate.py wrote")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(record["protocol"], dict) and isinstance(record["subject"], dict)):
            raise ValueError("no protocol")
        for name, entry in record["metrics"].items():
            _check(name, entry, record["protocol"])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that evaluate.py wrote") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise UserError(f"{path} is not an evaluation ({error}); give a file that evaluate.py wrote") from error
    return record


def _check(name: str, entry: dict[str, Any], common: Mapping[str, Any]) -> None:
    """Raises ValueError where an entry is no number with its protocol, or its protocol is not the one that was hashed."""
    for key in ("value", "deviation"):
        if key in entry and (not isinstance(entry[key], int | float) or isinstance(entry[key], bool) or not math.isfinite(entry[key])):
            raise ValueError(f"{key} of {name} is no number")
    if not isinstance(entry["metric"], str) or "value" not in entry:
        raise ValueError(f"{name} is no number")
    own = entry["protocol"]
    if digest(entry["metric"], whole_protocol(common, own, bool(entry.get("of_fake")))) != entry["protocol_hash"]:
        raise ValueError(f"the protocol of {name} is not the one that its hash was made of")


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any], metric: str, ignored: frozenset[str] = frozenset()) -> str | None:
    """The first field in which the protocols of `metric` in evaluations `a` and `b` differ, with both values; None if they agree."""
    flat = [fields(record, metric) for record in (a, b)]
    for key in {**flat[0], **flat[1]}:
        values = [found.get(key, UNSET) for found in flat]
        if values[0] != values[1] and key not in ignored:
            return f"{key}: {_printable(values[0])} and {_printable(values[1])}"
    return None


def _printable(value: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def by_metric(record: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The numbers of an evaluation as {metric: (name, entry)}: the same metric has other names at other counts."""
    return {entry["metric"]: (name, entry) for name, entry in record["metrics"].items()}


def fields(record: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """All that `metric` in an evaluation depends on, by dotted names."""
    _, entry = by_metric(record)[metric]
    return dict(_flat(whole_protocol(record["protocol"], entry["protocol"], bool(entry.get("of_fake")))))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
