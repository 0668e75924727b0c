"""What `--help` says: the groups, settings and options that may be typed, read from conf/ and the signatures of the classes named there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from facegen import schema

WIDTH, INDENT = 130, 18  # characters of a line, and before the second column
NOTED = re.compile(r"^([a-z]\w*): ?(.*?)(?: # ?(.*))?$", re.MULTILINE)  # a top-level setting with the comment behind it


def usage(name: str, summary: str, arguments: list[str], conf: Path) -> str:
    """The help text of NAME.py: groups with all their options, then the keys of those chosen by default or in `arguments`."""
    source = (conf / f"{name}.yaml").read_text(encoding="utf-8")
    main = yaml.safe_load(source)
    typed = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    chosen = {group: typed.get(group, option) for group, option in _defaults(main)}
    folders = {group: group for group in chosen}
    for group, folder, option in _inside(conf, "model", chosen.get("model"), "model"):
        chosen[group], folders[group] = typed.get(group, option), folder
    groups = [_line(group, _options(conf / folders[group], option)) for group, option in chosen.items()]
    settings = [_line(f"{key}={value}", note) for key, value, note in NOTED.findall(source) if not _is_group(main[key])]
    nodes = {key: node for key, node in main.items() if isinstance(node, dict) and "_target_" in node}
    nodes |= {group.replace("/", "."): _node(conf, folders[group], option) for group, option in chosen.items()}
    nodes |= {f"{key}.{name}": part for key, node in nodes.items() for name, part in node.items() if isinstance(part, dict)}
    listed = {key: ", ".join(_keys(node)) for key, node in nodes.items() if node.get("_target_") in schema.TARGETS}
    keys = [_line(key, options) for key, options in listed.items() if options]
    parts = [summary, "", "Groups, GROUP=OPTION; the one in use has a star:", *groups, "", "Settings:", *settings]
    if keys:
        parts += ["", "Options of those in use, such as data.batch_size=16:", *keys]
    return "\n".join([*parts, "", f"python {name}.py ... --cfg job prints the configuration that a command line makes, and runs nothing."])


def _defaults(main: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The groups that the main file takes, with what it chooses of each."""
    for entry in main.get("defaults", []):
        if isinstance(entry, dict):
            yield from ((group, option) for group, option in entry.items() if not group.startswith("override "))


def _inside(conf: Path, folder: str, option: object, name: str) -> Iterator[tuple[str, str, Any]]:
    """The groups inside of an `option` of the group typed as `name`: how each is typed, its folder, and what is chosen of it."""
    for entry in _node(conf, folder, option).get("defaults", []):
        if isinstance(entry, str):  # another option that this one begins with
            yield from _inside(conf, folder, entry, name)
            continue
        for key, inner in entry.items():
            group = key.partition("@")[0]
            if group == "/stage1":
                yield from _inside(conf, "stage1", inner, "stage1")
            else:
                inside = group.removeprefix("/") if group.startswith("/") else f"{folder}/{group}"
                typed = f"{name}/{group.removeprefix('/')}"
                yield typed, inside, inner
                yield from _inside(conf, inside, inner, typed)


def _is_group(value: object) -> bool:
    return isinstance(value, dict | list)


def _node(conf: Path, group: str, option: object) -> dict[str, Any]:
    path = conf / group / f"{option}.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def _options(folder: Path, chosen: object) -> str:
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    return ", ".join(f"{name}*" if name == chosen else name for name in names)


def _keys(node: dict[str, Any]) -> Iterator[str]:
    """The options of a class with the value that each has, as they are typed."""
    known = schema.signature(node["_target_"])
    for key, (_, default) in known.items():
        value = node.get(key, default)
        given = value is not schema.REQUIRED and key not in schema.SUPPLIED  # the rest is another group, or the run itself
        if given and not isinstance(value, dict) and not str(value).startswith("${"):
            yield f"{key}={_typed(value)}"
    yield from (f"{key}={_typed(value)}" for key, value in node.items() if isinstance(value, bool) and key not in known)


def _typed(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _line(head: str, text: str) -> str:
    gap = " " * max(1, INDENT - 2 - len(head))
    return textwrap.fill(f"  {head}{gap}{text}".rstrip(), WIDTH, subsequent_indent=" " * INDENT, break_on_hyphens=False)
