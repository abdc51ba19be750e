from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.layout import BOX, lay_out


@st.composite
def graphs(draw):
    size = draw(st.integers(1, 40))
    arrows = set()
    for target in range(1, size):
        arrows |= {(draw(st.integers(0, target - 1)), target) for _ in range(draw(st.integers(0, 3)))}
    return [str(n) for n in range(size)], [(str(a), str(b)) for a, b in sorted(arrows)]


def chain(length):
    keys = [str(n) for n in range(length)]
    return keys, list(pairwise(keys))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graph=graphs(), widest=st.sampled_from([300.0, 1100.0, 3000.0]))
def test_every_box_stands_once_inside_the_picture_and_none_on_another(graph, widest):
    keys, arrows = graph
    layout = lay_out(keys, arrows, widest)
    assert list(layout.spots) == keys
    for spot in layout.spots.values():
        assert 0 <= spot.x <= layout.width - BOX[0]
        assert 0 <= spot.y <= layout.height - BOX[1]
    for a, b in combinations(layout.spots.values(), 2):
        assert abs(a.x - b.x) >= BOX[0] or abs(a.y - b.y) >= BOX[1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graph=graphs(), widest=st.sampled_from([300.0, 1100.0, 3000.0]))
def test_arrows_join_their_boxes_stay_inside_and_pass_through_no_other(graph, widest):
    keys, arrows = graph
    layout = lay_out(keys, arrows, widest)
    assert set(layout.routes) == set(arrows)
    for (source, target), points in layout.routes.items():
        a, b = layout.spots[source], layout.spots[target]
        assert points[0] == (a.centre, a.y + BOX[1])
        assert points[-1] == (b.centre, b.y)
        assert all(0 <= x <= layout.width and 0 <= y <= layout.height for x, y in points)
        assert (a.column, a.y) < (b.column, b.y)
        others = [spot for key, spot in layout.spots.items() if key not in (source, target)]
        for (ax, ay), (bx, by) in pairwise(points):
            if abs(ax - bx) < 0.05:  # upright pieces pass whole ranks, slanted ones lie between two
                low, high = sorted((ay, by))
                for spot in others:
                    beside = not spot.x < ax < spot.x + BOX[0]
                    assert beside or high <= spot.y + 0.01 or low >= spot.y + BOX[1] - 0.01


def test_a_chain_runs_straight_down():
    layout = lay_out(*chain(6), 1100)
    assert {spot.x for spot in layout.spots.values()} == {layout.spots["0"].x}
    assert len({spot.y for spot in layout.spots.values()}) == 6


def test_branches_stand_side_by_side():
    layout = lay_out(["a", "b", "c", "d"], [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], 1100)
    spots = layout.spots
    assert spots["b"].y == spots["c"].y
    assert spots["b"].x != spots["c"].x
    assert spots["a"].centre == pytest.approx((spots["b"].centre + spots["c"].centre) / 2)


def test_a_long_graph_wraps_into_columns_that_fit():
    layout = lay_out(*chain(60), 1100)
    assert len({spot.column for spot in layout.spots.values()}) > 2
    assert layout.width <= 1100
    assert layout.height < lay_out(*chain(60), 250).height / 2


def test_columns_are_cut_where_few_arrows_pass():
    keys, arrows = chain(20)
    arrows += [("2", "9"), ("3", "9"), ("10", "17")]
    layout = lay_out(keys, arrows, 700)
    assert layout.spots["9"].column == 0
    assert layout.spots["10"].column == 1


def test_a_loose_input_stands_just_above_what_needs_it():
    keys, arrows = ["late", "0", "1", "2"], [("0", "1"), ("1", "2"), ("late", "2")]
    spots = lay_out(keys, arrows, 1100).spots
    assert spots["late"].y == spots["1"].y


@pytest.mark.parametrize("arrow", [("b", "a"), ("a", "a"), ("a", "c"), ("c", "a")])
def test_an_arrow_must_point_to_a_later_box(arrow):
    with pytest.raises(ValueError, match=f"from {arrow[0]} to {arrow[1]} does not point to a later box"):
        lay_out(["a", "b"], [arrow], 1100)


def test_no_boxes_give_an_empty_picture():
    assert lay_out([], [], 1100).spots == {}


def test_hundreds_of_boxes_are_laid_out_in_a_moment():
    keys, arrows = chain(150)
    arrows += [(str(n), str(n + 7)) for n in range(0, 140, 5)]
    assert len(lay_out(keys, arrows, 1100).spots) == 150
