"""The order of the samples is a function of the seed and the position, whoever asks."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from facegen.data.drawn import DrawnImages, open_drawn
from facegen.data.loading import Batches, HeldOut, Pick, Stream, loader, permutation

NUMBERS = np.arange(100, 123)  # 23 images with numbers of their own


class Ramp:
    """Image i is filled with i, but for its first column, which is black."""

    block = 1

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        images = np.broadcast_to(indices.astype(np.uint8)[:, None, None, None], (len(indices), 3, 4, 4)).copy()
        images[..., 0] = 0
        return images, None


def stream(batch_size: int = 6, seed: int = 0, block: int = 1, rank: int = 0, world: int = 1, start: int = 0) -> Stream:
    return Stream(NUMBERS, batch_size, seed, block, rank, world, start)


def order(picks: Stream, batches: int) -> list[int]:
    return np.concatenate([pick.indices for pick in islice(picks, batches)]).tolist()


@pytest.mark.parametrize("block", [1, 4])
def test_an_epoch_has_every_image_once_though_batches_span_epochs(block):
    samples = order(stream(block=block), 23)  # 6 epochs of 23 in batches of 6
    epochs = [samples[i : i + 23] for i in range(0, len(samples), 23)]
    assert all(sorted(epoch) == NUMBERS.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_another_seed_is_another_order():
    assert order(stream(seed=1), 4) != order(stream(seed=0), 4)


def test_the_order_does_not_depend_on_the_batch_size():
    assert order(stream(batch_size=3), 20) == order(stream(batch_size=6), 10)


def test_a_stream_started_anywhere_continues_the_same_order():
    whole = list(islice(stream(), 12))
    for start in (1, 3, 4, 11):
        first = next(iter(stream(start=start)))
        assert first.position == start
        assert np.array_equal(first.indices, whole[start].indices)
        assert np.array_equal(first.numbers, whole[start].numbers)


@pytest.mark.parametrize("world", [2, 3, 6])
def test_ranks_share_the_batch_of_one_device(world):
    ranks = [islice(stream(rank=rank, world=world), 8) for rank in range(world)]
    for whole, *parts in zip(islice(stream(), 8), *ranks, strict=True):
        assert np.array_equal(np.concatenate([part.indices for part in parts]), whole.indices)
        assert {part.position for part in parts} == {whole.position}
        assert len({len(part.indices) for part in parts}) == 1


def test_blocks_stay_together():
    blocks = permutation(64, 0, 0, 8).reshape(8, 8) // 8
    assert (blocks == blocks[:, :1]).all()
    assert sorted(blocks[:, 0]) != blocks[:, 0].tolist()


def test_the_shuffle_is_uniform():
    places = np.stack([permutation(5, 0, epoch) for epoch in range(4000)])
    frequency = np.stack([(places == image).mean(axis=0) for image in range(5)])
    assert frequency == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(num_workers):
    batches = Batches(Ramp(), seed=3, flip=True)
    loaded = list(islice(loader(batches, stream(), num_workers), 9))
    for position, (batch, pick) in enumerate(zip(loaded, stream(), strict=False)):
        expected = batches[pick]
        assert batch["position"] == position
        assert torch.equal(batch["index"], torch.from_numpy(pick.indices))
        assert torch.equal(batch["image"], expected["image"])


def test_half_of_the_samples_are_mirrored_by_number_and_none_held_out():
    batches = Batches(Ramp(), seed=0, flip=True)
    indices, numbers = np.full(2000, 7), np.arange(2000)
    images = batches[Pick(indices, numbers, 0)]["image"]
    mirrored = images[:, 0, 0, 0] == 7
    assert torch.equal(images[mirrored], images[~mirrored][:1].flip(-1).expand(int(mirrored.sum()), -1, -1, -1))
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)
    shuffled = numbers[::-7]
    again = batches[Pick(indices[shuffled], shuffled, 5)]["image"]
    assert torch.equal(again, images[shuffled.copy()])
    other = Batches(Ramp(), seed=1, flip=True)[Pick(indices, numbers, 0)]["image"]
    assert not torch.equal(other, images)
    assert (batches[Pick(indices)]["image"][..., 0] == 0).all()


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 11, 12, 23])
@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_held_out_images_come_once_in_equally_many_batches_of_every_rank(count, world):
    ranks = [list(HeldOut(NUMBERS[:count], 6, rank, world)) for rank in range(world)]
    assert len({len(picks) for picks in ranks}) == 1
    parts = [pick.indices for batch in zip(*ranks, strict=True) for pick in batch]
    assert all(len(part) for part in parts)
    if count >= world:
        assert np.concatenate([*parts, []]).tolist() == NUMBERS[:count].tolist()


def test_drawn_faces_do_not_depend_on_who_is_drawn_with_them():
    indices = np.array([70, 3, 5, 64, 3])
    images, conditions = DrawnImages(16, 3).read(indices)
    for place, index in enumerate(indices):
        alone, labels = DrawnImages(16, 3).read(np.array([index]))
        assert np.array_equal(alone[0], images[place])
        assert np.array_equal(labels[0], conditions[place])
    assert images.shape == (5, 3, 16, 16)
    assert conditions.shape == (5, len(DrawnImages.condition_names))
    assert not np.array_equal(images[0], images[1])


def test_grey_faces_are_the_luma_of_coloured_ones():
    colour, grey = (DrawnImages(16, channels).read(np.arange(4))[0].astype(float) for channels in (3, 1))
    assert np.abs((colour * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdims=True) - grey).max() <= 0.501


def test_drawn_training_and_held_out_faces_are_different_people():
    source, train, held_out = open_drawn(16, 3, 40, 10)
    assert not {image.tobytes() for image in source.read(train)[0]} & {image.tobytes() for image in source.read(held_out)[0]}


def test_the_fingerprint_of_drawn_faces_tells_resolution_and_colour():
    assert DrawnImages(16, 3).fingerprint == DrawnImages(16, 3).fingerprint
    assert len({DrawnImages(*picture).fingerprint for picture in ((16, 3), (16, 1), (17, 3))}) == 3
