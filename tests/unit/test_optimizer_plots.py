"""Plots: ticks are round and few, labels stand inside and over nothing, fronts hold what nothing beats."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer import words
from optimizer.plots import Bar, Point, bars, scatter
from optimizer.scales import Anchor, Box, Scale, around, around_log, front, log_ticks, place, shorten, ticks, width

finite = st.floats(-1e6, 1e6)
sizes = st.floats(1, 1e12)
FORMATS = words.tick, lambda value: f"{value * 100:.4g} %"
AREA = Box(0, 0, 500, 300)
anchors = st.builds(Anchor, st.floats(10, 490), st.floats(10, 290), st.floats(2, 8), st.text("abc %", max_size=30))


@given(st.lists(finite, min_size=1), st.integers(2, 12))
def test_ticks_are_few_and_within_the_scale(values: list[float], most: int) -> None:
    low, high = around(values, 0.01)
    found = ticks(low, high, most)
    assert 1 <= len(found) <= most
    room = (high - low) * 1e-6
    assert all(low - room <= value <= high + room for value in found)


@given(st.lists(sizes, min_size=1), st.integers(3, 12))
def test_logarithmic_ticks_are_few_and_within_the_scale(values: list[float], most: int) -> None:
    low, high = around_log(values)
    found = log_ticks(low, high, most)
    assert 1 <= len(found) <= most
    assert found == sorted(found)
    assert all(low <= value <= high for value in found)


@given(st.lists(sizes, min_size=1))
def test_every_value_lies_inside_its_scale(values: list[float]) -> None:
    scale = Scale(*around_log(values), 80, 580, log=True)
    assert all(80 < scale.at(value) < 580 for value in values)
    linear = Scale(*around(values, 0.01), 300, 10)
    assert all(10 < linear.at(value) < 300 for value in values)


def test_ticks_of_shares_are_round() -> None:
    assert ticks(0.968, 0.994, 6) == pytest.approx([0.97, 0.975, 0.98, 0.985, 0.99])
    assert log_ticks(15_000, 400_000, 6) == [20_000, 50_000, 100_000, 200_000]


@given(st.lists(anchors, max_size=25))
def test_labels_stand_inside_and_over_no_mark_and_no_other_label(given: list[Anchor]) -> None:
    boxes = place(given, 11.5, AREA)
    marks = [Box(a.x - a.radius, a.y - a.radius, a.x + a.radius, a.y + a.radius) for a in given]
    placed = [box for box in boxes if box is not None]
    assert all(box.within(AREA) for box in placed)
    assert not any(one.meets(other) for one, other in combinations(placed, 2))
    assert not any(box.meets(mark) for box in placed for mark in marks)


def test_a_lone_label_stands_beside_its_mark_and_the_last_one_turns_back() -> None:
    (left,) = place([Anchor(50, 50, 5, "ours")], 10, AREA)
    (right,) = place([Anchor(490, 50, 5, "ours")], 10, AREA)
    assert left is not None
    assert left.left == 59
    assert right is not None
    assert right.right == 481


@given(st.text(max_size=60), st.floats(10, 300))
def test_a_shortened_text_fits(text: str, room: float) -> None:
    assert width(shorten(text, 11.5, room), 11.5) <= max(room, width("…", 11.5))


@given(st.lists(st.tuples(sizes, st.floats(0, 1)), min_size=1))
def test_the_front_holds_exactly_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    found = front(points)
    beaten = [p for p in points if any(o != p and o[0] <= p[0] and o[1] >= p[1] for o in points)]
    assert set(found) == set(points) - set(beaten)
    assert found == sorted(found)


point = st.builds(
    Point,
    sizes,
    st.floats(0, 1),
    st.sampled_from(["row", "failed", "passed", "chosen"]),
    st.text("ab<&", max_size=20),
    st.just("x"),
)


@given(st.lists(point, min_size=1, max_size=20))
def test_everything_drawn_lies_inside_the_view_box(points: list[Point]) -> None:
    plot = ET.fromstring(scatter("Size", "told", points, ("size", "accuracy"), FORMATS))
    wide, high = map(float, plot.attrib["viewBox"].split()[2:])
    for text in plot.iter("text"):
        if "transform" in text.attrib:
            continue
        at, long = float(text.attrib["x"]), width(text.text or "", 11.5)
        left = {"end": at - long, "middle": at - long / 2}.get(text.attrib["class"].split()[-1], at)
        assert left >= -0.1
        assert left + long <= wide + 0.1
        assert 0 <= float(text.attrib["y"]) <= high


@given(st.lists(point, min_size=1, max_size=20))
def test_numbers_beside_an_axis_do_not_meet(points: list[Point]) -> None:
    plot = ET.fromstring(scatter("Size", "told", points, ("size", "accuracy"), FORMATS))
    numbers = [text for text in plot.iter("text") if "tick" in text.attrib["class"]]
    across = sorted((float(t.attrib["x"]), width(t.text or "", 11.5)) for t in numbers if "middle" in t.attrib["class"])
    up = sorted(float(t.attrib["y"]) for t in numbers if "end" in t.attrib["class"])
    assert all(b[0] - a[0] >= (a[1] + b[1]) / 2 for a, b in pairwise(across))
    assert all(b - a >= 12 for a, b in pairwise(up))


def test_a_bar_is_as_long_as_its_value_and_its_part_lies_in_it() -> None:
    plot = ET.fromstring(bars("Size", "told", [Bar("a", 100, "100", "other", 40), Bar("b" * 90, 25, "25", "ours")]))
    lengths = [float(rect.attrib["width"]) for rect in plot.iter("rect")]
    assert lengths == [380.0, 152.0, 95.0]
    assert "…" in "".join(text.text or "" for text in plot.iter("text"))


def test_nothing_to_draw_draws_nothing() -> None:
    assert bars("Size", "told", []) == ""
    assert scatter("Size", "told", [], ("", ""), (str, str)) == ""
