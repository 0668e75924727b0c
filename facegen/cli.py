"""From the command line to a configuration: what the user may type, and one line of plain words where it is wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from facegen.errors import UserError, nearest

CONF = Path(__file__).resolve().parent.parent / "conf"
PATHS = ("ckpt", "out", "run_dir", "data.root", "data.cache_dir")  # values that may hold any character a file name may


def spelled_for_hydra(argument: str, sweep: bool) -> str:
    """`argument` as Hydra wants it: options that a YAML file leaves to their default may be set like any other, and paths need no quotes."""
    key, equals, value = argument.partition("=")
    if not equals or key.startswith(("-", "+", "~", "hydra")):
        return argument
    plain = value[:1] not in ("'", '"', "[", "{") and not (sweep and "," in value)
    if key in PATHS and plain and re.search(r"[^\w./-]", value):
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"{'++' if '.' in key else ''}{key}={value}"


def entry(task: Callable[[Any], Any], name: str) -> None:
    """Runs `task` with the configuration `conf/NAME.yaml` and the command line; an error of the user's is a line on stderr and exit code 2."""
    sweep = any(a in ("-m", "--multirun") for a in sys.argv[1:])
    sys.argv[1:] = [spelled_for_hydra(a, sweep) for a in sys.argv[1:]]
    debug = os.environ.get("FACEGEN_DEBUG") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as exceptions
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        hydra.main(config_path=str(CONF), config_name=name, version_base="1.3")(task)()
    except UserError as error:
        if debug:
            raise
        raise SystemExit(fail(*error.lines)) from None
    except (HydraException, OmegaConfBaseException) as error:
        if debug:
            raise
        raise SystemExit(fail(in_plain_words(error))) from None


def fail(*lines: str) -> int:
    """Prints `lines` as errors on stderr and returns exit code 2."""
    for line in lines:
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return 2


def in_plain_words(error: Exception) -> str:
    """One line for an error of Hydra's composition, with the nearest name that exists."""
    cause: BaseException = error
    while cause.__cause__ is not None and type(error).__name__ == "InstantiationException":
        cause = cause.__cause__
    text = str(cause)
    if found := re.search(r"Could not find '(\w+)/([^']+)'", text):
        group, option = found.groups()
        options = sorted(p.stem for p in (CONF / group).glob("*.yaml"))
        return f"{group}={option} does not exist{nearest(option, options)}; allowed: {', '.join(options)}"
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found.group(1)
        return f"{key} is not a setting{nearest(key, top_level())}; allowed: {', '.join(top_level())}"
    if found := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{found.group(1)} is required; type {found.group(1)}=..."
    if "mismatched input" in text or "extraneous input" in text or "token recognition" in text:
        return f"the command line cannot be read: {text.splitlines()[0]}; quote values that hold special characters: 'key=\"value\"'"
    return text.splitlines()[0]


def top_level() -> list[str]:
    """The names that may stand before `=` on a command line without a dot: groups and top-level keys."""
    groups = [p.name for p in CONF.iterdir() if p.is_dir()]
    keys = re.findall(r"^(\w+):", "\n".join(p.read_text() for p in CONF.glob("*.yaml")), flags=re.MULTILINE)
    return sorted({*groups, *keys} - {"defaults", "hydra"})
