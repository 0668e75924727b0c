"""Whether the parts of a configuration, each of them right by itself, go together: told before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from facegen import edits, schema
from facegen.checkpoint import latest
from facegen.errors import UserError
from facegen.metrics.names import TRAIN_A_PROBE
from facegen.networks.checks import CHECKS, check_discriminator, factor_of
from facegen.stages import indivisible


def conflicts(config: dict[str, Any]) -> list[str]:
    """The problems of a training configuration that `facegen.schema` has found nothing wrong with, a line each."""
    return [
        *beyond_the_schedule(config["sampler"], config["scheduler"]),
        *_monitor(config),
        *_uneven_batch(config),
        *_told_nothing(config["model"]),
        *edits.conflicts(config),
        *_network(config),
        *_autoencoder(config),
        *_time(config),
        *_data(config),
    ]


def beyond_the_schedule(sampler: dict[str, Any], scheduler: dict[str, Any], path: str = "sampler.steps") -> Iterator[str]:
    """The problem of a checked sampler with more steps, given at `path`, than the schedule has; Heun alone walks between them."""
    steps, length = sampler["steps"], scheduler.get("steps")
    if length is not None and steps > length and not sampler["_target_"].endswith("Heun"):
        yield f"{path} must be at most scheduler.steps={length}; got {steps}; type {path}={min(length, 50)}"


def _monitor(config: dict[str, Any]) -> Iterator[str]:
    monitor = config["monitor"]
    if not monitor["every"]:
        return
    if monitor["images"] < 16:
        yield f"monitor.images must be at least 16; got {monitor['images']}; type monitor.images=500"
    if monitor["steps"] is not None:
        yield from beyond_the_schedule({**config["sampler"], "steps": monitor["steps"]}, config["scheduler"], "monitor.steps")
    if monitor["metric"].endswith("_probe"):
        if monitor["probe"] is None:
            yield f"monitor.metric={monitor['metric']} is measured in the features of a probe; type monitor.probe=RUN; {TRAIN_A_PROBE}"
        else:
            yield from _raised(lambda: latest(monitor["probe"], "monitor.probe"))


def _uneven_batch(config: dict[str, Any]) -> Iterator[str]:
    batch, processes = config["data"]["batch_size"], config["trainer"]["devices"] * config["trainer"]["nodes"]
    if batch % processes:
        fitting = -(-batch // processes) * processes
        yield f"data.batch_size must be a multiple of the {processes} devices that share it; got {batch}; type data.batch_size={fitting}"


def _told_nothing(model: dict[str, Any]) -> Iterator[str]:
    """The problem of a network that waits to be told something by a model that is told nothing."""
    injection = model.get("network", {}).get("injection")
    if injection and "injection" not in model:
        yield f"model.network.injection={injection} is of models that are told something; type model=class_conditional"


def _network(config: dict[str, Any]) -> list[str]:
    options = dict(config["model"]["network"])
    if too_deep := _too_deep(config):
        return [too_deep]
    check = CHECKS.get(options.pop("_target_").rpartition(".")[2])
    return _raised(lambda: check(**options)) if check else []


def _too_deep(config: dict[str, Any]) -> str | None:
    """The problem of a network that halves the latents more often than they can be halved."""
    network, codec = config["model"]["network"], config["model"].get("codec") or {}
    if not codec.get("_target_", "").endswith(".Latents") or not network.get("widths"):
        return None
    size, patch, widths = network["resolution"], network.get("patch", 1), network["widths"]
    if size % factor_of(widths, patch) == 0:
        return None
    fitting = max((n for n in range(1, len(widths)) if size % 2 ** (n - 1) == 0), default=1)
    typed = f"model.network.widths=[{','.join(map(str, widths[:fitting]))}]{' model.network.patch=1' * (patch > 1)}"
    return (
        f"model.network is too deep for latents of {size}x{size}: model.network.patch={patch}, then a halving after each but the last of "
        f"its {len(widths)} widths; type {typed}, or give an autoencoder that shrinks less"
    )


def _autoencoder(config: dict[str, Any]) -> Iterator[str]:
    """Problems of an autoencoder that is to be trained."""
    model, data = config["model"], config["data"]
    kind = model["network"]["_target_"].rpartition(".")[2]
    if not model["_target_"].endswith(".Autoencoder"):
        if kind.endswith("Autoencoder"):
            yield f"model.network is a {kind}, which is of model=autoencoder; type model/network=unet_4m"
        return
    if not kind.endswith("Autoencoder"):
        yield f"model.network is a {kind}, which is no autoencoder; type model/network=f4d3"
        return
    factor = factor_of(model["network"]["widths"], model["network"]["patch"])
    if data["resolution"] % factor:
        yield indivisible(data["resolution"], factor)
    if (channels := model["network"]["channels"]) != data["channels"]:
        yield f"data.channels is {data['channels']}, model.network.channels is {channels}; both must be alike; leave one of them out"
    if model["discriminator"] is not None:
        shape = {key: value for key, value in model["discriminator"].items() if key != "_target_"}
        yield from _raised(lambda: check_discriminator(**shape, resolution=data["resolution"]))
    if model["perceptual"] == "probe" and model["probe"] is None:
        yield f"model.perceptual=probe looks through a probe; type model.probe=RUN; {TRAIN_A_PROBE}; or do without: model.perceptual=null"
    elif model["perceptual"] == "probe":
        for line in _raised(lambda: latest(model["probe"], "model.probe")):
            yield f"{line}; {TRAIN_A_PROBE}; or do without: model.perceptual=null"


def _time(config: dict[str, Any]) -> list[str]:
    from facegen.duration import seconds

    time = config["trainer"]["max_time"]
    return [] if time is None else _raised(lambda: seconds(time, "trainer.max_time"))


def _data(config: dict[str, Any]) -> list[str]:
    """What can be said of the data without opening it: the crop, labels where they are needed, and whether the folder holds anything."""
    from facegen.data.checks import CHECKS

    data = dict(config["data"])
    kind = CHECKS.get(data.pop("_target_").rpartition(".")[2])
    if kind is None:  # no data module
        return []

    def check() -> None:
        from facegen.data.columns import balanced_by, choose

        known = kind(**data)
        if schema.facts_asked(config["model"]) and not known.columns.names:
            raise schema.unlabelled(config["model"], known.unlabelled)
        balanced_by(choose(known.columns, data["attributes"], known.unlabelled), data["balance"], known.unlabelled)
        known.look()

    return _raised(check)


def _raised(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except UserError as error:
        return list(error.lines)
    return []
