"""The job behind `sample.py figure=reconstruct`: what an autoencoder, or that of a latent model, makes of held-out images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from facegen.figures.reconstruction import plan, some_of
from facegen.loading import Loaded, LoadedAutoencoder
from facegen.reference import data_of
from facegen.sampling import SampleResult
from facegen.studio import device_of, prepare

SHOWN = 16  # images at most


def reconstruct_job(
    loaded: Loaded | LoadedAutoencoder,
    data: dict[str, Any],
    build: Callable[..., Any],
    *,
    n: int = SHOWN,
    out: str | None = None,
    device: str | None = None,
) -> SampleResult:
    """Writes reconstruct.png of the first `n` held-out images into `out`, by default a folder of the run named after the checkpoint.

    `data` are options of the data that the model was trained on, or other data. Raises UserError where the model works in pixels, the
    data is not there or of another size, or `out` cannot be written.
    """
    where = device_of(device)
    images, which = some_of(build(data_of(data, [(loaded.path, loaded.config["data"])])), min(n, SHOWN))
    figure = plan(loaded, images, where, {"images": which})
    folder = Path(out) if out else (loaded.run_dir or loaded.path.parent) / "samples" / f"{loaded.path.stem}-reconstruct"
    prepare(folder)
    path = figure.draw(folder)
    print(path)
    return SampleResult(folder, [path])
