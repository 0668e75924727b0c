"""The processes of a DDP run: they end together, and one of them tells why."""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch.distributed as dist
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from facegen.errors import UserError

GRACE = 10.0  # seconds for a process to notice by itself that another has ended
LAUNCHER = "FACEGEN_LAUNCHER"  # the environment variable with the number of the process that started this one
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Ranks(DDPStrategy):
    """Lightning's DDP, less its way of ending: it kills rank zero, unheard, within five seconds of another's error."""

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)


class _Launcher(_SubprocessScriptLauncher):
    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[LAUNCHER] = str(os.getpid())
            self._call_children_scripts()
            threading.Thread(target=_watch, args=(self.procs,), daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def tie() -> None:
    """Lets this process end, however busy, when the one that launched it ends."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or launcher == str(os.getpid()):
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):
        raise SystemExit(1)


def settle(error: Exception, trainer: Trainer) -> None:
    """Under DDP returns in the process that is to tell of `error`; the others end in silence with the teller's exit code.

    Raises UserError in rank zero where the error is but the echo of another process's being killed.
    """
    if trainer.world_size == 1 or not dist.is_initialized():
        return
    children = getattr(trainer.strategy.launcher, "procs", [])
    if _is_echo(error):
        ended = _first_to_end(children, 2.0 if trainer.global_rank == 0 else GRACE)
        if ended is not None and children[ended].returncode < 0:
            raise UserError(_lost(children, ended)) from None
    teller, code = _claim(trainer.global_rank, 2 if isinstance(error, UserError) else 1)
    if teller == trainer.global_rank:
        return
    with suppress(subprocess.TimeoutExpired):
        for child in children:  # which end with this process: let them tell first
            child.wait(GRACE)
    raise SystemExit(code)


def resume_command() -> str:
    """The command line of this process, which continues its run when it is typed again."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def _is_echo(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _claim(rank: int, code: int) -> tuple[int, int]:
    """The rank that was the first to claim, and its exit code; rank zero where that has gone already, and the store with it."""
    try:
        said = dist.distributed_c10d._get_default_store().compare_set("facegen/failed", "", f"{rank} {code}").decode()
    except RuntimeError:
        return 0, code
    teller, code_of_teller = said.split()
    return int(teller), int(code_of_teller)


def _first_to_end(processes: list[subprocess.Popen], seconds: float) -> int | None:
    """Which of `processes` has failed, waiting `seconds` for it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for number, process in enumerate(processes):
            if process.poll():
                return number
        time.sleep(0.05)
    return None


def _lost(processes: list[subprocess.Popen], number: int) -> str:
    name = signal.Signals(-processes[number].returncode).name
    return (
        f"the process of rank {number + 1} was ended by {name} (SIGKILL is often a lack of memory); "
        f"the last checkpoint is good; to continue type: {resume_command()}"
    )


def _watch(processes: list[subprocess.Popen]) -> None:
    """Ends this process where another has failed and this one, waiting for it, has not noticed."""
    while (failed := _first_to_end(processes, 1.0)) is None:
        if all(process.poll() == 0 for process in processes):
            return
    time.sleep(GRACE)
    if processes[failed].returncode < 0:
        print(f"error: {_lost(processes, failed)}", file=sys.stderr, flush=True)
    os._exit(2 if processes[failed].returncode < 0 else processes[failed].returncode)
