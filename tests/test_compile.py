"""A compiled network is the same network: its checkpoints are those of any run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import TINY, configure, in_child, tiny

import facegen.families.ddpm
import facegen.networks.unet
import facegen.training  # noqa: F401 (imported before the forks, which then start warm)
from facegen.checkpoint import read
from facegen.errors import UserError
from facegen.experiment import sample, train

ROOT = Path(__file__).parent.parent
BRIEF = ("model.network.widths=[8]", "trainer.validate_every=100", "checkpoint.every=100", "preview.count=0")


def compiled(run_dir: Path, *overrides: str) -> None:
    """A run in a process of its own: the compiler leaves threads behind."""
    command = [sys.executable, "train.py", *TINY, *BRIEF, f"run_dir={run_dir}", "trainer.compile=true", *overrides]
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(run_dir.parent / "inductor")}
    subprocess.run(command, cwd=ROOT, env={**os.environ, **cache, "OMP_NUM_THREADS": "1"}, check=True)


@pytest.mark.slow
def test_a_run_may_be_compiled_in_one_session_and_not_in_the_next(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    compiled(first, "trainer.max_steps=3")
    assert in_child(lambda: train(tiny(second, *BRIEF, "trainer.max_steps=3"))) == 0
    a, b = (read(run_dir / "checkpoints" / "step-00000003.ckpt") for run_dir in (first, second))
    for part in ("state_dict", "ema"):
        assert list(a[part]) == list(b[part])
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(value, b["state_dict"][name], rtol=0, atol=1e-3)
    assert in_child(lambda: train(tiny(first, *BRIEF, "trainer.max_steps=5"))) == 0
    compiled(second, "trainer.max_steps=5")
    for run_dir in (first, second):
        assert read(run_dir)["global_step"] == 5
        assert sample(configure("sample", f"ckpt={run_dir}", "n=2", f"out={run_dir / 'out'}")).drawn == 2


def test_no_compiler_is_one_line_that_says_what_to_type(tmp_path: Path) -> None:
    def task() -> None:
        import torch._inductor.config

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path)
        torch._inductor.config.cpp.cxx = (str(tmp_path / "no-compiler"),)  # what CXX= sets, before anything is imported
        with pytest.raises(UserError, match=r"trainer.compile=true: .*No working C\+\+ compiler.* type trainer.compile=false") as caught:
            train(tiny(tmp_path / "run", *BRIEF, "trainer.compile=true"))
        assert len(str(caught.value).splitlines()) == 1

    assert in_child(task) == 0
