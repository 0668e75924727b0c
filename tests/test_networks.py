"""Networks: the UNet is diffusers' and nothing else, its switches change cost but no result, and misfits are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.upsampling import Upsample2D
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from facegen.errors import UserError
from facegen.networks.attention import SelfAttention
from facegen.networks.checks import check_unet
from facegen.networks.convnext import ConvNeXtBlock
from facegen.networks.unet import UNet

PRESETS = Path(__file__).parent.parent / "conf" / "model" / "network"
MILLIONS = {  # preset -> parameters at {resolution}, as its file promises
    "unet_1m": {32: 1.58},
    "unet_4m": {32: 4.50, 64: 4.65},
    "convnext_4m": {32: 4.40, 64: 4.80},
    "unet_16m": {32: 14.74, 64: 15.73},
    "unet_35m": {32: 35.75, 64: 35.75},
    "unet_60m": {32: 61.68, 64: 63.32},
    "report2": {64: 1.90},
    "report3": {32: 14.74, 64: 15.73},
    "report4": {32: 58.31, 64: 63.48},
    "report5": {32: 217.57, 64: 228.64},
}
AUTOENCODERS = {"f2d1": (13.31, 2, 1), "f4d3": (55.31, 4, 3), "f8d4": (83.65, 8, 4), "f16d4": (64.19, 16, 4), "vq_f4d3": (55.32, 4, 3)}
TINY: dict[str, Any] = {"resolution": 16, "channels": 3, "widths": [8, 16], "attention": [8], "layers": 1, "groups": 4, "head_dim": 8}


def tiny(seed: int = 0, **options: Any) -> UNet:
    """A small network in which what starts at zero is random too, so that everything reaches the output."""
    torch.manual_seed(seed)
    network = UNet(**TINY | options)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def batch(size: int = 16, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, size, size, generator=generator), torch.tensor([3.0, 900.5])


def gradients(network: UNet) -> list[Tensor]:
    x, t = batch()
    torch.manual_seed(2)
    network.train()(x, t).square().mean().backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(("preset", "resolution"), [(preset, resolution) for preset, sizes in MILLIONS.items() for resolution in sizes])
def test_a_preset_has_the_parameters_it_promises_and_keeps_the_shape(preset: str, resolution: int) -> None:
    node = OmegaConf.create({"data": {"resolution": resolution, "channels": 3}, "network": OmegaConf.load(PRESETS / f"{preset}.yaml")})
    with torch.device("meta"):
        network = instantiate(node.network, _convert_="all")
        x, t = torch.empty(2, 3, resolution, resolution), torch.empty(2)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(MILLIONS[preset][resolution], abs=0.01)
    assert network(x, t).shape == x.shape


def test_every_preset_promises_a_number_of_parameters() -> None:
    assert {path.stem for path in PRESETS.glob("*.yaml")} == {*MILLIONS, *AUTOENCODERS}


@pytest.mark.parametrize("preset", AUTOENCODERS)
def test_an_autoencoder_has_the_parameters_and_the_latents_that_its_name_promises(preset: str) -> None:
    millions, factor, channels = AUTOENCODERS[preset]
    node = OmegaConf.create({"data": {"channels": 3}, "network": OmegaConf.load(PRESETS / f"{preset}.yaml")})
    with torch.device("meta"):
        network = instantiate(node.network, _convert_="all")
        mean, deviation = network.moments(torch.empty(1, 3, 64, 64))
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert mean.shape == deviation.shape == (1, channels, 64 // factor, 64 // factor)
    assert network.factor == factor
    assert preset.endswith(f"f{factor}d{channels}")


@pytest.mark.parametrize("injection", [None, "embedding"])
@pytest.mark.parametrize(
    ("resample", "down", "up"), [("conv", "DownBlock2D", "UpBlock2D"), ("resnet", "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")]
)
def test_the_adapter_adds_nothing_to_the_unet_of_diffusers(injection: str | None, resample: str, down: str, up: str) -> None:
    network = tiny(injection=injection, resample=resample).eval()
    bare = UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=(down, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", up),
        downsample_type=resample,
        upsample_type=resample,
        attention_head_dim=8,
        norm_num_groups=4,
        class_embed_type="identity" if injection else None,
    ).eval()
    bare.load_state_dict(network.unet.state_dict())
    x, t = batch()
    told = torch.rand(2, network.injected) if injection else None
    torch.testing.assert_close(network(x, t, told), bare(x, t, class_labels=told).sample)


def test_channels_of_one_value_each_are_handed_to_the_first_layer_beside_the_patches() -> None:
    network = tiny(injection="channels", condition_channels=3, patch=2, attention=[4]).eval()
    (x, t), told = batch(), torch.rand(2, 3)
    wider = torch.cat([F.pixel_unshuffle(x, 2), told[:, :, None, None].expand(-1, -1, 8, 8)], dim=1)
    torch.testing.assert_close(network(x, t, told), F.pixel_shuffle(network.unet(wider, t).sample, 2))
    assert not torch.equal(network(x, t, told), network(x, t, 1 - told))


def test_a_network_without_condition_ignores_one() -> None:
    network = tiny()
    assert torch.equal(network(*batch(), torch.ones(2, 5)), network(*batch()))


@pytest.mark.parametrize(("block", "resample"), [("resnet", "conv"), ("resnet", "resnet"), ("convnext", "conv")])
def test_a_fresh_network_answers_zero_and_every_branch_of_it_is_silent(block: str, resample: str) -> None:
    network = UNet(**TINY, block=block, resample=resample)
    assert network(*batch()).abs().max() == 0
    x, embedding = torch.randn(2, 16, 4, 4), torch.randn(2, 32)
    for middle in network.unet.mid_block.resnets:
        assert torch.equal(middle(x, embedding), x)
    assert torch.equal(network.unet.mid_block.attentions[0](x), x)


def test_patches_are_pixel_unshuffle_before_and_shuffle_after() -> None:
    patched, whole = tiny(patch=2, attention=[4]), tiny(seed=1, resolution=8, channels=12, attention=[4])
    whole.load_state_dict(patched.state_dict())
    x, t = batch()
    folded = x.reshape(2, 3, 8, 2, 8, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 8, 8)
    unfolded = whole(folded, t).reshape(2, 3, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 16, 16)
    assert torch.equal(patched(x, t), unfolded)


def test_the_output_may_have_other_channels() -> None:
    assert tiny(patch=2, attention=[4], out_channels=5)(*batch()).shape == (2, 5, 16, 16)


def between_stages(network: UNet) -> tuple[list[Any], list[Any]]:
    """What halves the feature maps and what doubles them, in the order of the stages."""
    halving = [one for stage in network.unet.down_blocks for one in stage.downsamplers or []]
    return halving, [one for stage in network.unet.up_blocks for one in stage.upsamplers or []]


@pytest.mark.parametrize("attention", [[], [8], [16, 8, 4]])
@pytest.mark.parametrize("scale_shift", [False, True])
def test_with_resample_every_stage_is_halved_and_doubled_by_a_residual_block_that_knows_the_time(
    attention: list[int], scale_shift: bool
) -> None:
    options = {"widths": [8, 16, 16], "attention": attention, "scale_shift": scale_shift, "resample": "resnet"}
    fresh, random = UNet(**TINY | options), tiny(**options)
    told, before = torch.randn(2, 32), (torch.randn(2, 8, 6, 6), torch.randn(2, 16, 6, 6))
    halved, doubled = between_stages(fresh)
    assert [type(block) for block in halved + doubled] == [ResnetBlock2D] * 4
    for block, x in zip(halved, before, strict=True):
        assert torch.equal(block(x, told), F.avg_pool2d(x, 2))
    for block, x in zip(doubled, (before[1], before[1]), strict=True):
        assert torch.equal(block(x, told), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    for block in [one for way in between_stages(random) for one in way]:
        x = torch.randn(2, block.in_channels, 6, 6)
        assert (block(x, told) - block(x, -told)).abs().max() > 1e-3
        assert block.time_emb_proj.out_features == block.out_channels * (2 if scale_shift else 1)


@pytest.mark.parametrize("way", [0, 1])
def test_a_residual_block_between_stages_computes_the_formula(way: int) -> None:
    block = between_stages(tiny(scale_shift=True, resample="resnet").double())[way][0]
    x, time = torch.randn(2, block.in_channels, 6, 6).double(), torch.randn(2, 32).double()
    resize = (lambda h: F.avg_pool2d(h, 2), lambda h: F.interpolate(h, scale_factor=2.0))[way]
    scale, shift = F.linear(F.silu(time), block.time_emb_proj.weight, block.time_emb_proj.bias)[:, :, None, None].chunk(2, 1)
    h = resize(F.silu(F.group_norm(x, 4, block.norm1.weight, block.norm1.bias, block.norm1.eps)))
    h = F.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)
    h = F.silu(F.group_norm(h, 4, block.norm2.weight, block.norm2.bias, block.norm2.eps) * (1 + scale) + shift)
    h = F.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1)
    torch.testing.assert_close(block(x, time), resize(x) + h)


def test_without_resample_convolutions_halve_and_double() -> None:
    halved, doubled = between_stages(tiny(widths=[8, 16, 16]))
    assert [type(block) for block in halved + doubled] == [Downsample2D] * 2 + [Upsample2D] * 2


@pytest.mark.parametrize(
    ("option", "proposed"), [({"scale_shift": True}, "scale_shift=false"), ({"resample": "resnet"}, "resample=conv")], ids=str
)
def test_what_is_of_resnet_blocks_is_refused_with_others(option: dict[str, Any], proposed: str) -> None:
    name = proposed.partition("=")[0]
    with pytest.raises(UserError, match=rf"{name}.* is of ResNet blocks; got .*block=convnext; type model.network.{proposed}$"):
        tiny(block="convnext", **option)


@pytest.mark.parametrize(
    ("block", "scale_shift", "resample"),
    [
        ("resnet", False, "conv"),
        ("resnet", True, "conv"),
        ("resnet", False, "resnet"),
        ("resnet", True, "resnet"),
        ("convnext", False, "conv"),
    ],
)
@pytest.mark.parametrize("injection", ["embedding", "channels"])
def test_every_parameter_learns(block: str, scale_shift: bool, resample: str, injection: str) -> None:
    network = tiny(block=block, injection=injection, scale_shift=scale_shift, resample=resample)
    x, t = batch()
    told = torch.rand(2, network.injected)
    network(x, t, told).square().mean().backward()
    idle = [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert [name for name in idle if not name.endswith("to_k.bias")] == []  # a bias of the keys shifts all logits of a query alike


@pytest.mark.parametrize(("block", "resample"), [("resnet", "conv"), ("resnet", "resnet"), ("convnext", "conv")])
def test_gradient_checkpointing_computes_the_same_gradients_a_second_time(block: str, resample: str) -> None:
    shape = {"block": block, "resample": resample, "dropout": 0.2}
    plain, checkpointed = (tiny(**shape, gradient_checkpointing=switch) for switch in (False, True))
    calls = dict.fromkeys((plain, checkpointed), 0)
    for network in calls:

        def count(*_: Any, network: UNet = network) -> None:
            calls[network] += 1

        network.unet.down_blocks[0].resnets[0].register_forward_pre_hook(count)
    for ours, theirs in zip(gradients(checkpointed), gradients(plain), strict=True):
        assert torch.equal(ours, theirs)
    assert list(calls.values()) == [1, 2]


@pytest.mark.parametrize(("block", "resample"), [("resnet", "conv"), ("resnet", "resnet"), ("convnext", "conv")])
def test_memory_format_changes_the_layout_and_no_result(block: str, resample: str) -> None:
    rows, innermost = (tiny(block=block, resample=resample, channels_last=switch) for switch in (False, True))
    innermost.load_state_dict(rows.state_dict())
    seen: list[Tensor] = []
    innermost.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(innermost(*batch()), rows(*batch()), rtol=1e-4, atol=1e-5)
    assert innermost.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_switches_leave_the_names_of_the_weights_alone() -> None:
    names = list(tiny().state_dict())
    for switch in ("gradient_checkpointing", "channels_last"):
        assert list(tiny(**{switch: True}).state_dict()) == names
    compiled = tiny()
    compiled.compile()
    assert list(compiled.state_dict()) == names


@pytest.mark.parametrize("block", ["resnet", "convnext"])
def test_the_time_changes_the_output(block: str) -> None:
    network = tiny(block=block).eval()
    x = batch()[0][:1].expand(4, -1, -1, -1)
    answers = network(x, torch.tensor([-1.5, 0.0, 0.25, 999.0]))
    assert min((answers[i] - answers[j]).abs().max().item() for i in range(4) for j in range(i)) > 1e-5


def test_times_are_embedded_in_float32_under_autocast() -> None:
    network = tiny(widths=[16, 16])
    seen: list[Tensor] = []
    network.unet.time_proj.register_forward_hook(lambda _, __, embedding: seen.append(embedding))
    t = torch.tensor([999.0, 999.25, -1.5])
    with torch.autocast("cpu", torch.bfloat16):
        network(batch()[0][:1].expand(3, -1, -1, -1), t)
    angles = t.double()[:, None] * 10_000 ** (-torch.arange(8).double() / 8)
    torch.testing.assert_close(seen[0].double(), torch.cat([angles.cos(), angles.sin()], 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("attention", "sizes"), [([], []), ([8], [8, 8, 8, 4]), ([16], [16, 16, 16, 4])])
def test_attention_is_where_it_is_asked_for_and_in_the_middle(attention: list[int], sizes: list[int]) -> None:
    network = tiny(widths=[8, 8, 8], attention=attention)
    seen: list[int] = []
    for module in network.modules():
        if isinstance(module, Attention):
            assert isinstance(module.processor, SelfAttention)
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    network(*batch())
    assert sorted(seen, reverse=True) == sizes


@pytest.mark.parametrize(("side", "plain"), [(8, True), (16, True), (32, False)])
def test_attention_in_bfloat16_is_that_of_float32_to_its_precision(side: int, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = Attention(16, heads=2, dim_head=8, norm_num_groups=4, residual_connection=True, bias=True, _from_deprecated_attn_block=True)
    attention.set_processor(SelfAttention())
    x = torch.randn(1, 16, side, side)
    exact = attention(x)
    fused: list[bool] = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: fused.append(True) or kernel(*a, **k))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x.bfloat16())
    assert (rounded - exact).abs().max() < 0.05
    assert bool(fused) is not plain


@pytest.mark.parametrize(("channels_in", "channels_out"), [(6, 6), (6, 4)])
def test_a_convnext_block_computes_the_formula(channels_in: int, channels_out: int) -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(channels_in, channels_out, 5).double()
    x, time = torch.randn(2, channels_in, 9, 9).double(), torch.randn(2, 5).double()
    norm, expand, project = block.expand[0], block.expand[1], block.project
    columns = F.unfold(x, 7, padding=3).view(2, channels_in, 49, 81)
    h = torch.einsum("bckp,ck->bcp", columns, block.depthwise.weight.view(channels_in, 49)) + block.depthwise.bias[:, None]
    h = h + block.time_shift[1](time * time.sigmoid())[:, :, None]
    h = (h - h.mean((1, 2), keepdim=True)) / (h.var((1, 2), unbiased=False, keepdim=True) + norm.eps).sqrt()
    h = F.gelu(torch.einsum("bcp,dc->bdp", h, expand.weight[:, :, 0, 0]) + expand.bias[:, None])
    h = torch.einsum("bcp,dc->bdp", h, project.weight[:, :, 0, 0]) + project.bias[:, None]
    skip = x if channels_in == channels_out else F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x, time), skip + h.view(2, channels_out, 9, 9))


@pytest.mark.parametrize("block", ["resnet", "convnext"])
def test_dropout_is_active_in_training_only(block: str) -> None:
    network = tiny(block=block, dropout=0.5)
    assert not torch.equal(network(*batch()), network(*batch()))
    network.eval()
    assert torch.equal(network(*batch()), network(*batch()))


MISFITS = {
    "widths are none": ({"widths": []}, ["model.network.widths must be one positive integer or more; got []"]),
    "widths are negative": ({"widths": [8, -8]}, ["model.network.widths must be", "got [8, -8]"]),
    "resolution": ({"resolution": 30, "patch": 2}, ["data.resolution must be divisible by 4", "got 30", "data.resolution=28 or", "=32"]),
    "resolution below the patch": ({"resolution": 3, "patch": 4, "attention": []}, ["divisible by 8", "type data.resolution=8,"]),
    "groups": ({"groups": 5}, ["model.network.groups must divide each", "[8, 16]; got 5; type model.network.groups=4"]),
    "head_dim": ({"head_dim": 6}, ["model.network.head_dim must divide the widths with attention, 16; got 6", "head_dim=4"]),
    "head_dim in the middle": ({"attention": [16], "widths": [8, 12]}, ["widths with attention, 8, 12; got 8", "head_dim=4"]),
    "attention": ({"attention": [7, 5]}, ["model.network.attention", "which are 16, 8 at data.resolution=16", "got 7, 5; type", "=[8]"]),
}


@pytest.mark.parametrize(("options", "parts"), MISFITS.values(), ids=MISFITS)
def test_a_misfit_is_one_line_that_names_the_key_and_what_fits(options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        UNet(**TINY | options)
    assert len(refused.value.lines) == 1
    assert all(part in refused.value.lines[0] for part in parts)


def test_what_the_message_of_a_misfit_proposes_fits() -> None:
    for fitting in ({"resolution": 32, "patch": 2}, {"groups": 4}, {"head_dim": 4}, {"attention": [16], "widths": [8, 12], "head_dim": 4}):
        check_unet(**{"patch": 1} | TINY | fitting)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"groups": 5, "head_dim": 6, "attention": [9]}, ["model.network.groups", "model.network.attention", "model.network.head_dim"]),
        ({"groups": 5, "resolution": 15}, ["data.resolution", "model.network.groups"]),
    ],
)
def test_all_misfits_are_told_at_once(options: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        UNet(**TINY | options)
    assert [line.split()[0] for line in refused.value.lines] == keys
