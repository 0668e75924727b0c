"""A file of random weights for the network of FID and IS, and torch-fidelity's own network on it; the published ones are not here."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from facegen.metrics.inception import unloaded

_MADE: dict[str, torch.Tensor] = {}


def random_inception(path: Path) -> Path:
    """Writes weights as a training would leave them into the file `path`, the same ones every time, and returns it.

    Activations keep their size from layer to layer, so that features tell images apart as those of real weights do.
    """
    if not _MADE:
        _MADE.update(_made().state_dict())
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(_MADE, path)
    return path


def _made() -> nn.Module:
    network, random = unloaded(), torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.5, 1.5),
                (module.weight, 0.7, 1.3),
                (module.bias, -0.1, 0.1),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=random)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05, generator=random)
            nn.init.normal_(module.bias, generator=random)
    return network


def torch_fidelitys(path: Path, layers: list[str]) -> FeatureExtractorInceptionV3:
    """torch-fidelity's extractor with the weights in the file `path`."""
    return FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=str(path))
