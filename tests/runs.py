"""Small runs for tests: a configuration as the command line would compose it, and a process to run and kill it in."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from facegen.cli import CONF, spelled_for_hydra

TINY = (
    "model/network=unet_1m",
    "model.network.widths=[16,16]",
    "model.network.groups=8",
    "model.network.attention=[]",
    "data.resolution=16",
    "data.batch_size=4",
    "trainer.precision=32",
    "trainer.threads=1",
    "trainer.max_steps=10",
    "trainer.log_every=1",
    "trainer.validate_every=4",
    "trainer.validate_batches=1",
    "checkpoint.every=3",
    "preview.every=5",
    "preview.count=2",
    "sampler.steps=2",
    "logger.tensorboard=false",
)


def configure(name: str, *overrides: str) -> DictConfig:
    """What `python NAME.py OVERRIDES` would hand to its main."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=[spelled_for_hydra(o, sweep=False, script=name) for o in overrides])


def tiny(run_dir: Path, *overrides: str) -> DictConfig:
    """A training run of seconds in `run_dir`."""
    return configure("train", *TINY, f"run_dir={run_dir}", *overrides)


def tiny_probe(run_dir: Path, *overrides: str) -> DictConfig:
    """A probe of seconds in `run_dir`."""
    options = [option for option in TINY if not option.startswith(("model", "preview", "sampler"))]
    return configure("train", "model=probe", "model.network.widths=[8,16]", *options, f"run_dir={run_dir}", *overrides)


def in_child(task: Callable[[], Any], kill_when: Callable[[], bool] | None = None, with_signal: int = signal.SIGKILL) -> int:
    """Runs `task` in a forked process and returns its exit code; sends it `with_signal` as soon as `kill_when()` is true."""
    pid = os.fork()
    if pid == 0:
        try:
            result = task()
            os._exit(getattr(result, "exit_code", 0))
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if kill_when is not None and kill_when():
            os.kill(pid, with_signal)
            kill_when = None
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError("the run did not end within two minutes")
