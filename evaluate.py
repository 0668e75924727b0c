"""Measure a model: python evaluate.py ckpt=RUN_OR_FILE metrics=[fid,is] [n=10000] [data=... | real=FOLDER] [sampler=ddim] [probe=RUN]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facegen.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from facegen.evaluation import EvaluationResult


def main(cfg: DictConfig) -> EvaluationResult:
    """Measures what `cfg` (conf/evaluate.yaml) asks for."""
    from facegen.experiment import evaluate

    return evaluate(cfg)


if __name__ == "__main__":
    entry(main, "evaluate")
