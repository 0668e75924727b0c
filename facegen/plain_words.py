"""What Hydra and OmegaConf complain of, in one line of plain words with the nearest name that exists where a name does not."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from facegen.errors import UserError, nearest

CONF = Path(__file__).resolve().parent.parent / "conf"
LISTED = "such as those that --help lists"


def lines_of(error: Exception, name: str) -> tuple[str, ...]:
    """What to say of `error` in NAME.py: one line for each problem."""
    cause: BaseException = error
    while cause.__cause__ is not None and type(cause).__name__ == "InstantiationException":
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause.lines
    text = str(cause)
    for pattern, say in SAID.items():
        if found := re.search(pattern, text):
            return (say(found, name),)
    return (text.splitlines()[0],)


def settings(name: str) -> list[str]:
    """What may stand before `=` on the command line of NAME.py without a dot: its groups and top-level keys."""
    text = (CONF / f"{name}.yaml").read_text()
    return sorted({*re.findall(r"^(?:  - (?:optional )?)?([a-z]\w*):", text, flags=re.MULTILINE)} - {"defaults", "hydra"})


def _no_option(found: re.Match[str], name: str) -> str:
    group, option = found.groups()
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return f"{group}={option} does not exist{nearest(option, options)}; allowed: {', '.join(options)}"


def _no_setting(found: re.Match[str], name: str) -> str:
    key, known = found.group(1), settings(name)
    return f"{key} is not a setting of {name}.py{nearest(key, known)}; allowed: {', '.join(known)}"


def _missing(found: re.Match[str], name: str) -> str:
    return f"{found.group(1)} is required; type {found.group(1)}=..."


def _no_echo(found: re.Match[str], name: str) -> str:
    missing, key = found.groups()
    return f"{key} takes over ${{{missing}}}, which is not a setting; type a plain value, or the name of a setting that exists"


def _no_name(found: re.Match[str], name: str) -> str:
    """Hydra does not say which group was given a number or null: the one that is on the command line."""
    typed = [argument.lstrip("+").partition("=") for argument in sys.argv[1:]]
    wrong = [
        f"{group}={value}" for group, _, value in typed if (CONF / group).is_dir() and re.fullmatch(r"null|true|false|[-+.\de]+", value)
    ]
    return f"{wrong[0] if wrong else 'a group'} names no option of the group; type GROUP=NAME, {LISTED}"


def _no_equals(found: re.Match[str], name: str) -> str:
    return f"'{found.group(1)}' is no setting; type KEY=VALUE, {LISTED}"


def _unreadable(found: re.Match[str], name: str) -> str:
    first = found.string.splitlines()[0]
    return f"the command line cannot be read: {first}; quote a value that holds special characters: 'key=\"value\"'"


SAID: dict[str, Callable[[re.Match[str], str], str]] = {
    r"Could not find '([\w/]+)/([^'/]*)'": _no_option,
    r"Could not override '([^']+)'": _no_setting,
    r"[Mm]issing mandatory value: (\S+)": _missing,
    r"Interpolation key '([^']+)' not found\s+full_key: (\S+)": _no_echo,
    r"Config group override must be": _no_name,
    r"Error parsing override '(.*)'\s+missing EQUAL": _no_equals,
    r"mismatched input|extraneous input|token recognition|no viable alternative": _unreadable,
}
