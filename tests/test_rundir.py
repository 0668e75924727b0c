from __future__ import annotations

import copy
import errno
import os
import signal
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml

from facegen.checkpoint import step_name
from facegen.errors import UserError
from facegen.rundir import RunDir, open_run

CONFIG = {
    "seed": 0,
    "model": {"widths": [32, 64], "rate": 1e-5, "name": "ddpm"},
    "trainer": {"max_steps": 100, "precision": "32-true", "callbacks": {}},
    "data": {"root": None, "crop": "center148"},
    "logger": None,
}
FREE = {"trainer.max_steps", "data.root", "logger"}


def changed(**values: object) -> dict:
    config = copy.deepcopy(CONFIG)
    for dotted, value in values.items():
        group, _, key = dotted.rpartition("__")
        (config[group] if group else config)[key] = value
    return config


def message(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def child_holding(path: Path) -> int:
    """The id of a forked process that holds the run `path` and waits to be killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with open_run(path, CONFIG):
                os.write(writer, b"x")
                signal.pause()
        finally:
            os._exit(1)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
    return pid


def test_a_new_run_has_its_config_on_disk_and_no_checkpoint(tmp_path: Path) -> None:
    with open_run(tmp_path / "runs" / "a b", CONFIG) as run:
        assert yaml.safe_load(run.config.read_text()) == CONFIG
        assert list(yaml.safe_load(run.config.read_text())) == list(CONFIG)
        assert run.latest(pytest.fail) is None
        assert run.checkpoints.is_dir()


def test_a_run_held_by_a_living_process_is_refused_by_its_pid_and_free_when_it_is_killed(tmp_path: Path) -> None:
    pid = child_holding(tmp_path)
    try:
        with pytest.raises(UserError) as error, open_run(tmp_path, changed(seed=1)):
            pass
        assert f"process {pid} on " in message(error)
        assert "run_dir=" in message(error)
        assert yaml.safe_load(RunDir(tmp_path).config.read_text()) == CONFIG
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with open_run(tmp_path, CONFIG):
        pass


def test_workers_that_outlive_a_killed_run_do_not_hold_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with open_run(tmp_path, CONFIG):
                worker = os.fork()
                if worker == 0:
                    signal.pause()
                os.write(writer, str(worker).encode())
                signal.pause()
        finally:
            os._exit(1)
    worker = int(os.read(reader, 20))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        with open_run(tmp_path, CONFIG) as run:
            assert run.lock.read_text().startswith(f"{os.getpid()} ")
            os.kill(worker, 0)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_the_lock_ends_with_the_block(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, CONFIG):
        raise ZeroDivisionError
    pid = child_holding(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def begun(path: Path, free: Collection[str] = ()) -> RunDir:
    """A run that has something to continue: a configuration and a checkpoint."""
    with open_run(path, CONFIG, free) as run:
        (run.checkpoints / "step-00000001.ckpt").touch()
    return run


def test_a_changed_config_is_refused_with_every_differing_key(tmp_path: Path) -> None:
    begun(tmp_path)
    new = changed(seed=1, model__rate=2e-5, model__widths=[32], model__extra="x", trainer__max_steps=200)
    del new["trainer"]["precision"]
    with pytest.raises(UserError) as error, open_run(tmp_path, new, FREE):
        pass
    for difference in [
        "seed: 0 -> 1",
        "model.rate: 1e-05 -> 2e-05",
        "model.widths: [32, 64] -> [32]",
        "model.extra: (not set) -> x",
        "trainer.precision: 32-true -> (not set)",
        "run_dir=NEW",
    ]:
        assert difference in message(error)
    assert "max_steps" not in message(error)
    assert yaml.safe_load(RunDir(tmp_path).config.read_text()) == CONFIG


def test_a_value_that_several_keys_take_over_is_told_once(tmp_path: Path) -> None:
    old = {"scheduler": {"steps": 10}, "model": {"schedule": {"steps": 10}, "widths": [1]}}
    with open_run(tmp_path, old) as run:
        (run.checkpoints / step_name(1)).touch()
    with (
        pytest.raises(UserError) as error,
        open_run(tmp_path, {"scheduler": {"steps": 20}, "model": {"schedule": {"steps": 20}, "widths": [2]}}),
    ):
        pass
    assert "(scheduler.steps: 10 -> 20, model.widths: [1] -> [2])" in message(error)


def test_free_keys_may_change_and_are_written_down(tmp_path: Path) -> None:
    begun(tmp_path, FREE)
    new = changed(trainer__max_steps=200, data__root="/faces", logger={"name": "wandb", "tags": ["a"]})
    with open_run(tmp_path, new, FREE) as run:
        assert yaml.safe_load(run.config.read_text()) == new
    with pytest.raises(UserError, match=r"data\.rooted"), open_run(tmp_path, changed(data__rooted=1), FREE):
        pass


def test_a_run_without_a_checkpoint_may_be_started_otherwise(tmp_path: Path) -> None:
    with open_run(tmp_path, CONFIG):
        pass
    with open_run(tmp_path, changed(seed=1)) as run:
        assert yaml.safe_load(run.config.read_text())["seed"] == 1


def test_an_unchanged_config_is_not_written_again(tmp_path: Path) -> None:
    before = begun(tmp_path).config.stat().st_ino
    with open_run(tmp_path, copy.deepcopy(CONFIG)) as run:
        assert run.config.stat().st_ino == before


@pytest.mark.parametrize("text", ["{", "- 1", "\x00"])
def test_a_damaged_config_is_refused(tmp_path: Path, text: str) -> None:
    begun(tmp_path).config.write_text(text)
    with pytest.raises(UserError) as error, open_run(tmp_path, CONFIG):
        pass
    assert "config.yaml" in message(error)
    assert (tmp_path / "config.yaml").read_text() == text


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error, open_run(path, CONFIG):
        pass
    assert "run_dir=" in message(error)
    return message(error)


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert "File exists" in refusal(tmp_path / "file")
    assert "Not a directory" in refusal(tmp_path / "file" / "run")

    # Simulated, since the tests may run as root, for whom nothing is read-only.
    def touch(self: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", touch)
    assert "Read-only file system" in refusal(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path / 'a'} is read-only" in refusal(tmp_path / "a")
