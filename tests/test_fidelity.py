"""With one weights file given to both, evaluate.py's numbers are those of torch-fidelity's command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from inception_weights import random_inception
from runs import configure

from facegen.data.drawn import DrawnImages
from facegen.experiment import evaluate
from facegen.images import save_png

SUBSETS = 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_inception(tmp_path_factory.mktemp("weights") / "random.pth")


def faces(folder: Path, count: int, first: int, size: int = 32) -> Path:
    for i, image in enumerate(DrawnImages(size, 3).read(first + np.arange(count))[0]):
        save_png(image, folder / f"{i:04d}.png", {})
    return folder


def told_by_torch_fidelity(a: Path, b: Path, weights: Path, size: int) -> dict[str, float]:
    options = ["--isc", "--fid", "--kid", "--no-samples-shuffle", "--kid-subset-size", str(size), "--kid-subsets", str(SUBSETS)]
    options += [
        "--cpu",
        "--silent",
        "--json",
        "--no-cache",
        "--feature-extractor-weights-path",
        str(weights),
        "--input1",
        str(a),
        "--input2",
        str(b),
    ]
    done = subprocess.run([sys.executable, "-m", "torch_fidelity.fidelity", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(re.sub(r".*?(\{.*\}).*", r"\1", done.stdout, flags=re.DOTALL))


def compared(tmp_path: Path, weights: Path, count: int, fid: float) -> None:
    a, b = faces(tmp_path / "a", count, 0), faces(tmp_path / "b", count, 10_000)
    size = count * 3 // 5
    options = (
        f"kid_subset_size={size}",
        f"kid_subsets={SUBSETS}",
        "bootstrap=0",
        "infinity=false",
        f"cache_dir={tmp_path}",
        f"out={tmp_path}",
    )
    asked = configure("evaluate", f"fake={a}", f"real={b}", "metrics=[fid,is,kid]", f"inception_weights={weights}", *options)
    (record,) = evaluate(asked).records
    mine = {name.partition("[")[0]: entry for name, entry in record["metrics"].items()}
    told = told_by_torch_fidelity(a, b, weights, size)
    assert mine["fd_inception"]["value"] == pytest.approx(told["frechet_inception_distance"], rel=fid)
    assert mine["kid"]["value"] == pytest.approx(told["kernel_inception_distance_mean"], rel=1e-4)
    assert mine["kid"]["subset_deviation"] == pytest.approx(told["kernel_inception_distance_std"], rel=1e-4)
    assert mine["is"]["value"] == pytest.approx(told["inception_score_mean"], rel=1e-4)
    assert mine["is"]["split_deviation"] == pytest.approx(told["inception_score_std"], rel=1e-3)


def test_fid_kid_and_is_are_those_of_torch_fidelity(tmp_path: Path, weights: Path) -> None:
    compared(tmp_path, weights, 30, fid=1e-4)


@pytest.mark.slow
def test_fid_kid_and_is_of_500_images_are_those_of_torch_fidelity(tmp_path: Path, weights: Path) -> None:
    # torch-fidelity adds the roots of some 1,500 eigenvalues that would be 0 but for rounding: 2.3e-4 of the distance at 500 images.
    compared(tmp_path, weights, 500, fid=1e-3)
