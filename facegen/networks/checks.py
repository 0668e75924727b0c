"""The shape rules of the networks, checked without torch: a configuration that cannot be built is refused before heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import gcd

from facegen.errors import UserError

KEY, OPPONENT = "model.network", "model.discriminator"


def feature_map_sizes(resolution: int, widths: Sequence[int], patch: int) -> list[int]:
    """The side, in pixels, of the feature maps of each stage: after the patches, halved from stage to stage."""
    return [resolution // patch // 2**stage for stage in range(len(widths))]


def check_unet(
    *,
    resolution: int,
    widths: Sequence[int],
    attention: Sequence[int],
    head_dim: int,
    groups: int,
    patch: int,
    block: str = "resnet",
    scale_shift: bool = False,
    resample: str = "conv",
    **others: object,
) -> None:
    """Checks that the options of `facegen.networks.unet.UNet` fit together; `others` are its options that fit with any.

    Raises:
        UserError: one line for each problem, naming the key, what is allowed, what came and what to type.
    """
    if problems := [*_no_widths(widths, "[64,128]")]:
        raise UserError(*problems)
    problems = [*_indivisible_resolution(resolution, widths, patch), *_unfit_groups(groups, widths)]
    if resolution % factor_of(widths, patch) == 0:  # otherwise there are no feature-map sizes to speak of
        problems += _unfit_attention(resolution, widths, patch, attention, head_dim)
    if scale_shift and block != "resnet":
        problems.append(f"{KEY}.scale_shift is of ResNet blocks; got {KEY}.block={block}; type {KEY}.scale_shift=false")
    if resample == "resnet" and block != "resnet":
        problems.append(f"{KEY}.resample=resnet is of ResNet blocks; got {KEY}.block={block}; type {KEY}.resample=conv")
    if problems:
        raise UserError(*problems)


def check_probe(*, widths: Sequence[int], groups: int, **others: object) -> None:
    """Checks that the options of `facegen.networks.probe.ProbeNet` fit together; `others` are its options that fit with any.

    Raises:
        UserError: one line for each problem, naming the key, what is allowed, what came and what to type.
    """
    if problems := [*_no_widths(widths, "[48,96,192]")] or [*_unfit_groups(groups, widths)]:
        raise UserError(*problems)


def check_autoencoder(*, widths: Sequence[int], groups: int, **others: object) -> None:
    """Checks that the options of `facegen.networks.autoencoder` fit together; `others` are its options that fit with any.

    Raises:
        UserError: one line for each problem, naming the key, what is allowed, what came and what to type.
    """
    if problems := [*_no_widths(widths, "[64,128,256]")] or [*_unfit_groups(groups, widths)]:
        raise UserError(*problems)


def smallest(layers: int) -> int:
    """The least side, in pixels, of an image that a `PatchDiscriminator` of so many layers has an answer for: 24 px for 3 layers.

    Each layer halves the image, and the two convolutions after them take a pixel each.
    """
    return 3 * 2**layers


def check_discriminator(*, width: int, groups: int, layers: int, resolution: int | None = None, **others: object) -> None:
    """Checks that the options of `facegen.networks.discriminator.PatchDiscriminator` fit together, and images of `resolution` pixels where
    they are told; `others` are its options that fit with any.

    Raises:
        UserError: one line for each problem, naming the key, what is allowed, what came and what to type.
    """
    problems = []
    if 2 * width % groups:  # the first layer is not normalised, the others are multiples of the second
        fitting = f"type {OPPONENT}.groups={_nearest_divisor(2 * width, groups)}"
        problems.append(f"{OPPONENT}.groups must divide twice {OPPONENT}.width={width}; got {groups}; {fitting}")
    if resolution is not None and resolution < smallest(layers):
        fewer = next((n for n in range(layers, 0, -1) if smallest(n) <= resolution), None)
        fitting = f"type {OPPONENT}.layers={fewer}" if fewer else f"type {OPPONENT}=null"
        problems.append(f"data.resolution must be at least {smallest(layers)} for {OPPONENT}.layers={layers}; got {resolution}; {fitting}")
    if problems:
        raise UserError(*problems)


CHECKS: dict[str, Callable[..., None]] = {
    "UNet": check_unet,
    "ProbeNet": check_probe,
    "KLAutoencoder": check_autoencoder,
    "VQAutoencoder": check_autoencoder,
    "PatchDiscriminator": check_discriminator,
}
"""The check of a network's options, by the name of its class."""


def _no_widths(widths: Sequence[int], usual: str) -> Iterator[str]:
    if not widths or min(widths) < 1:
        yield f"{KEY}.widths must be one positive integer or more; got {list(widths)}; type {KEY}.widths={usual}"


def factor_of(widths: Sequence[int], patch: int) -> int:
    """How many times smaller the last feature maps are than the image: after the patches, halved from stage to stage."""
    return patch * 2 ** (len(widths) - 1)


def _indivisible_resolution(resolution: int, widths: Sequence[int], patch: int) -> Iterator[str]:
    factor = factor_of(widths, patch)
    if resolution % factor:
        below = resolution // factor * factor
        allowed = " or ".join(f"data.resolution={size}" for size in (below, below + factor) if size)
        yield (
            f"data.resolution must be divisible by {factor}: {KEY}.patch={patch}, then a halving after each but the last of the "
            f"{len(widths)} {KEY}.widths={list(widths)}; got {resolution}; type {allowed}, or fewer widths"
        )


def _unfit_groups(groups: int, widths: Sequence[int]) -> Iterator[str]:
    common = gcd(*widths)
    if common % groups:
        yield (
            f"{KEY}.groups must divide each of {KEY}.widths={list(widths)}; got {groups}; "
            f"type {KEY}.groups={_nearest_divisor(common, groups)}"
        )


def _unfit_attention(resolution: int, widths: Sequence[int], patch: int, attention: Sequence[int], head_dim: int) -> Iterator[str]:
    if not attention:
        return
    sizes = feature_map_sizes(resolution, widths, patch)
    if not set(attention) & set(sizes):
        closest, known, given = min(sizes, key=lambda size: abs(size - attention[0])), _listed(sizes), _listed(attention)
        yield (
            f"{KEY}.attention must name one or more of the feature-map sizes, which are {known} at data.resolution={resolution} "
            f"and {KEY}.patch={patch}; got {given}; type {KEY}.attention=[{closest}]"
        )
    attended = [width for width, size in zip(widths, sizes, strict=True) if size in attention] + [widths[-1]]
    common = gcd(*attended)
    if common % head_dim:
        yield (
            f"{KEY}.head_dim must divide the widths with attention, {_listed(dict.fromkeys(attended))}; got {head_dim}; "
            f"type {KEY}.head_dim={_nearest_divisor(common, head_dim)}"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
