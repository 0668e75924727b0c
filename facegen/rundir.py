"""A run is a directory: its layout, its lock and the configuration it was started with."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from facegen import checkpoint, schema
from facegen.durable import replacing, writing
from facegen.errors import UserError

_UNSET = "(not set)"


class RunDir:
    """The layout of one run's directory; it touches nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.previews = self.path / "previews"
        self.lock = self.path / ".lock"

    def latest(self, warn: Callable[[str], None]) -> Path | None:
        """The newest undamaged checkpoint, None in a new run; see `facegen.checkpoint.latest_valid`."""
        return checkpoint.latest_valid(self.path, warn)


@contextlib.contextmanager
def open_run(path: str | os.PathLike[str], config: dict[str, Any], free: Collection[str] = ()) -> Iterator[RunDir]:
    """Hold the run directory `path` for this process alone, new or continued with the same plain `config`.

    `free` names what may change when a run continues: dotted keys, each with all that is below it. Under DDP only
    the first rank opens the run. Raises UserError where the directory cannot be written, is in use by another process
    or was started with another configuration.
    """
    run = RunDir(path)
    with _held(run):
        _settle_config(run, config, free)
        yield run


@contextlib.contextmanager
def _held(run: RunDir) -> Iterator[None]:
    _make(run)
    with writing(run.lock):
        descriptor = os.open(run.lock, os.O_RDWR)
    try:
        _lock(descriptor, run)
        with writing(run.lock):
            holder = f"{os.getpid()} on {socket.gethostname()}".encode()
            os.pwrite(descriptor, holder, 0)  # over what is there: this takes no room on a full disk
            os.truncate(descriptor, len(holder))
        yield
    finally:
        os.close(descriptor)


def _make(run: RunDir) -> None:
    try:
        for folder in (run.path, run.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(f"{folder} is read-only")
        run.lock.touch()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"run_dir={run.path} cannot be written ({reason}): choose another with run_dir=") from error


def _lock(descriptor: int, run: RunDir) -> None:
    # A record lock (lockf), not flock: workers forked by this process do not inherit it, so after a SIGKILL the run is
    # free at once, not when the last orphan has noticed.
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        holder = run.lock.read_text() or "of another run"
        way_out = "wait for it, stop it, or choose another with run_dir="
        raise UserError(f"run_dir={run.path} is in use by process {holder}: {way_out}") from error
    except OSError as error:
        raise UserError(f"run_dir={run.path} cannot be locked ({error.strerror}): choose another disk") from error


def _settle_config(run: RunDir, config: dict[str, Any], free: Collection[str]) -> None:
    """Write config.yaml at first and when only `free` keys have changed; refuse any other change."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if run.config.exists() and checkpoint.steps(run.path):  # a run that has no checkpoint yet has nothing to continue
        old, new = _flat(schema.modernised(_stored(run.config))), _flat(yaml.safe_load(text))
        changed = [key for key in {**old, **new} if old.get(key, _UNSET) != new.get(key, _UNSET)]
        fixed = [key for key in changed if not any(key == name or key.startswith(f"{name}.") for name in free)]
        if fixed:
            fixed = _told_once(_whole(fixed, old, new), old, new)
            listed = ", ".join(f"{key}: {old.get(key, _UNSET)} -> {new.get(key, _UNSET)}" for key in fixed)
            way_out = "start anew with run_dir=NEW, or give the old values to continue"
            raise UserError(f"run_dir={run.path} was started with another configuration ({listed}): {way_out}")
        if not changed:
            return
    with replacing(run.config) as file:
        file.write(text.encode())


def _whole(keys: list[str], old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The `keys`, with one for all of a part that only one of the two configurations has; that one says so instead of its values."""
    there, here = ({key.partition(".")[0] for key in side} for side in (old, new))
    found = [top if (top := key.partition(".")[0]) not in there & here else key for key in keys]
    for side, tops in ((old, there), (new, here)):
        side.update({key: "..." for key in found if key not in side and key in tops})
    return list(dict.fromkeys(found))


def _told_once(keys: list[str], old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Of keys that take one another's value over (model.schedule.steps is scheduler.steps) the shortest alone."""
    told: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        told.setdefault(repr((key.rpartition(".")[2], old.get(key, _UNSET), new.get(key, _UNSET))), key)
    return [key for key in keys if key in told.values()]


def _stored(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: mend it, or start anew with run_dir=NEW") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration: mend it, or start anew with run_dir=NEW")
    return config


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values; lists and empty groups count as one value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat
