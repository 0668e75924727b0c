"""Progress is seen on a terminal and in a log file alike."""

from __future__ import annotations

import pytest

from facegen import progress as module


def test_a_log_file_is_told_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with module.progress("faces", 10, 100, steps=2) as advance:
        for _ in range(90):
            now[0] += 1.0
            advance(2)
    lines = [line for line in capsys.readouterr().err.splitlines() if " left" in line]
    assert len(lines) == 2
    assert lines[0].startswith("faces: 41 of 100")


def test_other_processes_of_a_job_stay_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(module, "EVERY", -1.0)
    with module.progress("faces", 0, 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""
