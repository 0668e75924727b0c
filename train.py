"""Train a model: python train.py [model=ddpm] [data=celeba64 data.root=FOLDER] [experiment=NAME] [key=value ...]."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from facegen.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from facegen.experiment import TrainResult


def main(cfg: DictConfig) -> TrainResult:
    """Trains, or continues, the run that `cfg` (conf/train.yaml and its groups) describes."""
    from facegen.experiment import train

    result = train(cfg)
    if result.exit_code:
        sys.exit(result.exit_code)
    return result


if __name__ == "__main__":
    entry(main, "train")
