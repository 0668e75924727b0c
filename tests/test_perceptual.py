"""The distance that an autoencoder is trained with is LPIPS, or what LPIPS is in a probe's features; gradients reach the images alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lpips
import pytest
import torch
import torchvision
from torch import Tensor, nn

from facegen.errors import UserError
from facegen.loading import LoadedProbe
from facegen.metrics import weights
from facegen.metrics.weights import VGG16, sha256_of
from facegen.networks.probe import Classifier, ProbeNet
from facegen.perceptual import Perceptual, find

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchvision.models._utils")  # of the `lpips` package's making

KINDS = ("vgg", "alex", "probe")
LEAST = {"vgg": 16, "alex": 31, "probe": 4}  # px
Kind = Literal["vgg", "alex", "probe"]


def nobody(ckpt: str) -> Any:
    pytest.fail("a probe was loaded")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights by torchvision's names; not the classifiers, which nobody needs and which are most of the files."""
    folder, names = tmp_path_factory.mktemp("weights"), {"vgg": "vgg16", "alex": "alexnet"}
    for kind, name in names.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            features = getattr(torchvision.models, name)(weights=None).features
            for module in features:
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
        torch.save({f"features.{key}": value for key, value in features.state_dict().items()}, folder / f"{kind}.pth")
    return {kind: folder / f"{kind}.pth" for kind in names}


def loaded_probe(channels: int = 3) -> LoadedProbe:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ProbeNet(channels=channels, widths=[8, 16], blocks=2, features=12, groups=4)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)  # a fresh block adds nothing to what it is given
        nn.init.zeros_(network.stem.get_parameter("bias"))  # an image of zeros has features without any length
    data = {"resolution": 16, "channels": channels, "fingerprint": "of-data"}
    return LoadedProbe(Path("probe.ckpt"), "of-file", {}, data, Classifier(network, 5), "2000", "300")


@pytest.fixture(scope="module")
def distances(files: dict[str, Path]) -> dict[str, Perceptual]:
    found = {kind: find(kind, str(file), None, nobody) for kind, file in files.items()}  # type: ignore[arg-type]
    return found | {"probe": find("probe", None, "RUN", lambda ckpt: loaded_probe())}  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def grey() -> Any:
    return find("probe", None, "RUN", lambda ckpt: loaded_probe(channels=1))


@pytest.fixture(scope="module")
def oracles(files: dict[str, Path]) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What the distances are in float64, worked out by others."""

    def of_package(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
        network = lpips.LPIPS(net=kind, pnet_rand=True, verbose=False)
        stored = torch.load(files[kind])
        network.net.load_state_dict({name: stored[f"features.{name.split('.', 1)[1]}"] for name in network.net.state_dict()})
        network.double()
        return lambda a, b: network(*(images.double().expand(-1, 3, -1, -1) for images in (a, b))).flatten()

    return {"vgg": of_package("vgg"), "alex": of_package("alex"), "probe": by_hand(loaded_probe())}


def by_hand(loaded: LoadedProbe) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance of a probe's features, place by place."""
    network, seen = loaded.probe.network.double(), []
    for layer in (network.stem, *network.blocks):
        layer.register_forward_hook(lambda _, __, output: seen.append(output))

    def distance(a: Tensor, b: Tensor) -> Tensor:
        seen.clear()
        for images in (a, b):
            network(images.double().expand(-1, loaded.data["channels"], -1, -1))
        count, found = len(seen) // 2, torch.zeros(len(a), dtype=torch.float64)
        for x, y in zip(seen[:count], seen[count:], strict=True):
            cosine = torch.cosine_similarity(x, y, dim=1)  # of unit vectors, |x - y|^2 = 2 - 2 x.y
            found += (2 - 2 * cosine).mean(dim=(1, 2)) / count
        return found

    return distance


def pairs(count: int, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(height)
    a = torch.rand(count, channels, height, width, generator=random) * 2 - 1
    return a, a + 0.3 * torch.randn(a.shape, generator=random)  # a reconstruction may reach beyond [-1, 1]


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 48, 64), (1, 64, 64)])
@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_those_of_the_lpips_package_and_of_a_probe_worked_out_by_hand(
    kind: str, shape: tuple[int, int, int], distances: dict[str, Perceptual], oracles: dict[str, Any]
) -> None:
    a, b = pairs(2, *shape)
    got = distances[kind](a, b)
    with torch.no_grad():
        expected = oracles[kind](a, b)
    assert got.shape == (2,)
    assert got.dtype == torch.float32
    assert expected.min() > 1e-3
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_are_no_distance_apart_and_neither_is_first(kind: str, distances: dict[str, Perceptual]) -> None:
    a, b = pairs(2, 3, 32, 32)
    assert torch.equal(distances[kind](a, a.clone()), torch.zeros(2))
    torch.testing.assert_close(distances[kind](a, b), distances[kind](b, a), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_distance_does_not_depend_on_the_batch_that_its_pair_comes_in(kind: str, distances: dict[str, Perceptual]) -> None:
    a, b = pairs(3, 3, 32, 32)
    alone = torch.cat([distances[kind](*pair) for pair in zip(a.split(1), b.split(1), strict=True)])
    torch.testing.assert_close(distances[kind](a, b), alone, rtol=1e-5, atol=0)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_either_image_are_the_slopes_of_the_distance(
    kind: str, first: bool, distances: dict[str, Perceptual], oracles: dict[str, Any]
) -> None:
    a, b = pairs(1, 3, 32, 32)
    moved, still = (a, b) if first else (b, a)

    def between(distance: Any, x: Tensor) -> Tensor:
        return distance(x, still) if first else distance(still, x)

    moved.requires_grad_()
    (slopes,) = torch.autograd.grad(between(distances[kind], moved).sum(), moved)
    for place in ((0, 0, 3, 5), (0, 1, 16, 16), (0, 2, 30, 9)):
        step = torch.zeros_like(moved, dtype=torch.float64)
        step[place] = 1e-5
        with torch.no_grad():
            difference = between(oracles[kind], moved.double() + step) - between(oracles[kind], moved.double() - step)
        assert slopes[place].item() == pytest.approx(difference.item() / 2e-5, rel=1e-2, abs=1e-7)
        assert abs(slopes[place].item()) > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_finite_where_images_are_equal_or_empty(kind: str, distances: dict[str, Perceptual]) -> None:
    for a in (pairs(1, 3, 32, 32)[0], torch.zeros(1, 3, 32, 32)):
        a.requires_grad_()
        (slopes,) = torch.autograd.grad(distances[kind](a, a.detach().clone()).sum(), a)
        assert torch.equal(slopes, torch.zeros_like(slopes))


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_frozen_and_never_in_training(kind: str, distances: dict[str, Any]) -> None:
    a, b = pairs(2, 3, 32, 32)
    distance = distances[kind]
    distance.train()
    before = distance(a, b)
    distance(a.requires_grad_(), b).sum().backward()
    parameters = list(distance.parameters())
    assert len(parameters) > 10
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in parameters)
    assert not any(module.training for module in distance.modules())
    assert torch.equal(distance(a, b), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_distance_is_float32_under_autocast_and_of_rounded_images(kind: str, distances: dict[str, Perceptual]) -> None:
    a, b = (images.bfloat16() for images in pairs(2, 3, 32, 32))
    exact = distances[kind](a.float(), b.float())
    with torch.autocast("cpu", torch.bfloat16):
        got = distances[kind](a, b)
    assert got.dtype == torch.float32
    assert torch.equal(got, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_a_distance_moves_with_all_it_has(kind: str, distances: dict[str, Any], grey: Any) -> None:
    for distance in map(copy.deepcopy, (distances[kind], grey)):
        assert distance.to("meta") is distance
        x = torch.empty(2, 3, 32, 32, device="meta")
        assert distance._between(x, x).device.type == "meta"  # would fail where anything had stayed; autocast knows no meta device


def test_a_grey_probe_sees_the_luma_of_colours_and_a_coloured_one_grey_thrice(distances: dict[str, Perceptual], grey: Perceptual) -> None:
    colours, others = pairs(2, 3, 16, 16)
    luma, its = ((0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]) for x in (colours, others))
    torch.testing.assert_close(grey(colours, others), grey(luma, its))
    thrice = [x.repeat(1, 3, 1, 1) for x in (luma, its)]
    torch.testing.assert_close(distances["probe"](luma, its), distances["probe"](*thrice))


@pytest.mark.parametrize("kind", KINDS)
def test_images_too_small_for_the_network_are_refused_with_the_least_size(kind: str, distances: dict[str, Perceptual]) -> None:
    least = LEAST[kind]
    assert distances[kind](*pairs(1, 3, least, least)).item() > 0
    said = rf"^images must be at least {least} px for this perceptual network; got 64 x {least - 1}; raise data.resolution, or type .*null$"
    with pytest.raises(UserError, match=said):
        distances[kind](*pairs(1, 3, least - 1, 64))


@pytest.mark.parametrize("shapes", [((1, 3, 64, 64), (1, 3, 32, 32)), ((1, 2, 64, 64),) * 2, ((3, 64, 64),) * 2])
@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_no_pairs_are_refused(kind: str, shapes: Any, distances: dict[str, Perceptual]) -> None:
    with pytest.raises(UserError, match=r"^images must be two \(B, C, H, W\) with 1 or 3 channels; got .*$"):
        distances[kind](*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_refused(kind: str, distances: dict[str, Perceptual]) -> None:
    bytes_ = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"^images must be float in \[-1, 1\]; got torch.uint8; convert with facegen.images.to_float$"):
        distances[kind](torch.zeros(1, 3, 64, 64), bytes_)


def test_the_identity_tells_the_weights(files: dict[str, Path], distances: dict[str, Perceptual]) -> None:
    identities = {kind: distance.identity for kind, distance in distances.items()}
    assert {kind: identity["sha256"] for kind, identity in identities.items()} == {
        **{kind: sha256_of(file) for kind, file in files.items()},
        "probe": "of-file",
    }
    assert len({str(sorted(identity.items())) for identity in identities.values()}) == 3
    assert identities["probe"]["data"] == "of-data"


def test_the_weights_of_vgg_are_those_that_torchvision_publishes() -> None:
    assert VGG16.url == torchvision.models.VGG16_Weights.IMAGENET1K_V1.url
    assert VGG16.name == VGG16.url.rpartition("/")[2] == f"vgg16-{VGG16.sha256[:8]}.pth"
    assert len(VGG16.sha256) == 64


def test_nothing_is_found_where_nothing_is_asked_for() -> None:
    assert find(None, None, None, nobody) is None


def test_the_search_draws_nothing_from_the_generator(files: dict[str, Path]) -> None:
    before = torch.random.get_rng_state()
    find("alex", str(files["alex"]), None, nobody)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "name"), [("vgg", "vgg16-397923af.pth"), ("alex", "alexnet-owt-7be5be79.pth")])
def test_missing_weights_are_never_replaced_and_the_error_names_what_works_without(
    kind: Kind, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(UserError) as caught:
        find(kind, None, None, nobody, "stage1.model.")
    (line,) = caught.value.lines
    assert re.fullmatch(
        rf"the .* weights of LPIPS are not here and cannot be downloaded \(no network\): put {name} \(SHA-256 .*\) from .*/{name} into "
        rf"{tmp_path}/hub/checkpoints, or type stage1.model.perceptual_weights=PATH; stage1.model.perceptual=probe stage1.model.probe=RUN "
        "works without them, and so does stage1.model.perceptual=null",
        line,
    )


def test_weights_of_another_network_are_one_line(files: dict[str, Path]) -> None:
    for kind, other in (("vgg", "alex"), ("alex", "vgg")):
        with pytest.raises(UserError, match=r"holds weights of another network: .*; give the file that belongs to this one$"):
            find(kind, str(files[other]), None, nobody)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_told_by_the_option_that_names_it(files: dict[str, Path]) -> None:
    path = files["vgg"].with_name("vg.pth")
    with pytest.raises(UserError) as caught:
        find("vgg", str(path), None, nobody)
    way_out = "give the file of the VGG-16 weights of LPIPS, or leave model.perceptual_weights out"
    assert str(caught.value) == f"model.perceptual_weights={path}: no file 'vg.pth' in {path.parent} (did you mean 'vgg.pth'?); {way_out}"


def test_a_probe_that_is_not_told_is_asked_for_with_the_command_that_trains_one() -> None:
    with pytest.raises(UserError) as caught:
        find("probe", None, None, nobody)
    (line,) = caught.value.lines
    assert line.startswith(
        "model.perceptual=probe sees by the features of a probe; type model.probe=RUN, or model.perceptual=null; train one"
    )
    assert "python train.py experiment=probe" in line


def test_the_probe_that_is_told_is_the_one_that_is_loaded() -> None:
    asked: list[str] = []
    find("probe", "never-read.pth", "runs/probe", lambda ckpt: asked.append(ckpt) or loaded_probe())
    assert asked == ["runs/probe"]
