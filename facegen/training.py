"""One run, from its configuration to its last checkpoint."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from facegen import schema, stages
from facegen.callbacks.budget import Budget
from facegen.callbacks.checkpoints import DurableCheckpointIO
from facegen.callbacks.edits import EditPreview
from facegen.callbacks.guard import Guard
from facegen.callbacks.preempt import Preempt, Preempted
from facegen.callbacks.preview import Preview
from facegen.callbacks.progress import ProgressLine
from facegen.callbacks.reconstruction import Likeness, ReconstructionPreview
from facegen.callbacks.stamp import Stamp
from facegen.checkpoint import Header, header, read, step_of
from facegen.compiling import compiling
from facegen.data.cache import cache_home
from facegen.distributed import resume_command, settle, tie
from facegen.latents import begin_with_pretrained, furnish
from facegen.loading import LoadedAutoencoder, load_measurable, load_probe
from facegen.out_of_memory import of_training, out_of_memory
from facegen.perceptual import find
from facegen.ranks import is_first
from facegen.rundir import RunDir
from facegen.seeding import mix

Build = Callable[..., Any]
FIRST_STAGE = "stage 1 of 2"
FINISHED = "; to go on type a higher trainer.max_steps or trainer.max_time, to start anew another run_dir"


@dataclass
class TrainResult:
    """Where a run is and how it ended: `exit_code` 0, or 143 and 130 after SIGTERM and Ctrl-C."""

    run_dir: Path
    checkpoint: Path | None
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    exit_code: int = 0


def fit(config: dict[str, Any], run: RunDir, build: Build, stage: str = "") -> TrainResult:
    """Trains the run, or continues it from its newest good checkpoint; `build` makes an object of a configuration node.

    `stage` says which of two stages this is.
    """
    tie()
    warnings.filterwarnings("ignore", module="lightning.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    model, data, parts = _parts(config, run, build)
    trainer = _trainer(config, run, model, data, parts, stage)
    _warn(model, trainer, stage)
    latest = run.latest(_say)
    stored = read(latest, mmap=True) if latest else None
    if latest and stored and _is_finished(stored, trainer):
        _say(f"{run.path} is finished{FINISHED * (stage != FIRST_STAGE)}")
        _draw_missing(run, trainer, latest, build)
        return TrainResult(run.path, latest, step_of(latest))
    if latest and stored:
        data.require_labels(header(stored, latest).data.get("condition_names"))  # before weights of other sizes are met
    if stages.is_latent(config):
        source = Path(config["model"]["autoencoder"] or run.path / stages.FIRST)
        furnish(model, data, source, stored, build, trainer.strategy.root_device, cache_home(config["data"].get("cache_dir")))
    elif hasattr(model, "begin_with"):
        begin_with_pretrained(model, data, stored, trainer.strategy.root_device, cache_home(config["data"].get("cache_dir")))
    stored = None  # mapped into memory: it would keep the file on the disk after it is pruned
    if latest:
        _say(f"continuing {run.path} from {latest.name}")
    trainer.loggers[0].truncate(step_of(latest) if latest else 0)
    try:
        with compiling(), out_of_memory("training", partial(of_training, config, stage == FIRST_STAGE)):
            trainer.fit(model, data, ckpt_path=str(latest) if latest else None, weights_only=True)
    except Preempted as stop:
        return _preempted(run, trainer, stop)
    except Exception as error:
        settle(error, trainer)
        raise
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    _draw_curve(run, trainer)
    return TrainResult(run.path, run.latest(_say), trainer.global_step, metrics)


def _parts(config: dict[str, Any], run: RunDir, build: Build) -> tuple[Any, Any, dict[str, Any]]:
    """The model, the data, prepared, and what is around them; a model that asks for facts of the data has to wait for it."""
    asked = schema.facts_asked(config["model"])
    model: Any = None if asked else _fresh_model(config, build)
    data = build(config["data"])
    parts = {name: build(config[name]) for name in ("trainer", "ema", "logger")}
    parts |= {name: build(config[name], run_dir=str(run.path)) for name in ("checkpoint", "preview", "monitor")}
    if hasattr(model, "judges"):
        model.judges = _judges(config["model"], build)
    data.prepare()  # what may take minutes comes last
    if asked:
        facts = data.facts()
        if not facts["condition_names"]:
            raise schema.unlabelled(config["model"], data.unlabelled)
        model = _fresh_model(config, build, **{name: facts[name] for name in asked})
    if (model.draws or hasattr(model, "reconstruct")) and is_first():
        parts["monitor"].open(data, lambda ckpt: load_probe(ckpt, build))
    return model, data, parts


def _judges(options: dict[str, Any], build: Build) -> list[Any]:
    """What sees how far the reconstructions of an autoencoder are off."""
    judge = find(options["perceptual"], options["perceptual_weights"], options["probe"], lambda ckpt: load_probe(ckpt, build))
    return [] if judge is None else [judge]


def _fresh_model(config: dict[str, Any], build: Build, **facts: Any) -> Any:
    torch.manual_seed(mix(config["seed"], "weights"))
    return build(config["model"], **facts)


def _trainer(config: dict[str, Any], run: RunDir, model: Any, data: Any, parts: dict[str, Any], stage: str) -> Trainer:
    options, ema, keep = parts["trainer"], parts["ema"], parts["checkpoint"]
    by_hand = not model.automatic_optimization
    if by_hand:
        model.accumulate = options.accumulate
    if options.compile:
        model.network.compile()
    steps_per_epoch = data.epoch_length / data.batch_size / options.accumulate
    budget = Budget(options.max_time, steps_per_epoch)
    callbacks = [
        budget,
        Guard(config["optimizer"]["clip"]),
        ema,
        Stamp(Header(model.family, config, data.facts())),
        ProgressLine(ema, budget, stage),
        *_shown(model, data, parts),
        keep,
        Preempt(keep),
    ]
    loggers = parts["logger"].build(run.path, config)
    return options.build(run.path, callbacks, loggers, [DurableCheckpointIO()], steps_per_epoch, by_hand)


def _shown(model: Any, data: Any, parts: dict[str, Any]) -> list[Any]:
    """The callbacks that show how well the model draws, or reconstructs."""
    if model.draws:
        return [EditPreview(parts["preview"], data) if hasattr(model, "encode_source") else parts["preview"], parts["monitor"]]
    if hasattr(model, "reconstruct"):
        return [Likeness(), ReconstructionPreview(parts["preview"], data), parts["monitor"]]
    return []


def _is_finished(stored: dict[str, Any], trainer: Trainer) -> bool:
    budget = next(c for c in trainer.callbacks if isinstance(c, Budget))
    elapsed = stored["callbacks"].get(budget.state_key, {}).get("elapsed", 0.0)
    return 0 < trainer.max_steps <= stored["global_step"] or (budget.max_time is not None and elapsed >= budget.max_time)


def _draw_missing(run: RunDir, trainer: Trainer, latest: Path, build: Build) -> None:
    """What a finished run lacks of its last pictures: it was killed after its last checkpoint, or they were deleted."""
    preview = next((callback for callback in trainer.callbacks if isinstance(callback, Preview)), None)
    if trainer.is_global_zero and preview and preview.count and not (picture := preview.path(step_of(latest))).exists():
        loaded = load_measurable(latest, build)
        drawn, network = (loaded.model,) * 2 if isinstance(loaded, LoadedAutoencoder) else (loaded, loaded.denoiser)
        network.to(trainer.strategy.root_device)
        with trainer.precision_plugin.forward_context():
            preview.save(drawn, step_of(latest))
        _say(f"{picture} was missing and is drawn now")
    if not (run.path / "loss.png").exists() and (curve := _draw_curve(run, trainer)):
        _say(f"{curve} was missing and is drawn now")


def _draw_curve(run: RunDir, trainer: Trainer) -> Path | None:
    """The loss curve, where this process draws and there is something to draw: a run shorter than trainer.log_every has logged nothing."""
    if not trainer.is_global_zero or not (run.path / "metrics.csv").exists():
        return None
    from facegen.figures.curves import loss_curve

    return loss_curve(run.path)


def _preempted(run: RunDir, trainer: Trainer, stop: Preempted) -> TrainResult:
    _say(f"{stop}; to continue type: {resume_command()}")
    # Another rank that exits with an error is a failure to rank zero, so only rank zero's code tells of the signal.
    return TrainResult(run.path, stop.checkpoint, trainer.global_step, exit_code=stop.exit_code if trainer.is_global_zero else 0)


def _warn(model: Any, trainer: Trainer, stage: str) -> None:
    """Says what is allowed and hardly meant."""
    if model.draws and not hasattr(model, "begin_with"):  # what is fine-tuned has the schedule that it was trained on
        _warn_of_leftover(model.denoiser.schedule)
    if getattr(model, "discriminator", None) is not None and 0 < (last := trainer.max_steps * model.accumulate) <= model.disc_start:
        line = (
            f"warning: the run ends after {last} batches, and its discriminator comes in at model.disc_start={model.disc_start}; type a "
            "lower one, or model.discriminator=null to train without"
        )
        _say(stages.in_stage1(line, ["model"]) if stage == FIRST_STAGE else line)


def _warn_of_leftover(schedule: Any) -> None:
    if (left := schedule.leftover()) > 0.02:
        _say(
            f"warning: {left:.0%} of the signal is left at the last step of this schedule, yet sampling starts from pure noise; "
            "type scheduler.beta_scaling=steps (or zero_snr with model.prediction=v) to train without the gap"
        )


def _say(line: str) -> None:
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        print(line, file=sys.stderr, flush=True)
