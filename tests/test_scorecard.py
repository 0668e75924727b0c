"""The scorecard of a conditional model: models that obey, are deaf, or leak are told by their numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from facegen.asked import Asked
from facegen.asking import Asker
from facegen.codecs import Pixels
from facegen.diffusion.sampler import Heun
from facegen.diffusion.schedule import EDM
from facegen.families.labels import Labels
from facegen.figures.scorecard import _heat_maps
from facegen.guiding import Direction
from facegen.metrics.frechet import frechet_distance
from facegen.metrics.probe import ProbeExtractor
from facegen.metrics.protocol import Number
from facegen.metrics.report import scorecard_tables, table
from facegen.metrics.sources import DataImages
from facegen.reference import Reference
from facegen.scorecard import Scorecard, unaskable, unlabelled
from facegen.studio import Studio

ATTRIBUTES, CLASSES = ["Male", "Goatee", "Smiling"], ["A", "B", "C"]
NAMES = [*ATTRIBUTES, *CLASSES]
LABELS = Labels(NAMES, {"kind": CLASSES})
SIDE, COUNT, FIRST = 4, 64, 5


class Obedient(torch.nn.Module):
    """Shows what it is told, a pixel for each column of the condition; grey where it is told nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.prediction = EDM(), None

    def shown(self, told: Tensor) -> Tensor:
        return told

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        image = torch.full((len(x_t), SIDE * SIDE), -1.0)
        image[:, : len(NAMES)] = 2 * self.shown(condition).nan_to_num(0.5) - 1
        return image.reshape(x_t.shape)


class Deaf(Obedient):
    """Shows the same whatever it is told."""

    def shown(self, told: Tensor) -> Tensor:
        return torch.zeros_like(told)


class Leaky(Obedient):
    """Whoever is told Male gets a goatee."""

    def shown(self, told: Tensor) -> Tensor:
        shown = told.clone()
        shown[:, 1] = torch.maximum(told[:, 0], told[:, 1])
        return shown


class Reader(ProbeExtractor):
    """Reads the pixels of `Obedient`, and says them as features too."""

    def __init__(self) -> None:
        self.names, self.groups = NAMES, {"kind": CLASSES}
        self.identity = {"name": "reader"}
        self.fingerprint, self.options = Photographs.fingerprint, dict(Photographs.options)

    def __call__(self, images: Tensor) -> dict[str, np.ndarray]:
        seen = images.flatten(1)[:, : len(NAMES)].numpy() / np.float32(255)
        logits = np.where(np.arange(len(NAMES)) < len(ATTRIBUTES), 80 * (seen - 0.5), np.log(seen + 1e-9))
        return {"features": seen.astype(np.float32), "logits": logits.astype(np.float32)}


class Photographs:
    """A data module whose images show their labels."""

    condition_names, condition_groups, flip = tuple(NAMES), {"kind": tuple(CLASSES)}, False
    resolution, channels, num_val = SIDE, 1, 60
    fingerprint = "of photographs"
    options: ClassVar[dict[str, Any]] = {"val_fraction": 0.2, "limit": None, "batch_size": 1}

    def __init__(self, num_val: int = 60) -> None:
        self.num_val = num_val
        rng = np.random.default_rng(0)
        attributes = rng.random((300, 3)) < [0.5, 0.03, 0.4]
        self.table = np.column_stack([attributes, np.eye(3)[rng.integers(0, 3, 300)]]).astype(np.float32)

    def numbers(self, split: str) -> np.ndarray:
        return {"train": np.arange(240), "held_out": np.arange(240, 240 + self.num_val)}[split]

    def conditions(self, numbers: np.ndarray) -> np.ndarray:
        return self.table[numbers]

    def pixels(self, numbers: np.ndarray) -> np.ndarray:
        images = np.zeros((len(numbers), SIDE * SIDE), np.uint8)
        images[:, : len(NAMES)] = 255 * self.table[numbers]
        return images.reshape(-1, 1, SIDE, SIDE)

    def facts(self) -> dict[str, Any]:
        return {**dict.fromkeys(("name", "resolution", "channels", "crop", "filter"), ""), "fingerprint": self.fingerprint}


@dataclass
class Trained:
    """What a studio looks at."""

    denoiser: Any
    path: Path
    labels: Labels | None = LABELS
    drop_condition: float = 0.1
    trained_on: str = "of photographs"

    @property
    def provenance(self) -> dict[str, str]:
        family = "class_conditional" if self.labels else "ddpm"
        return {"family": family, "model": type(self.denoiser).__name__, "data": self.trained_on}

    @property
    def config(self) -> dict[str, Any]:
        return {"model": {"drop_condition": self.drop_condition}}

    @cached_property
    def codec(self) -> Pixels:
        return Pixels(SIDE, 1)

    @property
    def examples(self) -> Tensor:
        return torch.from_numpy(Photographs().table[:240])


def scorecard(home: Path, model: Obedient, guidance: float = 1.0, batch_size: int = 64, data: Any = None, **options: Any) -> Scorecard:
    (home / "model.ckpt").write_bytes(b"weights")
    loaded: Any = Trained(model, home / "model.ckpt", **options)
    direction = Direction(Asker(loaded.labels, loaded.examples), asked=Asked(guidance=guidance)).but()
    data = data or Photographs()
    reference = Reference(home / "cache", DataImages(data, "train"), data, data.options)
    studio = Studio(loaded, Heun(8), batch_size, "cpu", direction)
    return Scorecard(studio, Reader(), reference, home / "cache", FIRST, COUNT)


@pytest.fixture(scope="module")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorecard, Number]:
    card = scorecard(tmp_path_factory.mktemp("obedient"), Obedient())
    return card, card.number()


def test_a_model_that_shows_what_it_is_told_has_every_number_at_its_best(obedient: tuple[Scorecard, Number]) -> None:
    _, number = obedient
    more = number.more
    assert (number.name, number.value, number.deviation) == ("condition@64", 1, None)
    assert (more["groups"], more["attributes"], more["probe"]["value"], more["probe"]["images"]) == (1, 1, 1, "held out")
    assert more["rare"]["Goatee"]["coverage"] == 1
    assert list(more["rare"]) == ["Goatee"]
    assert np.allclose(more["leakage"]["matrix"], np.eye(3, 6), atol=1e-6)
    assert more["leakage"]["mean_leak"] == pytest.approx(0, abs=1e-6)
    assert [point["hit_rate"] for point in more["guidance"]] == [1] * 5
    for way in ("embedding", "prediction"):
        assert more["blends"]["ways"][way] == {"spearman": pytest.approx(1), "pooled": pytest.approx(1)}
        assert [pair["ways"][way]["shares"] for pair in more["blends"]["pairs"]] == [pytest.approx(np.linspace(0, 1, 9), abs=0.01)] * 3
    shown_last = spearmanr(range(9), [0] + [1] * 8).statistic  # whoever takes turns shows whose turn is last
    assert more["blends"]["ways"]["switch"] == {"spearman": pytest.approx(shown_last), "pooled": pytest.approx(shown_last)}
    assert more["notes"] == []
    json.dumps(more)


def test_every_class_and_each_side_of_every_attribute_is_asked_for(obedient: tuple[Scorecard, Number]) -> None:
    hits = obedient[1].more["hits"]
    least = COUNT // (3 + 2 * 3)
    assert min(one["count"] for one in hits["groups"]["kind"]["classes"].values()) >= least
    assert min(one[side] for one in hits["attributes"].values() for side in ("told", "not_told")) >= least
    assert sum(map(sum, hits["groups"]["kind"]["confusion"])) == hits["count"] == COUNT


def test_the_distance_of_a_class_is_that_of_its_rows(obedient: tuple[Scorecard, Number]) -> None:
    card, number = obedient
    told, labels = card._told_plainly.conditions[:, 0].numpy(), Photographs().table[:240]
    for i, name in enumerate(CLASSES, 3):
        expected = frechet_distance(told[told[:, i] == 1], labels[labels[:, i] == 1])
        found = number.more["distances"]["kind"][name]
        assert found["distance"] == pytest.approx(expected, abs=1e-6)
        assert (found["told"], found["real"]) == (told[:, i].sum(), labels[:, i].sum())


def test_a_model_that_does_not_listen_is_at_chance_and_leaks_nothing(tmp_path: Path) -> None:
    number = scorecard(tmp_path, Deaf()).number()
    more, classes = number.more, number.more["hits"]["groups"]["kind"]["classes"]
    assert {one["balanced"] for one in more["hits"]["attributes"].values()} == {0.5}
    assert more["groups"] == pytest.approx(classes["A"]["count"] / COUNT)
    assert np.abs(more["leakage"]["matrix"]).max() == 0
    assert {value for way in more["blends"]["ways"].values() for value in way.values()} == {0.0}
    assert {point["diversity"] for point in more["guidance"]} == {0.0}
    assert more["rare"]["Goatee"]["coverage"] == 0


def test_a_leak_is_found_where_it_is(tmp_path: Path) -> None:
    card = scorecard(tmp_path, Leaky())
    leak = card.number().more["leakage"]
    wishes = [[(1.0, {"Male": 1.0})]] * leak["seeds"]
    told = card.asker.told(wishes, range(FIRST, FIRST + leak["seeds"]), mixed=True).conditions[:, 0]
    expected = np.eye(3, 6)
    expected[0, 1] = 1 - told[:, 1].mean()  # who has a goatee already gets no other
    matrix = np.array(leak["matrix"])
    assert expected[0, 1] > 0.5
    assert np.allclose(matrix[[0, 2]], expected[[0, 2]], atol=1e-6)
    assert (leak["largest"][0]["asked"], leak["largest"][0]["changes"]) == ("Male", "Goatee")


def test_the_numbers_do_not_depend_on_the_batch_and_the_curve_passes_through_the_commands_own_guidance(tmp_path: Path) -> None:
    numbers = []
    for batch_size in (64, 7):
        (home := tmp_path / str(batch_size)).mkdir()
        numbers.append(scorecard(home, Leaky(), guidance=2, batch_size=batch_size).number())
    assert numbers[0] == numbers[1]


class Counted:
    """Counts the images that studios draw, by the title of the bar; stops before `until`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: str = "") -> None:
        self.drawn: dict[str, int] = {}
        batches = Studio.batches

        def counted(studio: Studio, seeds: Any, title: str, *arguments: Any, **options: Any) -> Any:
            if title == until:
                raise KeyboardInterrupt
            self.drawn[title] = self.drawn.get(title, 0) + len(seeds)
            return batches(studio, seeds, title, *arguments, **options)

        monkeypatch.setattr(Studio, "batches", counted)


def test_a_stopped_scorecard_goes_on_where_it_was_and_nothing_is_drawn_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        before = Counted(patched, until="guidance=3")
        with pytest.raises(KeyboardInterrupt):
            scorecard(tmp_path, Obedient(), guidance=2).number()
    with monkeypatch.context() as patched:
        after = Counted(patched)
        number = scorecard(tmp_path, Obedient(), guidance=2).number()
    assert list(before.drawn) == ["everything in turn", "one attribute at a time", "guidance=1", "guidance=1.5"]  # 2 is drawn already
    assert list(after.drawn) == ["guidance=3", "guidance=5", "ends of blends", "blend=embedding", "blend=prediction", "blend=switch"]
    assert sum(before.drawn.values()) == COUNT + 3 * 2 * 5 + 2 * (COUNT // 4)
    assert after.drawn["ends of blends"] + after.drawn["blend=switch"] == 3 * 9 * 4
    again = Counted(monkeypatch)
    assert scorecard(tmp_path, Obedient(), guidance=2).number() == number
    assert again.drawn == {}


def test_images_that_are_told_otherwise_are_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorecard(tmp_path, Obedient()).number()
    counted = Counted(monkeypatch)
    card = scorecard(tmp_path, Obedient())
    card.asker.examples = 1 - card.asker.examples
    card.number()
    assert counted.drawn["everything in turn"] == COUNT


def test_what_cannot_be_asked_is_left_out_with_a_note(tmp_path: Path) -> None:
    number = scorecard(tmp_path, Obedient(), data=Photographs(num_val=0), drop_condition=0.0).number()
    assert number.more["probe"]["images"] == "training"
    assert [point["guidance"] for point in number.more["guidance"]] == [1]
    notes = "\n".join(number.more["notes"])
    assert "no images are held out" in notes
    assert "no curve of guidance: the model was trained with model.drop_condition=0" in notes
    card = scorecard(tmp_path, Obedient())
    card.questions = type(card.questions)(ATTRIBUTES, {})
    more = card.number().more
    assert more["blends"] is None
    assert more["distances"] == {}
    card = scorecard(tmp_path, Obedient())
    card.questions = type(card.questions)([], {"kind": CLASSES})
    assert card.number().more["leakage"] is None
    assert "no leakage: the model is told no attributes that the probe can read" in card.notes


def test_images_are_held_out_only_where_the_probe_was_trained_on_the_same_data_split_the_same_way(tmp_path: Path) -> None:
    same = scorecard(tmp_path, Obedient())
    same.probe.options |= {"val_fraction": 0.2, "batch_size": 64, "flip": True}
    assert same._of_photographs()["images"] == "held out"
    assert same.notes == []
    for fingerprint, options, what in (
        ("of others", {}, "the fingerprint of its data is another"),
        (Photographs.fingerprint, {"val_fraction": 0.1, "limit": 9}, "its data is split otherwise (data.val_fraction, data.limit)"),
        (Photographs.fingerprint, {"size": 7}, "its data is split otherwise (data.size)"),
    ):
        card = scorecard(tmp_path, Obedient())
        card.probe.fingerprint = fingerprint
        card.probe.options |= options
        assert card._of_photographs()["images"] == "not known to be held out"
        assert card.notes == [f"the probe was trained on other images than these, perhaps on some of them: {what}"]


def test_a_model_that_was_trained_on_other_images_is_told(tmp_path: Path) -> None:
    what = "the model was trained on other images than the real ones here: its distances and diversity are to those"
    assert scorecard(tmp_path, Obedient(), trained_on="of others").number().more["notes"] == [what]
    assert scorecard(tmp_path, Obedient(), trained_on="").number().more["notes"] == []


def test_the_table_says_of_how_many_images_each_point_is_and_no_deviation_of_nothing(obedient: tuple[Scorecard, Number]) -> None:
    number = obedient[1]
    entry = {"value": number.value, "protocol_hash": "x", **number.more}
    lines = [line.split() for line in scorecard_tables("a", entry).splitlines()]
    head = lines.index(["guidance", "hit", "rate", "diversity", "images"])
    assert [line[-1] for line in lines[head + 1 : head + 6]] == [str(COUNT // 4)] * 5
    for deviation in ({}, {"deviation": 0.0}):
        assert "±" not in table(["a"], [{"metrics": {number.name: {**entry, **deviation}}}])
    assert "1 ± 0.1" in table(["a"], [{"metrics": {number.name: {**entry, "deviation": 0.1}}}])


@pytest.mark.parametrize(("largest", "limit"), [(0.0, 0.1), (0.03, 0.1), (0.7, 0.7)])
def test_a_small_leak_is_pale(largest: float, limit: float) -> None:
    leak = {"rows": ["Male"], "columns": ["Male", "A"], "matrix": [[0.0, -largest]]}
    figure = _heat_maps({"hits": {"groups": {}}, "leakage": leak})
    assert figure.axes[0].images[0].get_clim() == (-limit, limit)


def test_a_probe_that_is_blind_to_an_attribute_is_told(tmp_path: Path) -> None:
    card = scorecard(tmp_path, Obedient())
    read = card._read
    card._read = lambda said: read(said) * [0, 1, 1, 1, 1, 1]
    assert card.number().more["notes"] == ["the probe reads Male hardly better than by chance: their hit rates say little"]


def test_names_that_are_not_shared_are_told_with_how_to_train_a_probe(tmp_path: Path) -> None:
    probe = Reader()
    loaded: Any = Trained(Obedient(), tmp_path)
    assert unaskable(loaded, probe, 9) == []
    assert unlabelled(loaded, probe, DataImages(Photographs(), "train")) == []
    assert unaskable(loaded, probe, 8) == ["condition asks for 9 things in turn, an image each at least; got n=8; type n=9, or more"]
    probe.names, probe.groups = ["x", "y"], {}
    (line,) = unaskable(loaded, probe, 9)
    assert line.endswith("no name in common; train a probe on the same data: python train.py experiment=probe data=NAME")


def test_a_class_that_is_never_real_has_no_distance_and_no_part_in_diversity(tmp_path: Path) -> None:
    data = Photographs()
    data.table[:, 3:] = [1, 0, 0]
    more = scorecard(tmp_path, Obedient(), data=data).number().more
    assert [more["distances"]["kind"][name]["distance"] is None for name in CLASSES] == [False, True, True]
    assert all(math.isfinite(point["diversity"]) for point in more["guidance"])
