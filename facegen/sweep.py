"""What a multirun leaves beside its runs: one picture with a row for each job, the same seeds in every column."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepSheet(Callback):
    """Collects the runs of a multirun and writes `sheet.png` into the sweep's directory when the last one has ended."""

    def __init__(self) -> None:
        self.jobs: list[tuple[list[str], Path]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Notes where a finished job has put its previews."""
        run_dir = getattr(job_return._return_value, "run_dir", None)
        if job_return.status is JobStatus.COMPLETED and run_dir is not None:
            self.jobs.append((list(job_return.overrides or ()), run_dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Draws the sheet of all jobs."""
        from facegen.figures.compare import compare_runs, previews

        if len(self.jobs) < 2 or not any(previews(run_dir) for _, run_dir in self.jobs):  # a probe draws none
            return
        shared = set.intersection(*(set(overrides) for overrides, _ in self.jobs))
        rows = [(", ".join(o.lstrip("+") for o in overrides if o not in shared), run_dir) for overrides, run_dir in self.jobs]
        path = compare_runs(rows, Path(config.hydra.sweep.dir, "sheet.png"))
        print(f"compared: {path}", file=sys.stderr)
