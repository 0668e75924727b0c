"""What a model that edits learns from: every kind of source loses what it says and nothing else, and depends on its image alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from runs import configure

from facegen import edits
from facegen.data.cartoon import age_groups, parameters, with_age
from facegen.data.edit_source import GREY, EditSource
from facegen.data.faces import Cartoon
from facegen.errors import UserError
from facegen.experiment import build, resolve
from facegen.regions import CARTOON, FFHQ, UTKFACE, inside, regions

NUMBERS = np.arange(4)


def cartoon(**options: object) -> Cartoon:
    data = Cartoon(resolution=32, channels=3, seed=0, held_out=8, batch_size=8, **{"size": 64, **options})  # pyright: ignore
    data.prepare()
    return data


def opened() -> np.ndarray:
    data = cartoon()
    return data.pixels(NUMBERS)


@pytest.mark.parametrize("kind", ["noised", "lowpass", "masked", "self"])
def test_a_source_depends_on_its_image_and_number_and_not_on_the_batch(kind: str) -> None:
    images, source = opened(), EditSource(kind)
    together = source(images, NUMBERS)
    assert together.dtype == np.uint8
    assert together.shape == images.shape
    for i in NUMBERS:
        assert np.array_equal(source(images[i : i + 1], NUMBERS[i : i + 1])[0], together[i])


def test_noise_has_the_strength_that_was_asked_for() -> None:
    images = np.full((8, 3, 64, 64), 127, np.uint8)  # in the middle, where hardly anything is clipped
    for noise in (0.1, 0.25):
        made = EditSource("noised", noise=noise)(images, np.arange(8))
        assert (made.astype(float) / 127.5).std() == pytest.approx(noise, rel=0.02)


def test_a_lowpass_keeps_the_mean_of_every_patch_and_loses_what_is_finer() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    made = EditSource("lowpass", size=8)(images, NUMBERS[:2]).astype(float)
    assert made.std() < 0.5 * images.std()
    flat = np.full((1, 3, 32, 32), 90, np.uint8)
    assert np.array_equal(EditSource("lowpass")(flat, NUMBERS[:1]), flat)


def test_a_mask_covers_the_face_box_and_nothing_else() -> None:
    images, source = opened(), EditSource("masked", face=CARTOON.face)
    made = source(images, NUMBERS)
    covered = np.zeros((32, 32), bool)
    covered[inside(CARTOON.face, 32)] = True
    assert (made[:, :, covered] == GREY).all()
    assert np.array_equal(made[:, :, ~covered], images[:, :, ~covered])


def test_self_is_the_image_and_a_copy_of_it() -> None:
    images = opened()
    made = EditSource("self")(images, NUMBERS)
    assert np.array_equal(made, images)
    assert not np.shares_memory(made, images)


def test_a_pair_is_the_same_person_at_another_age_of_any_group_equally_often() -> None:
    data = cartoon(source="paired")
    numbers = np.arange(40)
    found = data.aged(numbers, parameters(0, numbers).age)
    assert found is not None
    assert np.array_equal(found[0], data.pixels(numbers)), "at their own age people look as they do"
    assert np.array_equal(found[1], data.conditions(numbers))
    assert not np.array_equal(data.sources(numbers), data.pixels(numbers))
    people = parameters(0, numbers)
    older = with_age(people, np.full(40, 80))
    assert (age_groups(older) == 9).all()
    assert np.array_equal(older.skin, people.skin)


def test_a_batch_shows_the_source_of_each_image_mirrored_with_it() -> None:
    data = cartoon(source="paired", flip=True)
    batch = next(iter(data.train_dataloader()))
    plain = data.sources(batch["index"].numpy())
    images = data.pixels(batch["index"].numpy())
    for made, source, shown, image in zip(batch["source"].numpy(), plain, batch["image"].numpy(), images, strict=True):
        turned = not np.array_equal(shown, image)
        assert np.array_equal(made, source[:, :, ::-1] if turned else source)


def test_without_a_source_a_batch_has_none() -> None:
    batch = next(iter(cartoon(source="none").train_dataloader()))
    assert "source" not in batch


def test_the_data_says_where_its_faces_are() -> None:
    assert regions({"_target_": "facegen.data.faces.UTKFace"}) == UTKFACE
    assert regions({"_target_": "facegen.data.faces.FFHQAging"}) == FFHQ
    assert regions({"_target_": "facegen.data.faces.Folder"}) == FFHQ
    crop = regions({"_target_": "facegen.data.faces.CelebA", "crop": "center178"})
    assert crop.face[0] == pytest.approx(40 / 178)


def test_a_box_covers_at_least_a_pixel_and_none_outside() -> None:
    rows, columns = inside((-0.5, -1, 2, 3), 8)
    assert (rows, columns) == (slice(0, 8), slice(0, 8))
    rows, columns = inside((0.5, 0.5, 0.5, 0.5), 8)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=ffhq_aging", "data.root=x", "data.source=paired"], r"^data.source must be one of noised, lowpass, masked, self, none"),
        (["data=cartoon", "data.source=blurred"], r"^data.source must be one of .*paired.*; got 'blurred'"),
        (["data=mnist", "data.root=x"], r"^data=mnist has no ages to edit; type data=ffhq_aging, utkface64 or cartoon$"),
    ],
)
def test_a_source_that_cannot_be_is_told(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(resolve(configure("train", "model=pix2pix", *arguments))["data"])


def test_a_lowpass_that_takes_nothing_away_is_told() -> None:
    with pytest.raises(UserError, match=r"^data.source_size must be less than data.resolution=32; got 32; type data.source_size=8$"):
        cartoon(source="lowpass", source_size=32)


@pytest.mark.parametrize(("data", "source"), [("cartoon", "paired"), ("ffhq_aging", "lowpass"), ("utkface64", "lowpass")])
def test_a_model_that_edits_has_a_source_and_is_told_gender_and_age_without_being_asked(data: str, source: str) -> None:
    config: Any = OmegaConf.to_container(configure("train", "model=pix2pix", f"data={data}"), resolve=True)
    found = edits.settled(config)["data"]
    assert (found["source"], found["attributes"]) == (source, ["Male", "age"])


def test_a_source_is_refused_for_what_does_not_edit() -> None:
    with pytest.raises(UserError, match=r"^data.source=masked is of models that edit; leave it out, or type model=pix2pix$"):
        resolve(configure("train", "data=cartoon", "data.source=masked"))
    with pytest.raises(UserError, match=r"^model.network.edits=true is of models that edit"):
        resolve(configure("train", "data=cartoon", "model/network=unet_1m", "+model.network.edits=true"))


def test_data_is_balanced_by_gender_and_age_together() -> None:
    data = cartoon(attributes=["Male", "age"], balance=["Male", "age"], size=600)
    shown = data.conditions(data._shown)
    assert shown is not None
    male, ages = shown[:, 0], shown[:, 1:]
    counts = torch.tensor([[((male == m) & (ages[:, g] == 1)).sum() for g in range(ages.shape[1])] for m in (0, 1)])
    assert (counts == counts[0, 0]).all()
