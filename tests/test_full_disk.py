"""A disk that fills up ends a run in one line; the last checkpoint stays good and the same command continues the run."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from runs import tiny

from facegen.checkpoint import read, step_of, steps
from facegen.cli import in_plain_words
from facegen.errors import UserError
from facegen.experiment import train
from facegen.loggers import CsvLogger
from facegen.rundir import open_run
from facegen.tensorboard_logger import TensorBoardLogger

WAY_OUT = "No space left on device; mend that and type the same command again"


def no_space(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def message(error: pytest.ExceptionInfo[UserError]) -> str:
    assert len(error.value.lines) == 1
    return str(error.value)


def full_at(name: str, method: str, when: Callable[[], bool]) -> Callable[..., Any]:
    """The method of `Path`, which fails from the moment `when()` is true for files with `name` in their names."""
    honest = getattr(Path, method)

    def failing(self: Path, *arguments: Any, **options: Any) -> Any:
        if name in self.name and when():
            return no_space() if method == "write_bytes" else honest(Path("/dev/full"), *arguments, **options)
        return honest(self, *arguments, **options)

    return failing


def fill(monkeypatch: pytest.MonkeyPatch, part: str, run_dir: Path) -> None:
    """From the checkpoint at step 6 on there is no room for one part of the run."""

    def full() -> bool:
        return any(step_of(path) >= 6 for path in steps(run_dir))

    if part == "metrics.csv":
        monkeypatch.setattr(Path, "open", full_at("metrics.csv", "open", full))
    elif part == "tensorboard":
        from tensorboard.summary.writer.record_writer import RecordWriter

        honest = RecordWriter.write
        monkeypatch.setattr(RecordWriter, "write", lambda self, data: no_space() if full() else honest(self, data))
    else:
        monkeypatch.setattr(Path, "write_bytes", full_at(Path(part).name, "write_bytes", full))


@pytest.fixture(scope="module")
def never_full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run_dir = tmp_path_factory.mktemp("never full")
    train(tiny(run_dir))
    return read(run_dir)["state_dict"]


@pytest.mark.parametrize("part", ["metrics.csv", "tensorboard", "previews/step-00000010.png", "loss.png"])
def test_a_run_ends_in_one_line_and_continues_when_there_is_room_again(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, never_full: dict[str, torch.Tensor], capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as disk:
        fill(disk, part, tmp_path)
        with pytest.raises(UserError) as error:
            train(tiny(tmp_path, "logger.tensorboard=true"))
    assert message(error).startswith(f"cannot write {tmp_path / part}: {WAY_OUT}")
    assert "Traceback" not in capfd.readouterr().err
    assert read(steps(tmp_path)[-1])["global_step"] >= 6
    train(tiny(tmp_path, "logger.tensorboard=true"))
    end = read(tmp_path)
    assert end["global_step"] == 10
    assert all((tmp_path / made).exists() for made in (part, "loss.png", "previews/step-00000010.png"))
    assert all(torch.equal(end["state_dict"][name], value) for name, value in never_full.items())
    logged = [int(row["step"]) for row in csv.DictReader((tmp_path / "metrics.csv").open())]
    assert logged == sorted(set(logged))
    assert set(range(10)) - set(logged) <= {5}  # the row of the step that the checkpoint was saved after could not be written


def test_a_row_cut_short_is_forgotten_and_no_row_is_glued_to_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = CsvLogger(path)
    for step in range(12):
        logger.log_metrics({"loss": step / 10}, step)
    path.write_text(path.read_text()[: path.read_text().index("11,1.1") + 1])  # of row 11 a single 1 is left
    again = CsvLogger(path)
    assert again.rows[1] == {"loss": "0.1"}
    again.truncate(11)
    again.log_metrics({"loss": 5.0}, 11)
    assert [row["loss"] for row in csv.DictReader(path.open())] == [*(f"{step / 10:.6g}" for step in range(11)), "5"]


def test_metrics_written_anew_take_the_place_of_the_old_ones_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.csv"
    logger = CsvLogger(path)
    logger.log_metrics({"loss": 1.0}, 0)
    before = path.read_text()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4096))
    with pytest.raises(UserError, match="disk nearly full") as error:
        logger.log_metrics({"loss": 1.0, "held_out": 2.0}, 1)
    assert str(tmp_path) in message(error)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_lock_that_cannot_be_written_is_one_line_and_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to("/dev/full")
    with pytest.raises(UserError) as error, open_run(tmp_path, {}):
        pass
    assert message(error).startswith(f"cannot write {tmp_path / '.lock'}: {WAY_OUT}")
    (tmp_path / ".lock").unlink()
    with open_run(tmp_path, {}):
        pass


def test_event_files_hold_what_was_logged_in_any_folder(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "$HOME::[x]" / "tensorboard"
    logger = TensorBoardLogger(folder)
    for step in range(3):
        logger.log_metrics({"loss": step / 4}, step)
    logger.log_image("preview", np.zeros((3, 4, 4), dtype=np.uint8), 2)
    found = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert [event.step for event in found.Images("preview")] == [2]
    logger.finalize("success")


@pytest.mark.parametrize(("path", "said"), [(None, "cannot write a file"), ("/runs/x", "cannot write /runs/x")])
def test_a_full_disk_anywhere_is_one_line_and_exit_code_2(path: str | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, in_plain_words("train"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {said}: No space left on device; make room on the disk and type the same command again\n"
    with pytest.raises(FileNotFoundError), in_plain_words("train"):
        raise FileNotFoundError(errno.ENOENT, "a mistake of the program's")
