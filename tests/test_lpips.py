"""LPIPS is the number of the `lpips` package on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lpips
import pytest
import torch
from torch import Tensor, nn

from facegen.errors import UserError
from facegen.images import to_float
from facegen.metrics.lpips import LPIPS, SMALLEST
from facegen.metrics.weights import sha256_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchvision.models._utils")  # of the `lpips` package's making


@pytest.fixture(scope="module")
def backbone() -> dict[str, Tensor]:
    """Random weights by torchvision's names; not the classifier, which nobody needs and which is most of the file."""
    from torchvision.models import alexnet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = alexnet(weights=None).features
        for module in features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    return {f"features.{name}": value for name, value in features.state_dict().items()}


@pytest.fixture(scope="module")
def path(backbone: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(backbone, file)
    return file


@pytest.fixture(scope="module")
def ours(path: Path) -> LPIPS:
    return LPIPS(path, "cpu")


@pytest.fixture(scope="module")
def theirs(backbone: dict[str, Tensor]) -> Any:
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    own = network.net.state_dict()
    network.net.load_state_dict({name: backbone[f"features.{name.split('.', 1)[1]}"] for name in own})
    return network


def pairs(count: int, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(height)
    a = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=random)
    noise = torch.randint(-40, 41, a.shape, generator=random)
    return a, (a.int() + noise).clamp(0, 255).byte()


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64), (3, 218, 178), (1, 64, 64), (3, SMALLEST, SMALLEST)])
def test_distances_are_those_of_the_lpips_package(shape: tuple[int, int, int], ours: LPIPS, theirs: Any) -> None:
    a, b = pairs(3, *shape)
    with torch.inference_mode():
        expected = theirs(*(to_float(images).expand(-1, 3, -1, -1) for images in (a, b))).flatten()
    got = ours.distance(a, b)
    assert got.shape == (3,)
    assert got.dtype == torch.float32
    assert expected.min() > 1e-3
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


def test_equal_images_are_no_distance_apart_and_neither_is_first(ours: LPIPS) -> None:
    a, b = pairs(2, 3, 64, 64)
    assert torch.equal(ours.distance(a, a), torch.zeros(2))
    torch.testing.assert_close(ours.distance(a, b), ours.distance(b, a), rtol=1e-5, atol=0)


def test_a_distance_does_not_depend_on_the_batch_that_its_pair_comes_in(ours: LPIPS) -> None:
    a, b = pairs(34, 3, 64, 64)  # more than one group
    assert torch.equal(ours.distance(a, b)[32:33], ours.distance(a[32:33], b[32:33]))


def test_images_too_small_for_alexnet_are_refused_with_the_least_size(ours: LPIPS) -> None:
    with pytest.raises(UserError, match=r"^images must be at least 31 px for LPIPS; got 64 x 30; leave lpips out$"):
        ours.distance(*pairs(1, 3, SMALLEST - 1, 64))


@pytest.mark.parametrize("shapes", [((1, 3, 64, 64), (1, 3, 32, 32)), ((1, 2, 64, 64),) * 2, ((3, 64, 64),) * 2])
def test_images_that_are_no_pairs_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]], ours: LPIPS) -> None:
    with pytest.raises(UserError, match=r"^images must be two \(B, C, H, W\) with 1 or 3 channels; got .*$"):
        ours.distance(*(torch.zeros(shape, dtype=torch.uint8) for shape in shapes))


def test_images_that_are_not_bytes_are_refused(ours: LPIPS) -> None:
    with pytest.raises(UserError, match=r"^images must be uint8 in 0..255; got torch.float32; convert with facegen.images.to_uint8$"):
        ours.distance(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_weights_of_another_network_are_one_line(backbone: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({name: value for name, value in backbone.items() if name != "features.3.bias"}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"another network: features.3.bias is missing; give .*$"):
        LPIPS(tmp_path / "wrong.pth", "cpu")


def test_the_identity_tells_the_weights(path: Path, ours: LPIPS) -> None:
    assert ours.identity["sha256"] == sha256_of(path)
