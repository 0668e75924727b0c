"""Digits from nothing to numbers: trained, asked for by class, and read by a classifier that knows the real ones alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import configure

from facegen.experiment import sample, train
from facegen.images import read_png

ASKED = 20  # digits of each class


@pytest.mark.slow
def test_digits_are_read_as_they_were_asked_for(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    run = tmp_path / "run"
    train(configure("train", "experiment=digits", f"run_dir={run}", "trainer.max_time=90s", "trainer.threads=2"))
    real = load_digits()
    reader = KNeighborsClassifier(3).fit(real.data / 16, real.target)
    right = []
    for digit in range(10):
        out = tmp_path / str(digit)
        sample(configure("sample", f"ckpt={run}", f"condition={digit}", "guidance=2", f"n={ASKED}", "sampler.steps=12", f"out={out}"))
        drawn = np.stack([read_png(out / f"{seed:06d}.png")[0] for seed in range(ASKED)])
        right.append(reader.predict(drawn.reshape(ASKED, -1) / 255) == digit)
    assert np.mean(right) >= 0.97
