"""Draw images from a checkpoint: python sample.py ckpt=RUN_OR_FILE [n=64] [seed=0] [sampler=ddim] [sampler.steps=50] [figure=denoise]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facegen.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from facegen.sampling import SampleResult


def main(cfg: DictConfig) -> SampleResult:
    """Draws the images that `cfg` (conf/sample.yaml) asks for."""
    from facegen.experiment import sample

    return sample(cfg)


if __name__ == "__main__":
    entry(main, "sample")
