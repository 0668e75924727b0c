"""What is decoded in tiles is what is decoded whole, wherever no tile's edge is seen, and takes the memory of one tile."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from runs import configure
from stand_in import Run, job, studio
from test_codecs import Halves
from torch import Tensor, nn
from torch.nn.functional import interpolate

from facegen import candidates, codecs
from facegen.codecs import Latents, Pixels
from facegen.errors import UserError
from facegen.experiment import build, sample
from facegen.images import read_png, read_provenance, save_grid
from facegen.metrics.protocol import digest
from facegen.request import Request, request_of
from facegen.studio import in_tiles
from facegen.tiling import decode_tiled, fades, starts

SIZES = [(8, 8, 1), (9, 8, 2), (23, 10, 3), (40, 32, 2), (64, 16, 1), (33, 32, 4), (100, 13, 2)]


def nearest(z: Tensor, factor: int) -> Tensor:
    return interpolate(z, scale_factor=factor, mode="nearest")


class Convolutions(nn.Module):
    """A decoder that sees `reach` pixels of the image around each, and zeros beyond the edge of what it is given."""

    reach = 2 + 2  # a latent pixel to either side, which is two of the image, and two convolutions at full size

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        return self.third(torch.tanh(self.second(nearest(torch.tanh(self.first(z)), 2))))


@pytest.mark.parametrize(("size", "tile", "factor"), SIZES)
@pytest.mark.parametrize("other", [5, 8, 37])
def test_a_decoder_that_sees_single_pixels_gives_the_same_in_tiles(size: int, tile: int, factor: int, other: int) -> None:
    z = 3 * torch.randn(2, 2, size, other, generator=torch.Generator().manual_seed(size))
    for latents in (z, z.mT):
        tiled = decode_tiled(lambda part: nearest(part, factor), latents, tile, factor)
        torch.testing.assert_close(tiled, nearest(latents, factor), rtol=1e-6, atol=1e-6)


def test_latents_no_larger_than_a_tile_are_decoded_whole_and_together_bit_for_bit() -> None:
    decoder, z, seen = Convolutions(), torch.randn(3, 2, 16, 12), []
    tiled = decode_tiled(lambda part: (seen.append(part), decoder(part))[1], z, 16, 2)
    assert torch.equal(tiled, decoder(z))
    assert len(seen) == 1
    assert seen[0] is z


def test_the_decoder_never_sees_more_than_one_tile() -> None:
    decoder, z, seen = Convolutions(), torch.randn(3, 2, 40, 20), []
    decode_tiled(lambda part: (seen.append(tuple(part.shape)), decoder(part))[1], z, 16, 2)
    assert set(seen) == {(1, 2, 16, 16)}
    decode_tiled(lambda part: (seen.append(tuple(part.shape)), decoder(part))[1], z[:, :, :12], 16, 2)
    assert set(seen) == {(1, 2, 16, 16), (1, 2, 12, 16)}


def in_reach(size: int, tile: int, factor: int, reach: int) -> Tensor:
    """Which pixels along a side are within `reach` of an edge of a tile that covers them, where the image goes on."""
    touched = torch.zeros(size * factor, dtype=torch.bool)
    for start in starts(size, tile):
        begin, end = start * factor, (start + tile) * factor
        if start > 0:
            touched[begin : begin + reach] = True
        if start + tile < size:
            touched[end - reach : end] = True
    return touched


@pytest.mark.parametrize(("size", "tile"), [(40, 16), (64, 16), (50, 20), (26, 16)])
def test_a_convolutional_decoder_agrees_wherever_it_sees_no_edge_of_a_tile(size: int, tile: int) -> None:
    decoder, z = Convolutions(), torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(1))
    apart = (decode_tiled(decoder, z, tile, 2) - decoder(z)).abs().amax(dim=(0, 1))
    touched = in_reach(size, tile, 2, decoder.reach)
    seen = touched[:, None] | touched
    assert 0.1 < seen.float().mean() < 0.8
    assert apart[~seen].max() < 1e-5
    assert apart[seen].max() > 1e-3  # the edges do matter to this decoder


def test_one_tile_fades_into_the_next_in_a_straight_line() -> None:
    answers = itertools.count()
    tiled = decode_tiled(lambda part: torch.full((1, 1, 32, 32), float(next(answers))), torch.zeros(1, 1, 16, 28), 16, 2)
    row = tiled[0, 0, 0]
    shared = 2 * 4
    assert torch.equal(row[:24], torch.zeros(24))
    torch.testing.assert_close(row[24:32], (torch.arange(shared) + 0.5) / shared)
    assert torch.equal(row[32:], torch.ones(24))
    torch.testing.assert_close(tiled, row.expand(1, 1, 32, 56))


def test_tiles_reach_from_end_to_end_and_share_a_quarter_or_more() -> None:
    for size, tile in itertools.product(range(1, 130, 3), range(8, 40)):
        found = starts(size, tile)
        assert (found[0], found[-1]) == (0, max(0, size - tile))
        assert all(0 < b - a <= tile - tile / 4 for a, b in itertools.pairwise(found))
        total = torch.zeros(size * 2, dtype=torch.float64)
        for start, weights in zip(found, fades(size, tile, 2), strict=True):
            assert (weights > 0).all()
            total[2 * start : 2 * start + len(weights)] += weights
        torch.testing.assert_close(total, torch.ones_like(total))


def latents(tile: int | None = None) -> Latents:
    """Latents of 32 x 32 of images of 64 px, by an autoencoder that sees four pixels at a time."""
    codec = Latents(Halves(), resolution=64)
    codec.standardize(torch.tensor([1.0]), torch.tensor([6.0]))
    codec.tile = tile
    return codec


def test_a_codec_in_tiles_is_the_same_codec() -> None:
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(latents(8).decode(x), latents().decode(x))
    assert (latents(8).fingerprint(), latents(8).state().keys()) == (latents().fingerprint(), latents().state().keys())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The tile of each decoding, and how many latents are decoded by it."""
    calls: list[tuple[int, int]] = []

    def counted(decode: Any, z: Tensor, tile: int, factor: int) -> Tensor:
        calls.append((tile, len(z)))
        return decode_tiled(decode, z, tile, factor)

    monkeypatch.setattr(codecs, "decode_tiled", counted)
    return calls


def test_pictures_are_drawn_in_tiles_and_say_so(tmp_path: Path, seen: list[tuple[int, int]]) -> None:
    run = Run(tmp_path / "run", codec=latents())
    whole = job(run, "sheet", n=3)
    assert seen == []
    tiled = job(run, "sheet", n=3, tile=8)
    assert ({tile for tile, _ in seen}, whole.out == tiled.out) == ({8}, False)
    for name in ("000000.png", "000002.png", "sheet.png"):
        assert "tile" not in read_provenance(whole.out / name)
        assert read_provenance(tiled.out / name)["tile"] == "8"
        assert abs(read_png(whole.out / name).astype(int) - read_png(tiled.out / name)).max() <= 1
    assert job(run, "sheet", n=3).out == whole.out


@pytest.mark.parametrize("figure", ["denoise", "interpolate", "stages", "steps", "first", "latents"])
def test_every_figure_is_drawn_in_tiles(figure: str, tmp_path: Path, seen: list[tuple[int, int]]) -> None:
    run = Run(tmp_path / "run", codec=latents())
    run.provenance["ema"] = "raw"
    options = {"steps_shown": [2]} if figure == "steps" else {}
    (path, *_) = job(run, figure, n=2, tile=8, **options).figures
    assert read_provenance(path)["tile"] == "8"
    assert {tile for tile, _ in seen} == {8}


def test_what_is_drawn_in_tiles_and_what_is_not_are_never_mixed(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", codec=latents())
    for first, second, told in ((8, None, "8 there, not told now"), (None, 8, "not told there, 8 now"), (8, 16, "8 there, 16 now")):
        out = str(tmp_path / f"{first}-{second}")
        job(run, "sheet", n=2, out=out, tile=first)
        with pytest.raises(UserError, match=rf"drawn otherwise \(00000[01].png, tile: {told}\)"):
            job(run, "sheet", n=2, out=out, tile=second)
        assert job(run, "sheet", n=3, out=out, tile=first).drawn == 1


def test_another_checkpoint_of_the_run_is_drawn_in_tiles_too(tmp_path: Path) -> None:
    run, other = Run(tmp_path / "run", codec=latents()), Run(tmp_path / "run", codec=latents())
    run.reload = lambda path: other
    in_tiles(run, 8)
    at = studio(run).at(run.path)
    assert (at.loaded.codec.tile, at.facts["tile"]) == (8, "8")


def test_stages_in_tiles_are_not_the_previews_of_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", codec=latents())
    save_grid(torch.zeros(2, 1, 64, 64, dtype=torch.uint8), run.run_dir / "previews" / "step-00000002.png", {"seeds": "0..1"})
    previews, drawn = (read_provenance(job(run, "stages", n=2, tile=tile).figures[0]) for tile in (None, 8))
    assert previews["drawn"] == "by the run, as its previews"
    assert "drawn" not in drawn


def test_pixels_have_no_tiles(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"^tile=8 is of models that work in latents, .*\.ckpt works in pixels; leave tile out$"):
        job(run, "sheet", n=1, tile=8)
    assert [path.name for path in run.run_dir.iterdir()] == ["checkpoints"]


def asked(*overrides: str) -> Request:
    return request_of(OmegaConf.to_container(configure("evaluate", "metrics=[is]", *overrides), resolve=True))


def measured(run: Run, *overrides: str) -> candidates.Candidate:
    return candidates.drawn(run, asked("ckpt=run", "device=cpu", *overrides), lambda *_: run, build)


@pytest.fixture
def loaded(tmp_path: Path) -> Run:
    """A model in latents, as evaluate.py sees it."""
    run = Run(tmp_path / "run", codec=latents())
    run.provenance |= {"ema": "raw", "data": "0123"}
    run.config |= {"sampler": {"_target_": "facegen.diffusion.sampler.DDIM", "steps": 2}}
    return run


def test_an_evaluation_says_the_tile_where_there_is_one_and_else_what_it_always_said(loaded: Run, seen: list[tuple[int, int]]) -> None:
    whole, tiled = (measured(loaded, *options) for options in ((), ("tile=8",)))
    assert {key: value for key, value in tiled.generated.items() if key not in whole.generated} == {"tile": 8}
    assert digest(whole.generated) != digest(tiled.generated)
    assert not {"tile"} & {*whole.generated, *whole.subject}
    assert tiled.source.identity["tile"] == "8"
    (images,) = tiled.source.batches([0, 1], 0)
    assert images.shape == (2, 1, 64, 64)
    assert {tile for tile, _ in seen} == {8}
    assert "tile" not in measured(loaded).source.identity
    assert loaded.codec.tile is None


def test_an_evaluation_of_pixels_or_of_a_folder_has_no_tiles(loaded: Run) -> None:
    loaded.codec = Pixels(8, 3)
    with pytest.raises(UserError, match="works in pixels; leave tile out"):
        measured(loaded, "tile=8")
    with pytest.raises(UserError, match=r"^tile is of models that draw, fake=a is a folder; leave tile out$"):
        asked("fake=a", "real=b", "tile=8")


def test_a_tile_too_small_is_refused_before_anything_is_read() -> None:
    for ask in (asked, lambda *words: sample(configure("sample", *words))):
        with pytest.raises(UserError, match=r"tile must be greater than or equal to 8; got 7"):
            ask("ckpt=nowhere", "tile=7")


def test_what_is_asked_otherwise_is_still_drawn_in_tiles(loaded: Run) -> None:
    in_tiles(loaded, 8)
    assert studio(loaded).but(guidance_rescale=0.5).facts["tile"] == "8"
