"""The discriminator sees patches of one image at a time, its losses are those of the papers, and it pulls as hard as the reconstruction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facegen.errors import UserError
from facegen.networks.checks import CHECKS, check_discriminator
from facegen.networks.discriminator import PatchDiscriminator, adaptive_weight, generator_loss, hinge_loss, smallest

TINY: dict[str, Any] = {"channels": 3, "width": 4, "layers": 2, "groups": 4}


def tiny(**options: Any) -> PatchDiscriminator:
    """A small discriminator with weights large enough for its logits to differ."""
    torch.manual_seed(0)
    network = PatchDiscriminator(**TINY | options).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def images(count: int, size: int, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1)).double() * 2 - 1


def test_it_is_the_plain_sequence_of_layers() -> None:
    def halving(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(4, after), nn.LeakyReLU(0.2)]

    last = [nn.Conv2d(32, 32, 4, 1, 1), nn.GroupNorm(4, 32), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 4, 1, 1)]
    first = [nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2)]
    plain = nn.Sequential(*first, *halving(4, 8), *halving(8, 16), *halving(16, 32), *last).double()  # 8 x 4 at most
    network = tiny(layers=4)
    plain.load_state_dict({name.removeprefix("patches."): value for name, value in network.state_dict().items()})
    x = images(2, 64)
    torch.testing.assert_close(network(x), plain(x), rtol=0, atol=0)


def test_a_discriminator_of_three_layers_has_patches_of_70_px() -> None:
    network, x = PatchDiscriminator(channels=1, width=8).double(), images(1, 128, 1).requires_grad_()
    for module in network.patches:
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda h: h  # which would spread each pixel over the whole image
    logits = network(x)
    logits[0, 0, 7, 7].backward()
    seen = (x.grad != 0).nonzero()  # type: ignore[union-attr]
    assert logits.shape == (1, 1, 14, 14)
    assert [(seen[:, axis].max() - seen[:, axis].min() + 1).item() for axis in (2, 3)] == [70, 70]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("layers", "size", "side"), [(1, 16, 6), (2, 16, 2), (3, 32, 2), (3, 64, 6), (3, 67, 6)])
def test_there_are_as_many_logits_as_promised(channels: int, layers: int, size: int, side: int) -> None:
    assert tiny(channels=channels, layers=layers)(images(2, size, channels)).shape == (2, 1, side, side)
    assert size // 2**layers - 2 == side


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_smallest_image_has_one_logit_and_a_smaller_one_none(layers: int) -> None:
    network, least = tiny(layers=layers), smallest(layers)
    assert network.smallest == least
    assert network(images(1, least)).shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError, match="Kernel size"):
        network.patches(images(1, least - 1))
    with pytest.raises(
        UserError, match=rf"^data.resolution must be at least {least} for model.discriminator.layers={layers}; got {least - 1}"
    ):
        network(images(1, least - 1))


def test_a_misfit_is_one_line_and_what_it_proposes_fits() -> None:
    def refused(**options: Any) -> tuple[str, ...]:
        with pytest.raises(UserError) as caught:
            check_discriminator(**{"width": 64, "groups": 8, "layers": 3} | options)
        return caught.value.lines

    wrong = "model.discriminator.groups must divide twice model.discriminator.width=64; got 48"
    assert refused(groups=48) == (f"{wrong}; type model.discriminator.groups=32",)
    small = "data.resolution must be at least 24 for model.discriminator.layers=3; got"
    assert refused(resolution=16) == (f"{small} 16; type model.discriminator.layers=2",)
    assert refused(resolution=5) == (f"{small} 5; type model.discriminator=null",)
    assert [line.split()[0] for line in refused(groups=48, resolution=16)] == ["model.discriminator.groups", "data.resolution"]
    check_discriminator(width=64, groups=32, layers=2, resolution=16)
    assert CHECKS["PatchDiscriminator"] is check_discriminator
    with pytest.raises(UserError, match=r"discriminator.groups must divide twice model.discriminator.width=6; got 8; type .*groups=6$"):
        PatchDiscriminator(channels=3, width=6)
    assert PatchDiscriminator(channels=3, width=4, groups=8)(images(1, 24).float()).shape == (1, 1, 1, 1)  # the second layer has 8 channels


def test_the_logits_of_an_image_do_not_depend_on_what_else_is_in_the_batch_or_came_before() -> None:
    network, x = tiny(), images(4, 32)
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(network(x), alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network.eval()(x.flip(0)).flip(0), alone, rtol=1e-12, atol=1e-12)
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    assert not list(network.buffers())  # weights are all there is to save


def test_weights_start_small_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    convolutions = [module for module in PatchDiscriminator(channels=3).modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 5
    for module in convolutions:
        slack = 4 * 0.02 / module.weight.numel() ** 0.5  # four standard errors, of the deviation even more
        assert abs(module.weight.mean().item()) < slack
        assert module.weight.std().item() == pytest.approx(0.02, abs=slack)
        assert module.bias is not None
        assert not module.bias.any()


def test_every_parameter_learns_to_tell_real_from_generated() -> None:
    network = tiny()
    hinge_loss(network(images(2, 16)), network(-images(2, 16))).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_the_losses_are_the_hinge_of_the_logits() -> None:
    real, fake = torch.tensor([[0.5, 2.0]]), torch.tensor([-3.0, 0.5, -0.5, 0.0])
    assert hinge_loss(real, fake).item() == pytest.approx(((0.5 + 0.0) / 2 + (0 + 1.5 + 0.5 + 1) / 4) / 2)
    assert generator_loss(fake).item() == 0.75
    assert hinge_loss(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -7.0])) == 0  # told apart well enough
    assert hinge_loss(torch.zeros(3), torch.zeros(5)) == 1  # not told apart


def test_the_losses_of_a_batch_are_the_means_of_those_of_its_parts() -> None:
    real, fake = torch.randn(2, 6, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    for parts in (list(zip(real.split(2), fake.split(2), strict=True)), list(zip(real, fake, strict=True))):
        torch.testing.assert_close(torch.stack([hinge_loss(*part) for part in parts]).mean(), hinge_loss(real, fake))
        torch.testing.assert_close(torch.stack([generator_loss(part) for _, part in parts]).mean(), generator_loss(fake))


def test_losses_of_rounded_logits_are_float32() -> None:
    logits = torch.full((3,), -2.0, dtype=torch.bfloat16)
    assert hinge_loss(logits, logits).dtype == generator_loss(logits).dtype == torch.float32
    assert generator_loss(torch.full((1000,), 1.0, dtype=torch.bfloat16)) == -1


def pulls(of_reconstruction: list[float], of_adversarial: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of a linear "decoder" whose gradients by its weights are these."""
    last = torch.ones(len(of_reconstruction), requires_grad=True)
    return (last * torch.tensor(of_reconstruction)).sum(), (last * torch.tensor(of_adversarial)).sum(), last


@pytest.mark.parametrize(
    ("of_reconstruction", "of_adversarial", "weight"),
    [
        ([3.0], [-1.5], 3 / (1.5 + 1e-4)),
        ([3.0, 4.0], [0.0, 0.1], 5 / (0.1 + 1e-4)),
        ([0.0], [2.0], 0.0),
        ([0.5], [0.0], 0.5 / 1e-4),
        ([3.0], [0.0], 1e4),  # 3e4, were it not clamped
        ([3.0], [float("nan")], 0.0),
        ([3.0], [float("inf")], 0.0),
        ([float("inf")], [2.0], 0.0),
        ([float("inf")], [float("inf")], 0.0),
    ],
)
def test_the_adaptive_weight_is_the_ratio_of_both_gradients(
    of_reconstruction: list[float], of_adversarial: list[float], weight: float
) -> None:
    assert adaptive_weight(*pulls(of_reconstruction, of_adversarial)).item() == pytest.approx(weight)


def test_weighed_adaptively_the_adversarial_loss_pulls_as_hard_as_the_reconstruction_whatever_its_scale() -> None:
    decoder, judge = nn.Conv2d(2, 3, 3, padding=1), tiny()
    x, z = images(2, 16).float(), torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(2))
    for scale in (1.0, 30.0, 1e3):
        made = decoder(z)
        reconstruction, adversarial = (made - x).abs().mean(), scale * generator_loss(judge.float()(made))
        weight = adaptive_weight(reconstruction, adversarial, decoder.weight)
        (wanted,) = torch.autograd.grad(reconstruction, decoder.weight, retain_graph=True)
        (given,) = torch.autograd.grad(weight * adversarial, decoder.weight)
        assert given.norm().item() == pytest.approx(wanted.norm().item(), rel=0.01)


def test_the_adaptive_weight_adds_no_gradient_and_leaves_the_graphs() -> None:
    reconstruction, adversarial, last = pulls([3.0], [-0.5])
    weight = adaptive_weight(reconstruction, adversarial, last)
    assert not weight.requires_grad
    assert weight.shape == ()
    assert last.grad is None
    (reconstruction + weight * adversarial).backward()
    assert last.grad is not None
    assert last.grad.item() == pytest.approx(3.0 - 0.5 * weight.item(), abs=1e-6)
