"""`sample.py figure=reconstruct`: the same held-out images by an autoencoder and by the latent model that carries it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import configure, tiny
from test_two_stages import two_stages

from facegen.errors import UserError
from facegen.experiment import sample, train
from facegen.images import read_png, read_provenance


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both stages of a latent model in run/, and a model in pixels in pixels/."""
    home = tmp_path_factory.mktemp("reconstructing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEGEN_CACHE", str(home / "cache"))
        train(two_stages(home / "run", "trainer.max_steps=2"))
    train(tiny(home / "pixels", "trainer.max_steps=2"))
    return home


def drawn(ckpt: Path, *options: str) -> Path:
    (path,) = sample(configure("sample", f"ckpt={ckpt}", "figure=reconstruct", "n=4", *options)).figures
    return path


def test_a_latent_model_reconstructs_as_its_autoencoder_does(home: Path) -> None:
    first, second = drawn(home / "run" / "autoencoder"), drawn(home / "run")
    assert first.parent.parent == home / "run" / "autoencoder" / "samples"
    assert np.array_equal(read_png(first), read_png(second))
    assert read_provenance(second)["images"] == "held_out 0..3"
    assert (read_provenance(first)["family"], read_provenance(second)["family"]) == ("autoencoder", "ldm")


def test_other_data_can_be_shown(home: Path, tmp_path: Path) -> None:
    other = drawn(home / "run", "data.held_out=2", f"out={tmp_path}")
    assert other.parent == tmp_path
    assert read_provenance(other)["images"] == "held_out 0..1"


def test_what_works_in_pixels_keeps_all_of_an_image(home: Path) -> None:
    with pytest.raises(UserError, match=r"figure=reconstruct shows what an autoencoder keeps, .* works in pixels; give a checkpoint of"):
        drawn(home / "pixels")


def test_an_autoencoder_that_is_asked_to_draw_says_what_it_can_do(home: Path) -> None:
    with pytest.raises(UserError, match=r"of model=autoencoder, which draws nothing; type figure=reconstruct, or sample one of a model"):
        sample(configure("sample", f"ckpt={home / 'run' / 'autoencoder'}"))


def test_data_is_of_this_figure_alone(home: Path) -> None:
    with pytest.raises(UserError, match=r"data is of figure=reconstruct, which shows images of it; leave data out"):
        sample(configure("sample", f"ckpt={home / 'run'}", "data.root=x"))


def test_images_of_another_size_are_refused(home: Path) -> None:
    with pytest.raises(UserError, match=r"reconstructs images of \(3, 16, 16\), the ones given are \(3, 32, 32\)"):
        drawn(home / "run", "data.resolution=32")


@pytest.mark.parametrize("option", ["tile=8", "seed=3", "guidance=2", "sampler=ddim", "condition=Teal", "group=age"])
def test_options_of_drawing_are_told_to_have_no_use(home: Path, option: str) -> None:
    with pytest.raises(UserError, match=rf"{option.partition('=')[0]} is of images that are drawn, figure=reconstruct draws none"):
        drawn(home / "run", option)
