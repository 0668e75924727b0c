"""Stable Diffusion, fine-tuned to edit: what it begins with, what is trained and kept, and that diffusers runs what comes out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import in_child
from stable import command
from torch import Tensor

from facegen import checkpoint, pretrained
from facegen.diffusion.guidance import Guidance, Guided, Told
from facegen.diffusion.sampler import DDIM
from facegen.errors import UserError
from facegen.experiment import build, load, resolve, train
from facegen.export import export, main
from facegen.families.optimization import Adam
from facegen.loading import untuned
from facegen.networks.stable import ATTENTION, StableUNet, widened
from facegen.prompts import prompt
from facegen.text import Text
from facegen.tiny_stable_diffusion import TEXT_SIZE
from facegen.tiny_stable_diffusion import build as build_tiny

LORA = ("model.network.lora=2",)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of everything and one of adapters, trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEGEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        found = {"full": tmp_path_factory.mktemp("full"), "lora": tmp_path_factory.mktemp("lora")}
        train(command(tiny, found["full"]))
        train(command(tiny, found["lora"], *LORA))
    return found


def unet_of(folder: Path) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True, low_cpu_mem_usage=False).eval()


def inputs(channels: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x, source = torch.randn(2, 2, channels, 8, 8, generator=draw)
    return x, source, torch.tensor([3.0, 700.0]), torch.randn(2, 77, TEXT_SIZE, generator=draw)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("lora", [None, 2])
def test_widened_by_zeros_it_answers_as_before_to_the_bit_whatever_it_is_shown(tiny: Path, lora: int | None) -> None:
    before, parts = unet_of(tiny), pretrained.described(tiny)
    ours = StableUNet(architecture=parts["unet"], lora=lora).eval()
    ours.begin_with(tiny / "unet")
    x, source, t, told = inputs()
    with torch.no_grad():
        expected = before(x, t, encoder_hidden_states=told).sample
        for shown in (None, torch.zeros_like(source), source):
            assert torch.equal(ours(x, t, told, shown), expected)


def test_an_editor_s_unet_is_taken_over_with_the_channels_it_has(tiny: Path) -> None:
    wide = widened(unet_of(tiny))
    torch.nn.init.normal_(wide.conv_in.weight)
    assert widened(wide) is wide
    assert wide.config.in_channels == 8


def test_where_nothing_is_told_the_empty_prompt_stands_and_where_nothing_is_shown_zeros(tiny: Path) -> None:
    ours = StableUNet(architecture=pretrained.described(tiny)["unet"]).eval()
    ours.null.copy_(torch.randn(77, TEXT_SIZE, generator=torch.Generator().manual_seed(1)))
    torch.nn.init.normal_(ours.unet.conv_in.weight)
    x, source, t, told = inputs()
    nothing, unshown = told.clone(), source.clone()
    nothing[1], unshown[0] = torch.nan, torch.nan
    with torch.no_grad():
        answer = ours(x, t, nothing, unshown)
        plain = ours(x, t, torch.stack([told[0], ours.null]), torch.stack([torch.zeros_like(source[0]), source[1]]))
    assert torch.equal(answer, plain)


def test_prompts_are_read_as_the_text_encoder_reads_them_each_by_itself(tiny: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    text = Text(architecture=pretrained.described(tiny)["text_encoder"])
    text.begin_with(tiny)
    prompts = [prompt("male", "50-69"), "", prompt(None, "3-6")]
    model, tokenizer = CLIPTextModel.from_pretrained(tiny / "text_encoder"), CLIPTokenizer.from_pretrained(tiny / "tokenizer")
    ids = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(text.embed(prompts), model(ids)[0])
    assert torch.equal(text.embed(prompts[2:])[0], text.embed(prompts)[2])
    other = Text(architecture=pretrained.described(tiny)["text_encoder"])
    other.load(text.state())
    assert torch.equal(other.embed(["aged 7"]), text.embed(["aged 7"]))


def test_a_tokenizer_that_would_be_written_elsewhere_is_refused(tiny: Path) -> None:
    text = Text(architecture=pretrained.described(tiny)["text_encoder"])
    text.begin_with(tiny)
    state = text.state()
    state["tokenizer"] = {"../evil.json": "{}"}
    with pytest.raises(UserError, match=r"files of strange names"):
        text.load(state)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_training_changes_what_is_trained_and_nothing_else(tiny: Path, runs: dict[str, Path], kind: str) -> None:
    trained = load(str(runs[kind]), "raw")
    before = untuned(trained)
    network = trained.denoiser.network
    if kind == "lora":
        expected = set(network.trained)
        assert all("lora_" in name or name.startswith("unet.conv_in.") for name in expected)
        touched = {part for part in ATTENTION if any(f".{part}." in name for name in expected)}
        assert touched == set(ATTENTION)
    else:
        expected = {name for name, _ in network.named_parameters()}
    for name, tensor in network.state_dict().items():
        changed = not torch.equal(tensor, before.denoiser.network.state_dict()[name])
        if name not in expected:
            assert not changed, name
    moved = [n for n in expected if not torch.equal(network.state_dict()[n], before.denoiser.network.state_dict()[n])]
    assert "unet.conv_in.weight" in moved
    assert len(moved) > 0.9 * len(expected)
    assert same(trained.codec.network.state_dict(), before.codec.network.state_dict())
    assert same(trained.text.model.state_dict(), before.text.model.state_dict())


def test_only_what_is_trained_is_averaged(runs: dict[str, Path]) -> None:
    for kind in runs:
        stored = checkpoint.read(runs[kind])
        network = load(str(runs[kind])).denoiser.network
        names = {f"denoiser.network.{name}" for name, p in network.named_parameters()}
        if kind == "lora":
            names = {f"denoiser.network.{name}" for name in network.trained}
        for average in stored["ema"].values():
            assert set(average) == names


def test_a_checkpoint_of_adapters_holds_them_alone(runs: dict[str, Path]) -> None:
    state = checkpoint.read(runs["lora"])
    assert "codec" not in state
    assert set(state["instruct_pix2pix"]) == {"base"}
    assert all("lora_" in name or "conv_in" in name or name.endswith("null") for name in state["state_dict"])


@pytest.mark.parametrize("options", [(), LORA], ids=["full", "lora"])
def test_a_run_that_was_killed_and_continued_ends_with_the_same_weights(
    tiny: Path, runs: dict[str, Path], options: tuple[str, ...], tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    killed = in_child(lambda: train(command(tiny, parts, *options)), lambda: (parts / "checkpoints" / "step-00000002.ckpt").exists())
    train(command(tiny, parts, *options))
    assert killed <= 0
    a, b = checkpoint.read(runs["lora" if options else "full"]), checkpoint.read(parts)
    assert same(a["state_dict"], b["state_dict"])
    assert all(same(a["ema"][half], b["ema"][half]) for half in a["ema"])


def test_a_run_of_everything_goes_on_and_is_drawn_from_without_what_it_began_with(tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    train(command(base, tmp_path / "run"))
    shutil.rmtree(base)
    assert train(command(base, tmp_path / "run", "trainer.max_steps=6")).steps == 6
    assert load(str(tmp_path / "run")).text.embed(["60"]).shape == (1, 77, TEXT_SIZE)


def test_adapters_know_the_weights_they_were_trained_on(tiny: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    stored = checkpoint.read(runs["lora"])
    assert stored["instruct_pix2pix"]["base"] == pretrained.digest(tiny)
    other = build_tiny(tmp_path / "other", seed=1)
    config = json.loads(stored["facegen"]["config"])
    config["model"]["pretrained"] = str(other)
    stored["facegen"]["config"] = json.dumps(config)
    checkpoint.write(stored, tmp_path / "moved.ckpt")
    with pytest.raises(UserError, match=r"^model.pretrained=.* holds other weights \(\w+\) than these adapters were trained on \(\w+\)"):
        load(str(tmp_path / "moved.ckpt"))


def test_adapters_whose_base_is_gone_say_where_it_was(tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    train(command(base, tmp_path / "run", *LORA, "trainer.max_steps=1"))
    base.rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"holds adapters of the Stable Diffusion at .*base, which cannot be read there \(.*\); put it back$"
    ):
        load(str(tmp_path / "run"))
    assert train(command(tmp_path / "moved", tmp_path / "run", *LORA, "trainer.max_steps=2")).steps == 2


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize(("guidance", "image_guidance"), [(7.5, 1.5), (3.0, 1.0)])
def test_diffusers_pipeline_makes_the_same_edit_of_the_exported_folder(
    runs: dict[str, Path], kind: str, guidance: float, image_guidance: float, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionInstructPix2PixPipeline

    folder = export(runs[kind], tmp_path / "out")
    pipeline: Any = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    loaded, draw = load(str(runs[kind])), torch.Generator().manual_seed(0)
    image, noise = torch.rand(1, 3, 32, 32, generator=draw), torch.randn(1, 4, 16, 16, generator=draw)
    words, negative = "make this female look 70-120 years old", "ugly"
    assert loaded.encode_source is not None
    with torch.no_grad():
        source, nothing = loaded.encode_source(image * 2 - 1), loaded.text.embed([negative])[0]
        told = Told(loaded.text.embed([words])[:, None], torch.ones(1, 1), source, nothing)
        guided = Guided(loaded.denoiser, told, Guidance(weight=guidance, image_weight=image_guidance), torch.zeros(0))
        ours = loaded.codec.decode(DDIM(4)(guided, noise.clone()))
        how = {"guidance_scale": guidance, "image_guidance_scale": image_guidance, "num_inference_steps": 4, "output_type": "pt"}
        theirs = pipeline([words], image=image, negative_prompt=[negative], latents=noise.clone(), **how).images
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, atol=1e-4, rtol=0)


def test_an_export_is_refused_where_something_lies_or_the_model_is_another(runs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "full.txt").write_text("mine")
    assert main([str(runs["full"]), str(tmp_path)]) == 2
    assert "is there already; give a folder that is new or empty" in capsys.readouterr().err
    assert (tmp_path / "full.txt").read_text() == "mine"


def test_the_prompts_of_a_batch_are_those_of_its_labels(runs: dict[str, Path]) -> None:
    loaded = load(str(runs["full"]))
    names = ["Male", "0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70-120"]
    labels = torch.zeros(3, len(names))
    labels[0, [0, 9]], labels[1, 2] = 1, 1
    assert loaded.asked is not None
    told = loaded.asked({"condition": labels})
    assert torch.equal(told[:2], loaded.text.embed(["make this male look 50-69 years old", "make this female look 3-6 years old"]))
    assert told[2].isnan().all(), "where no age is known nothing is said"


def test_a_checkpoint_may_not_name_classes_in_its_architecture(runs: dict[str, Path], tmp_path: Path) -> None:
    stored = checkpoint.read(runs["full"])
    config = json.loads(stored["facegen"]["config"])
    config["model"]["network"]["architecture"]["_target_"] = "os.system"
    stored["facegen"]["config"] = json.dumps(config)
    checkpoint.write(stored, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"is not a class of facegen: refused"):
        load(str(tmp_path / "evil.ckpt"))


STABLE_DIFFUSION_1 = {  # the sizes of the published UNet, from its config.json
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}


def test_a_checkpoint_of_adapters_is_under_two_hundredths_of_a_whole_one() -> None:
    with torch.device("meta"):  # sizes alone
        full, lora = (StableUNet(architecture=STABLE_DIFFUSION_1, lora=rank) for rank in (None, 16))
    sizes = {name: p.numel() for name, p in lora.named_parameters()}
    assert sum(p.numel() for p in full.parameters()) == pytest.approx(860e6, rel=0.01)
    assert sum(sizes[name] for name in lora.trained) < 0.02 * sum(p.numel() for p in full.parameters())


def test_an_optimizer_in_eight_bits_is_bitsandbytes_or_told_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    weight = torch.nn.Parameter(torch.zeros(1))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match=r"^optimizer.eight_bit=true needs the package bitsandbytes; type pip install"):
        Adam(eight_bit=True).build([weight])
    made = SimpleNamespace(Adam8bit=lambda p, **options: ("adam", options["lr"]), AdamW8bit=lambda p, **options: ("adamw", options["lr"]))
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=made))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", made)
    assert Adam(lr=1e-3, eight_bit=True).build([weight]) == ("adam", 1e-3)
    assert Adam(lr=1e-3, weight_decay=0.1, eight_bit=True).build([weight]) == ("adamw", 1e-3)


def test_gradient_checkpointing_and_bf16_train_too(tiny: Path, tmp_path: Path) -> None:
    options = ("model.network.gradient_checkpointing=true", "trainer.precision=bf16", "trainer.max_steps=2")
    assert train(command(tiny, tmp_path / "run", *options)).steps == 2


def test_what_a_built_model_is_made_of_is_frozen_beside_its_unet(tiny: Path, tmp_path: Path) -> None:
    config = resolve(command(tiny, tmp_path / "run"))
    facts = {"condition_names": ["Male", "3-6"], "condition_groups": {"age": ["3-6"]}, "condition_examples": [[0, 1]]}
    model = build(config["model"], **facts)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"denoiser"}
    assert not any(p.requires_grad for p in model.text.model.parameters())
    assert not any(p.requires_grad for p in model.codec.network.parameters())
