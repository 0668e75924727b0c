"""The data modules: the batch that models are given, where training continues, and what a user can mend."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import layouts
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from facegen.data.faces import FFHQ, Cartoon, CelebA, Ethnicity, FaceData, FFHQAging, Folder, UTKFace
from facegen.errors import UserError


def cartoon(**options) -> Cartoon:
    return Cartoon(**{"resolution": 8, "channels": 3, "batch_size": 4, "seed": 0, "size": 22, "held_out": 6, **options})


def folder(tmp_path, count: int = 20, **options) -> Folder:
    given = {"resolution": 8, "channels": 3, "crop": "center", "batch_size": 4, "seed": 0, "cache_dir": str(tmp_path / "cache")}
    root = tmp_path / "data"
    return Folder(root=str(root if root.exists() else layouts.folder(root, count)), **{**given, **options})


def first(data: FaceData, count: int) -> list[dict]:
    return [data.on_after_batch_transfer(batch, 0) for batch in islice(data.train_dataloader(), count)]


def same(a: list[dict], b: list[dict]) -> bool:
    return all(x["position"] == y["position"] and torch.equal(x["image"], y["image"]) for x, y in zip(a, b, strict=True))


class Watcher(LightningModule):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_batches, self.val_indices = [], []

    def training_step(self, batch, batch_idx):
        self.train_batches.append((batch["position"], batch["index"].tolist(), batch["image"].dtype, batch["image"].abs().max()))
        return self.weight * batch["image"].mean()

    def validation_step(self, batch, batch_idx):
        self.val_indices += batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: FaceData, steps: int, **options) -> tuple[Watcher, Trainer]:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "barebones": False}
    watcher = Watcher()
    trainer = Trainer(max_steps=steps, enable_checkpointing=False, val_check_interval=3, check_val_every_n_epoch=None, **quiet)
    trainer.fit(watcher, data, **options)
    return watcher, trainer


def test_a_batch_is_what_the_contract_says(tmp_path):
    data = folder(tmp_path)
    (batch,) = first(data, 1)
    assert sorted(batch) == ["image", "index", "position"]
    assert batch["image"].shape == (4, 3, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert batch["image"].abs().max() <= 1
    assert (batch["index"].dtype, batch["position"]) == (torch.int64, 0)
    (drawn,) = first(cartoon(channels=1), 1)
    assert drawn["image"].shape == (4, 1, 8, 8)
    assert drawn["condition"].dtype == torch.float32
    assert set(drawn["condition"].unique().tolist()) == {0.0, 1.0}


def test_facts_are_plain_and_hold_no_path(tmp_path):
    data = folder(tmp_path)
    data.prepare()
    facts = data.facts()
    assert str(tmp_path) not in repr(facts)
    assert "LANCZOS" in facts["filter"]
    assert facts["num_train"] + facts["num_val"] == 20
    assert (facts["name"], facts["crop"], facts["fingerprint"], facts["condition_names"]) == ("Folder", "center", data.fingerprint, [])
    assert facts["condition_groups"] == {}


def test_every_data_set_has_its_module(tmp_path):
    common = {"channels": 3, "batch_size": 2, "seed": 0, "cache_dir": str(tmp_path / "cache")}
    celeba = CelebA(root=str(layouts.celeba(tmp_path / "celeba", 10)), resolution=16, crop="d2c", **common)
    for number in range(6):
        layouts.save(tmp_path / "ffhq" / f"{59_997 + number}.png", number, (16, 16))
        layouts.save(tmp_path / "utkface" / f"{number}_1_3_0.jpg.chip.jpg", number, (16, 16))
    ffhq = FFHQ(root=str(tmp_path / "ffhq"), resolution=16, **common)
    people = {number: {"glasses": "Dark"} if number == 3 else {} for number in (0, 1, 2, 3, 60_000)}
    aging = FFHQAging(root=str(layouts.ffhq_aging(tmp_path / "aging", people)), resolution=16, **common)
    utkface = UTKFace(root=str(tmp_path / "utkface"), resolution=16, **common)
    sizes = {}
    for data in (celeba, ffhq, aging, utkface):
        (batch,) = first(data, 1)
        assert batch.get("condition", torch.empty(2, 0)).shape == (2, len(data.condition_names))
        sizes[type(data).__name__] = (data.num_train, data.num_val, len(data.condition_names))
    assert sizes.pop("UTKFace") == (6 - utkface.num_val, utkface.num_val, 16)
    assert sizes == {"CelebA": (8, 1, 40), "FFHQ": (3, 3, 0), "FFHQAging": (3, 1, 12)}


def test_training_counts_what_it_consumed_and_validation_does_not():
    data = cartoon()
    watcher, _ = fit(data, 5)
    assert [batch[0] for batch in watcher.train_batches] == [0, 1, 2, 3, 4]
    assert data.consumed == 5
    assert data.state_dict()["consumed"] == 5
    assert {batch[2] for batch in watcher.train_batches} == {torch.float32}
    assert set(watcher.val_indices) == set(range(22, 28))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_continues_from_a_checkpoint_where_it_stopped(tmp_path, num_workers):
    whole, _ = fit(cartoon(), 9)
    _, trainer = fit(cartoon(num_workers=num_workers), 4)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, _ = fit(cartoon(num_workers=num_workers), 9, ckpt_path=str(tmp_path / "stopped.ckpt"))
    assert resumed.train_batches == whole.train_batches[4:]


def test_the_position_alone_restores_the_stream(tmp_path):
    whole = first(folder(tmp_path), 9)
    stopped = folder(tmp_path)
    first(stopped, 4)
    resumed = folder(tmp_path)
    resumed.load_state_dict(stopped.state_dict())
    assert same(first(resumed, 5), whole[4:])


def test_other_data_or_another_batch_size_is_no_continuation(tmp_path):
    data = folder(tmp_path)
    data.prepare()
    state = data.state_dict()
    with pytest.raises(UserError, match="fingerprint"):
        folder(tmp_path, resolution=9).load_state_dict(state)
    with pytest.raises(UserError, match=r"data\.batch_size=5 was 4"):
        folder(tmp_path, batch_size=5).load_state_dict(state)


def test_ranks_see_the_global_batch_and_the_held_out_images_between_them(tmp_path):
    whole = first(folder(tmp_path, val_fraction=0.3), 6)
    parts, held_out = [], []
    for rank in range(2):
        data = folder(tmp_path, val_fraction=0.3)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        parts.append(first(data, 6))
        held_out += [index for batch in data.val_dataloader() for index in batch["index"].tolist()]
    for batch, left, right in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([left["image"], right["image"]]), batch["image"])
    alone = folder(tmp_path, val_fraction=0.3)
    assert held_out
    assert sorted(held_out) == [index for batch in alone.val_dataloader() for index in batch["index"].tolist()]


def test_held_out_images_are_not_mirrored_and_not_trained_on(tmp_path):
    data = folder(tmp_path, val_fraction=0.3)
    trained = {index for batch in first(data, 20) for index in batch["index"].tolist()}
    images = data._source.images
    for batch in data.val_dataloader():
        assert np.array_equal(batch["image"].numpy(), images[batch["index"].numpy()])
        assert "position" not in batch
        assert not trained & set(batch["index"].tolist())
    assert trained | {index for batch in data.val_dataloader() for index in batch["index"].tolist()} == set(range(20))


def test_nothing_held_out_is_nothing_to_validate(tmp_path):
    data = folder(tmp_path, val_fraction=0)
    data.prepare()
    assert (data.num_train, data.num_val, list(data.val_dataloader())) == (20, 0, [])


def test_fewer_images_than_a_batch_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"^data\.batch_size=64 is more than the 22 images.*type data\.batch_size=22 or less$"):
        cartoon(batch_size=64).prepare()


def test_a_batch_that_the_devices_cannot_share_is_a_user_error():
    data = cartoon(batch_size=4)
    data.trainer = SimpleNamespace(global_rank=0, world_size=3)
    with pytest.raises(UserError, match=r"^data\.batch_size=4 .*type data\.batch_size=6$"):
        data.train_dataloader()


FILES = {"root": None, "resolution": 8, "channels": 3, "batch_size": 4, "seed": 0}


@pytest.mark.parametrize("module", [CelebA, Ethnicity, FFHQ, FFHQAging, Folder, UTKFace])
def test_a_module_takes_the_crops_of_its_reader_and_no_others(module):
    for crop in module.reader.crops:
        assert module(**FILES, crop=crop).picture.crop == crop
    with pytest.raises(UserError, match=rf"^data\.crop must be one of {', '.join(module.reader.crops)}; got other"):
        module(**FILES, crop="other")


def test_bad_options_are_found_when_the_data_is_prepared(tmp_path):
    data = Folder(**FILES, crop="center")
    with pytest.raises(UserError, match=r"^data\.root is not given"):
        data.prepare()
