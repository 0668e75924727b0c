"""What can be measured, in which features, on how many images, and under which name the number is written.

"FID", "IS" and "KID" mean the 2015 Inception weights. Measured in any other features a number has another name, and below 50,000
images every name says how many there were: `fid@10k`, `fd_probe@2k`, `fd_inception[0123abcd]@500`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from facegen.errors import UserError, nearest

INCEPTION, PROBE, LPIPS, PIXELS = "inception", "probe", "lpips", "pixels"
CONDITION, EDIT = "condition", "edit"  # the kinds of scorecards, which draw their own images
SCORECARDS = (CONDITION, EDIT)
TRAIN_A_PROBE = "train one by: python train.py experiment=probe data=NAME data.root=FOLDER run_dir=runs/probe"
FULL_COUNT = 50_000  # generated images from which on a name needs no count


@dataclass(frozen=True)
class Metric:
    """One number to be measured: `name` is what it is called, `kind` how it is computed, `space` the features it is computed in.

    `of_fake` numbers are of the generated images alone, `paired` ones of images that belong together by their names.
    """

    name: str
    kind: str
    space: str | None
    of_fake: bool = False
    paired: bool = False

    def written(self, count: int, weights: str | None = None) -> str:
        """The name of the number for `count` images; `weights` is the SHA-256 of Inception weights that are not the published ones."""
        name = f"{FOREIGN.get(self.name, self.name)}[{weights[:8]}]" if weights and self.space == INCEPTION else self.name
        if count >= FULL_COUNT:
            return name
        return f"{name}@{count // 1000}k" if count % 1000 == 0 else f"{name}@{count}"


FOREIGN = {"fid": "fd_inception", "mifid": "mifd_inception", "rfid": "rfd_inception"}
MANIFOLD = ("precision", "recall", "density", "coverage", "neighbours")
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fid", "frechet", INCEPTION),
        Metric("is", "inception_score", INCEPTION, of_fake=True),
        Metric("kid", "kid", INCEPTION),
        Metric("mifid", "mifid", INCEPTION),
        *(Metric(name, name, None) for name in MANIFOLD),
        Metric("fd_probe", "frechet", PROBE),
        Metric("kid_probe", "kid", PROBE),
        Metric("mifd_probe", "mifid", PROBE),
        *(Metric(f"{name}_probe", name, PROBE) for name in MANIFOLD),
        Metric("condition", CONDITION, PROBE),
        Metric("edit", EDIT, PROBE),
        Metric("lpips_diversity", "lpips_diversity", LPIPS, of_fake=True),
        Metric("psnr", "psnr", PIXELS, paired=True),
        Metric("ssim", "ssim", PIXELS, paired=True),
        Metric("lpips", "lpips", LPIPS, paired=True),
        Metric("rfid", "frechet", INCEPTION, paired=True),
        Metric("rfd_probe", "frechet", PROBE, paired=True),
    )
}
MISNAMED = {"fid_probe": "fd_probe", "mifid_probe": "mifd_probe", "rfid_probe": "rfd_probe", "inception_score": "is"}


def unknown(names: Iterable[str]) -> list[str]:
    """The problems of the metrics `names` as they were typed, a line each; what is allowed stands in the last."""
    lines = []
    for name in names:
        if name not in METRICS:
            near = f" (did you mean '{MISNAMED[name]}'?)" if name in MISNAMED else nearest(name, METRICS)
            lines.append(f"metrics: {name} is not a metric{near}")
    return [*lines[:-1], f"{lines[-1]}; allowed: {', '.join(METRICS)}"] if lines else []


def chosen(names: Sequence[str]) -> list[Metric]:
    """The metrics of `names`, each in its features.

    precision, recall, density, coverage and neighbours can be measured in Inception's features or the probe's: in the probe's where
    another metric of the list is and none is in Inception's, else in Inception's. It depends on the command alone, never on what the
    machine has, and in the probe's features the name says so.
    """
    spaces = {METRICS[name].space for name in names}
    use_probe = PROBE in spaces and INCEPTION not in spaces
    metrics = []
    for name in dict.fromkeys(names):
        metric = METRICS[name]
        if metric.space is None:
            metric = METRICS[f"{name}_probe"] if use_probe else replace(metric, space=INCEPTION)
        metrics.append(metric)
    return list(dict.fromkeys(metrics))


def too_few(
    metrics: Sequence[Metric], options: dict[str, int], fake: int, real: int, of_folder: bool, real_n: int | None = None
) -> list[str]:
    """The problems of sets of `fake` and `real` images for the metrics asked for, a line each.

    `of_folder`: the generated images are those of a folder; `real_n` is how many real ones were asked for.
    """
    more_fake = "give a folder of more images" if of_folder else "type a higher n="
    more_real = "type a higher real_n=" if real_n else "give more real images"
    lines = []
    for metric in metrics:
        least, lower = _least(metric, options)
        if fake < least:
            lines.append(f"{metric.name} needs at least {least:,} generated images; got {fake:,}; {lower or more_fake}")
        if real < least and not metric.of_fake:
            lines.append(f"{metric.name} needs at least {least:,} real images; got {real:,}; {lower or more_real}")
    return lines


SMALLEST = {"ssim": 11, "lpips": 31, "lpips_diversity": 31}  # pixels of the window, and what AlexNet's pooling leaves something of


def too_small(metrics: Sequence[Metric], resolution: int) -> list[str]:
    """The problems of images of so many pixels for the metrics asked for, a line each."""
    small = [metric.name for metric in metrics if resolution < SMALLEST.get(metric.kind, 1)]
    return [f"{name} needs images of at least {SMALLEST[METRICS[name].kind]} px; got {resolution}; leave {name} out" for name in small]


def _least(metric: Metric, options: dict[str, int]) -> tuple[int, str]:
    """How many images of each set a metric needs, and the option that lowers it, where there is one."""
    match metric.kind:
        case "kid":
            return options["kid_subset_size"], "type a lower kid_subset_size="
        case "inception_score":
            return options["splits"], "type a lower splits="
        case "precision" | "recall":
            return options["k"] + 1, "type a lower k="
        case "density" | "coverage":
            return options["density_k"] + 1, "type a lower density_k="
        case "frechet" | "lpips_diversity":
            return 2, ""
        case _:
            return 1, ""


def needs_weights(metrics: Iterable[Metric], space: str) -> list[str]:
    """The metrics among `metrics` that are measured in `space`, by name."""
    return [metric.name for metric in metrics if metric.space == space]


def checked(names: Sequence[str]) -> list[Metric]:
    """The metrics of `names`; raises UserError with a line for each that does not exist, and where there are none."""
    if lines := unknown(names):
        raise UserError(*lines)
    if not names:
        raise UserError("metrics must name at least one metric; got []; type metrics=[fid,is]")
    return chosen(names)
