"""From the command line to a configuration: what the user may type, and one line of plain words where it is wrong."""

from __future__ import annotations

import argparse
import errno
import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from facegen.errors import UserError
from facegen.plain_words import CONF, lines_of
from facegen.wishes import parts

MULTIRUN = {"-m", "--multirun"}
LISTS = {"evaluate": ("ckpt", "fake"), "sample": ("edit",)}  # paths of which a script takes several: [A,B]
# Values that may hold any character a file name may.
PATHS = (
    "ckpt",
    "fake",
    "real",
    "probe",
    "inception_weights",
    "lpips_weights",
    "autoguidance",
    "out",
    "run_dir",
    "cache_dir",
    "data.root",
    "data.cache_dir",
    "model.autoencoder",
    *(f"{stage}model.{option}" for stage in ("", "stage1.") for option in ("probe", "perceptual_weights")),
    "monitor.probe",
    "monitor.inception_weights",
    "model.pretrained",
    "edit",
    "baseline",
    "prompt",
    "negative_prompt",
)
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
PARTS = re.compile(rf"(?:^|(?<=,))(?:(?:{QUOTED.pattern})(?=,|\Z)|[^,]*)", re.DOTALL)  # what a multirun sweeps over, between its commas
SEVERAL_DEVICES = re.compile(r"\+*(trainer\.(devices|nodes)=.*([2-9]|\d\d)|trainer(\.strategy)?=.*\bddp\b)")
WEIGHT = r"[^][{}:,]+:\s*[-+.\de]+"
OPENED = re.compile(rf"{WEIGHT}(?:,{WEIGHT})*")  # a brace that the shell has taken apart, or that nobody typed
FUNCTION = re.compile(r"(choice|range|shuffle|sort|tag)\(")  # how a sweep may be written too


def spelled_for_hydra(argument: str, sweep: bool, script: str = "train") -> str:
    """`argument` of a script as Hydra wants it: options left to their default may be set like any other, and paths need no quotes."""
    key, equals, value = argument.partition("=")
    name = key.lstrip("+")
    if equals and name.startswith("stage1/"):  # Hydra's words for a group that is part of another's configuration
        group = name.partition("/")[2]
        return f"{group}@stage1.{group.replace('/', '.')}={value}"
    if not equals or name.startswith(("-", "~", "hydra")):
        return argument
    if name == "condition" and not (sweep and FUNCTION.match(value)):  # read by facegen.wishes: a class may have any name
        return f"{key}={','.join(map(_quoted, parts(value))) if sweep and value[:1] != '[' else _quoted(value)}"
    if name in PATHS and not (sweep and FUNCTION.match(value)):
        value = _listed(value) if name in LISTS.get(script, ()) and _is_list(value) else _each(value) if sweep else _quoted(value)
    return f"{'++' if '.' in key and key == name else ''}{key}={value}"


def _is_list(value: str) -> bool:
    """Whether this is a list of paths, and not a file of such a name."""
    return value.startswith("[") and value.endswith("]") and not os.path.exists(value)


def _listed(value: str) -> str:
    return f"[{_each(value[1:-1])}]"


def _each(paths: str) -> str:
    return ",".join(_quoted(part.strip()) for part in PARTS.findall(paths))


def _quoted(path: str) -> str:
    """`path` for Hydra, which then takes every character as it is; nothing, null and what the user has quoted stay."""
    if path in ("", "null") or QUOTED.fullmatch(path):
        return path
    return "'" + re.sub(r"(\\+)(?='|\Z)", r"\1\1", path).replace("'", "\\'") + "'"


def entry(task: Callable[[Any], Any], name: str) -> None:
    """Runs `task` with the configuration `conf/NAME.yaml` and the command line.

    An error of the user's is a line on stderr and exit code 2, with a traceback only where FACEGEN_DEBUG=1.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        from facegen.usage import usage

        try:
            print(usage(name, str(sys.modules[task.__module__].__doc__), sys.argv[1:], CONF), flush=True)
        except BrokenPipeError:  # piped into head
            os._exit(0)
        return
    sweep = bool(MULTIRUN & set(sys.argv[1:]))
    for argument in filter(SEVERAL_DEVICES.match, sys.argv[1:] if sweep else ()):  # now, not when the jobs before it are done
        raise SystemExit(fail(one_device_a_job(argument)))
    if name != "train" and (line := opened_brace(sys.argv[1:])):
        raise SystemExit(fail(line))
    os.environ.setdefault("FACEGEN_SWEEP", sweep_name(sys.argv[1:]))  # where the jobs of a multirun go
    settings = [spelled_for_hydra(a, sweep, name) for a in sys.argv[1:] if a not in {*MULTIRUN, "experiment=null"}]
    sys.argv[1:] = ["-m", *settings] if sweep else settings  # argparse takes no -m from between two settings
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as exceptions
    import hydra

    @functools.wraps(task)
    def guarded(cfg: Any) -> Any:
        with in_plain_words(name):  # before Hydra sees the error, to which it would add lines of its own
            return task(cfg)

    with in_plain_words(name):
        hydra.main(config_path=str(CONF), config_name=name, version_base="1.3")(guarded)()


def sweep_name(arguments: list[str]) -> str:
    """A folder name for a multirun: what it sweeps over, and a hash of the whole command, so that typing it again finds it again."""
    settings = [argument.partition("=") for argument in arguments]
    swept = [key.rpartition(".")[2] for key, _, value in settings if "," in value and value[0] not in "[{"]
    return "-".join([*swept, hashlib.blake2b(repr(sorted(arguments)).encode(), digest_size=4).hexdigest()])


def opened_brace(arguments: list[str]) -> str | None:
    """What to type where the shell has made several words of one `condition={A:0.5,B:0.5}`; None where it has not."""
    places = [i for i, argument in enumerate(arguments) if argument.lstrip("+").startswith("condition=")]
    given = [arguments[i].partition("=")[2] for i in places]
    if opened := [value for value in given if OPENED.fullmatch(value)]:
        return f"condition={opened[0]} has lost its braces, or the shell has taken them; type 'condition={{{','.join(opened)}}}'"
    if given and given[0].count("{") != given[0].count("}"):
        rest = [word for word in arguments[places[0] + 1 :] if "=" not in word and not word.startswith("-")]
        return f"condition={given[0]} has a space after it, at which the shell parts it; type 'condition={given[0]}{''.join(rest)}'"
    if len(given) > 1:
        typed = "'condition={A:0.5,B:0.5}', or 'condition=[{A:1},{B:1}]'"
        return f"condition is given {len(given)} times, or the shell has taken its braces apart; give it once, in quotes: {typed}"
    return None


def one_device_a_job(got: str) -> str:
    """Why a multirun does not train on several devices: its jobs share a process, which would hand the ranks of one job to the next."""
    way_out = "type trainer.devices=1 (trainer=cpu, trainer=gpu), or start each job without -m"
    return f"-m runs each job on one device for now; got {got}; {way_out}"


@contextmanager
def in_plain_words(name: str) -> Iterator[None]:
    """Turns errors that the user can mend into lines on stderr and SystemExit(2)."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except (UserError, HydraException, OmegaConfBaseException, ValueError) as error:
        of_user = isinstance(error, UserError | HydraException | OmegaConfBaseException) or "Config group override" in str(error)
        if os.environ.get("FACEGEN_DEBUG") == "1" or not of_user:
            raise
        raise SystemExit(fail(*lines_of(error, name))) from None
    except OSError as error:
        if os.environ.get("FACEGEN_DEBUG") == "1" or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = f"cannot write {error.filename}" if error.filename else "cannot write a file"
        raise SystemExit(fail(f"{what}: {error.strerror}; make room on the disk and type the same command again")) from None


class Parser(argparse.ArgumentParser):
    """Of a module that is run by itself: a mistake is one line, as everywhere; `example` are the arguments to type."""

    def __init__(self, prog: str, description: str | None, example: str) -> None:
        super().__init__(prog=prog, description=(description or "").splitlines()[0])
        self.example = example

    def error(self, message: str) -> NoReturn:
        raise SystemExit(fail(f"{message}; type {self.prog} {self.example}"))


def fail(*lines: str) -> int:
    """Prints `lines` as errors on stderr and returns exit code 2."""
    with suppress(OSError):  # where stderr itself is on the full disk
        for line in lines:
            print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return 2
