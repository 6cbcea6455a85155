"""Pairing by the names that the usual data sets give their files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.errors import UsageError
from restormer_cli.evaluation.pairing import Pairing, pair_in_order, pair_names


@pytest.mark.parametrize(
    ("result", "target"),
    [
        ("a.png", "a.png"),
        ("a.png", "A.JPG"),
        ("a.jpg.png", "a.jpg"),
        ("rain-001.png", "norain-001.png"),
        ("rain-1x2.png", "norain-001x2.png"),
        ("1.png", "1_gt.png"),
        ("1.png", "1_GT.png"),
        ("1_rain.png", "1_clean.png"),
        ("0001_NOISY_SRGB_010.png", "0001_GT_SRGB_010.PNG"),
        ("scene001_blur_1.png", "scene001_gt_1.png"),
        ("deep/er/1.png", "deep/er/1_target.tif"),
    ],
)
def test_usual_data_sets_pair(result: str, target: str) -> None:
    assert pair_names([result], [target]) == Pairing([(result, target)])


def test_what_has_no_partner_is_named() -> None:
    pairing = pair_names(["1.png", "2.png", "x/3.png"], ["1.png", "3.png"])
    assert pairing.pairs == [("1.png", "1.png")]
    assert pairing.unmatched_results == ["2.png", "x/3.png"]
    assert pairing.unmatched_targets == ["3.png"]


def test_ambiguous_names_are_errors_and_cost_the_others_nothing() -> None:
    pairing = pair_names(["a.png", "b.png"], ["a.jpg", "a.tif", "b.png"])
    assert pairing.pairs == [("b.png", "b.png")]
    assert pairing.errors == {"a.png": "could belong to a.jpg or a.tif"}
    pairing = pair_names(["rain-1.png", "1.png"], ["norain-1.png"])
    assert pairing.errors["1.png"] == "rain-1.png and 1.png could both be norain-1.png"
    assert not pairing.pairs


def test_a_closer_name_wins() -> None:
    names = ["1.png", "1_gt.png"]
    assert pair_names(["1.png"], names).pairs == [("1.png", "1.png")]
    assert pair_names(names, names).pairs == [(name, name) for name in names]
    assert pair_names(["clean.png"], ["rain.png"]).unmatched_results == ["clean.png"]


_words = st.sampled_from(["1", "01", "2", "rain", "norain", "gt", "a"])
_names = st.lists(
    st.builds(
        lambda words, suffix: "_".join(words) + suffix,
        st.lists(_words, min_size=1, max_size=3),
        st.sampled_from([".png", ".PNG", ".jpg"]),
    ),
    unique=True,
    max_size=8,
)


@given(_names, _names)
def test_pairing_loses_and_invents_nothing(results: list[str], targets: list[str]) -> None:
    pairing = pair_names(results, targets)
    done = [result for result, _ in pairing.pairs]
    assert sorted(done + list(pairing.errors) + pairing.unmatched_results) == sorted(results)
    used = [target for _, target in pairing.pairs]
    assert sorted(used + pairing.unmatched_targets) == sorted(targets)


def test_pairing_in_order_needs_equal_numbers() -> None:
    assert pair_in_order(["a", "b"], ["x", "y"]).pairs == [("a", "x"), ("b", "y")]
    with pytest.raises(UsageError, match="1 results and 2 targets"):
        pair_in_order(["a"], ["x", "y"])
