"""The networks that an evaluation looks through: found, checked and loaded before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facegen.errors import UserError
from facegen.metrics.features import AsTheyAre, Extractor, Identity
from facegen.metrics.names import INCEPTION, LPIPS, PIXELS, PROBE, TRAIN_A_PROBE, Metric, needs_weights
from facegen.metrics.weights import ALEXNET, located
from facegen.metrics.weights import INCEPTION as INCEPTION_WEIGHTS

OF_PIXELS = ("neighbours", "lpips_diversity")  # kinds that look at the generated images themselves


class Extractors:
    """What is to be extracted of generated and of real images for `metrics`, on `device`.

    `foreign` is the SHA-256 of Inception weights that are not the published ones, `identities` names the networks by the space of their
    features; `pixels` keeps the generated images where no metric asks for them. Raises UserError where weights or a probe are missing,
    naming what works without them.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        device: str,
        load_probe: Callable[[str], Any],
        *,
        probe: str | None = None,
        inception_weights: str | None = None,
        lpips_weights: str | None = None,
        pixels: bool = False,
    ) -> None:
        networks: dict[str, Extractor] = {}
        self.foreign: str | None = None
        self.lpips: Any = None
        self.identities: dict[str, Identity] = {}
        if names := needs_weights(metrics, PROBE):
            networks[PROBE] = _probe(probe, names[0], device, load_probe)
        if needs_weights(metrics, INCEPTION):
            networks[INCEPTION], self.foreign = _inception(inception_weights, device)
        if needs_weights(metrics, LPIPS):
            self.lpips = _lpips(lpips_weights, metrics, device)
            self.identities[LPIPS] = self.lpips.identity
        self.identities |= {name: network.identity for name, network in networks.items()}
        paired = any(metric.paired for metric in metrics)
        pixels |= paired or any(metric.kind in OF_PIXELS for metric in metrics)
        as_they_are: dict[str, Extractor] = {PIXELS: AsTheyAre()}
        self._device = device
        self.of_fake = {**networks, **(as_they_are if pixels else {})}
        self.of_real = {**networks, **(as_they_are if paired else {})}

    def lpips_at_hand(self, given: str | None) -> Any:
        """LPIPS, by the weights `given` or by those in torch's cache; None where there are none: nothing is downloaded for it."""
        try:
            path, _ = located(ALEXNET, given, "", download=False)
        except UserError:
            if given is not None:
                raise
            return None
        from facegen.metrics.lpips import LPIPS as Network

        return Network(path, self._device)


def _inception(given: str | None, device: str) -> tuple[Extractor, str | None]:
    """The network, and the SHA-256 of its weights where they are not the published ones."""
    path, sha256 = located(INCEPTION_WEIGHTS, given, "metrics=[fd_probe,kid_probe] probe=RUN works without them")
    from facegen.metrics.inception import Inception

    network = Inception(path, sha256, device)
    return network, None if network.official else sha256


def _lpips(given: str | None, metrics: Sequence[Metric], device: str) -> Any:
    others = [metric.name for metric in metrics if metric.space not in (LPIPS, INCEPTION)]
    path, _ = located(ALEXNET, given, f"metrics=[{','.join(others) or 'fd_probe'}]{' probe=RUN' * (not others)} works without them")
    from facegen.metrics.lpips import LPIPS as Network

    return Network(path, device)


def _probe(given: str | None, name: str, device: str, load_probe: Callable[[str], Any]) -> Extractor:
    if given is None:
        raise UserError(f"{name} is measured in the features of a probe; type probe=RUN; {TRAIN_A_PROBE}")
    from facegen.metrics.probe import ProbeExtractor

    return ProbeExtractor(load_probe(given), device)
