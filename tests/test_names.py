"""What a number is called says which features it was measured in and on how many images."""

from __future__ import annotations

import pytest

from facegen.errors import UserError
from facegen.metrics.names import INCEPTION, METRICS, PROBE, checked, chosen, too_few, too_small, unknown

OPTIONS = {"splits": 10, "kid_subset_size": 1000, "k": 3, "density_k": 5}
FOREIGN = "0123abcd" + "0" * 56


@pytest.mark.parametrize(
    ("name", "count", "weights", "written"),
    [
        ("fid", 50_000, None, "fid"),
        ("fid", 10_000, None, "fid@10k"),
        ("fid", 2_345, None, "fid@2345"),
        ("fid", 10_000, FOREIGN, "fd_inception[0123abcd]@10k"),
        ("fid", 60_000, FOREIGN, "fd_inception[0123abcd]"),
        ("is", 500, FOREIGN, "is[0123abcd]@500"),
        ("kid", 500, FOREIGN, "kid[0123abcd]@500"),
        ("mifid", 1_000, FOREIGN, "mifd_inception[0123abcd]@1k"),
        ("fd_probe", 2_000, FOREIGN, "fd_probe@2k"),
    ],
)
def test_fid_never_means_other_features_and_fewer_images_are_told(name: str, count: int, weights: str | None, written: str) -> None:
    assert METRICS[name].written(count, weights) == written


def test_the_features_of_precision_depend_on_the_command_alone() -> None:
    assert [m.name for m in chosen(["fd_probe", "precision", "neighbours"])] == ["fd_probe", "precision_probe", "neighbours_probe"]
    assert [(m.name, m.space) for m in chosen(["precision"])] == [("precision", INCEPTION)]
    assert [(m.name, m.space) for m in chosen(["fid", "fd_probe", "recall"])] == [
        ("fid", INCEPTION),
        ("fd_probe", PROBE),
        ("recall", INCEPTION),
    ]


def test_a_metric_asked_for_twice_is_measured_once() -> None:
    assert [m.name for m in chosen(["kid_probe", "precision", "precision_probe", "kid_probe"])] == ["kid_probe", "precision_probe"]


def test_an_unknown_metric_is_told_with_the_nearest_name() -> None:
    assert unknown(["fid", "is"]) == []
    first, second = unknown(["fid_probe", "fid", "recal"])
    assert first == "metrics: fid_probe is not a metric (did you mean 'fd_probe'?)"
    assert second.startswith("metrics: recal is not a metric (did you mean 'recall'?); allowed: fid, is, kid, ")
    with pytest.raises(UserError, match="must name at least one"):
        checked([])


def test_what_has_no_option_to_lower_wants_more_images() -> None:
    (fake, real) = too_few(checked(["fid"]), OPTIONS, 1, 1, True)
    assert fake == "fid needs at least 2 generated images; got 1; give a folder of more images"
    assert real == "fid needs at least 2 real images; got 1; give more real images"
    assert too_few(checked(["fid"]), OPTIONS, 1, 1, False, real_n=1)[1].endswith("type a higher real_n=")


def test_images_that_are_too_small_for_a_metric_are_told() -> None:
    assert too_small(checked(["ssim", "fid"]), 11) == []
    assert too_small(checked(["ssim", "fid"]), 8) == ["ssim needs images of at least 11 px; got 8; leave ssim out"]


def test_a_metric_says_how_many_images_it_needs() -> None:
    assert too_few(checked(["fid", "is", "kid", "precision"]), OPTIONS, 1000, 1000, False) == []
    lines = too_few(checked(["kid", "is", "precision"]), OPTIONS, 3, 4, False)
    assert lines == [
        "kid needs at least 1,000 generated images; got 3; type a lower kid_subset_size=",
        "kid needs at least 1,000 real images; got 4; type a lower kid_subset_size=",
        "is needs at least 10 generated images; got 3; type a lower splits=",
        "precision needs at least 4 generated images; got 3; type a lower k=",
    ]
