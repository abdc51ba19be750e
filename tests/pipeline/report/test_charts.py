import re
import xml.etree.ElementTree as ET

import pytest

from pipeline.report import charts
from pipeline.report.headline import Accuracy
from pipeline.report.results import Epoch, LadderPoint, LayerError, TraceEvent

EPOCHS = [Epoch(epoch=n, loss=2.0 / (n + 1), ap50=(0.5, 0.925, 0.9)[n], ap=0.3) for n in range(3)]
FORMS = [
    Accuracy("float", "torch", 0.91, 0.55),
    Accuracy("int8", "engine", 0.905, None),
    Accuracy("none", "", None, None),
]


def rows(*levels, name="layer"):
    return [
        LayerError(node=f"{name}{n}", op="Conv", tensor="t", sqnr_db=level, cosine=1, largest=0, scale=0.1)
        for n, level in enumerate(levels)
    ]


def points(*places, rung="cpu"):
    facts = {"rung": rung, "what": "x", "accuracy": None, "mj": None, "crossings": 1, "gain_db": 0, "added_ms": None}
    facts |= {"gain_db_per_ms": None}
    return [LadderPoint(sqnr_db=db, ms=ms, kept=front, front=front, **facts) for db, ms, front in places]


def drawn(text):
    return [" ".join((each.text or "").split()) for each in ET.fromstring(text).iter("text")]


DRAWINGS = {
    "accuracy": lambda: charts.accuracy(FORMS),
    "losses": lambda: charts.losses(EPOCHS),
    "scores": lambda: charts.scores(EPOCHS),
    "noise": lambda: charts.noise(rows(30, 20, 25, 40)),
    "ladder": lambda: charts.ladder(points((20, 1, True), (30, 2, True), (25, 3, False))),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_chart_is_repeatable_and_takes_colours_and_fonts_from_the_page(name):
    text = DRAWINGS[name]()
    assert text == DRAWINGS[name]()
    assert re.fullmatch(r"<svg.*</svg>", text, re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{6}\b|rgb\(", text)
    assert "var(--first)" in text
    assert "font-family" not in text
    assert "DejaVu" not in text
    assert "<style" not in text
    assert "http" not in text
    assert "<metadata" not in text
    assert not re.findall(r"\b20\d\d-\d\d", text)


def test_charts_share_no_identifier():
    seen = [set(re.findall(r' id="([^"]+)"', draw())) for draw in DRAWINGS.values()]
    assert len(set().union(*seen)) == sum(map(len, seen))


def test_accuracy_names_and_numbers_what_was_measured():
    words = drawn(charts.accuracy(FORMS))
    assert {"float", "int8", "91.0", "55.0", "90.5", "AP50", "AP"} <= set(words)
    assert "none" not in words


def test_scores_mark_the_best_epoch():
    assert "92.5" in drawn(charts.scores(EPOCHS))


def test_one_epoch_is_enough():
    assert "50.0" in drawn(charts.scores(EPOCHS[:1]))
    assert charts.losses(EPOCHS[:1])


def test_noise_names_the_three_worst_worst_first():
    words = drawn(charts.noise(rows(30, 20, 25, 40, 22)))
    assert "1 layer1 20.0 dB \N{MIDDLE DOT} 2 layer4 22.0 dB \N{MIDDLE DOT} 3 layer2 25.0 dB" in words


@pytest.mark.parametrize("levels", [[5000.0], [float("inf"), float("nan")], [-3.0, 2.0], [30.0] * 500])
def test_noise_takes_any_number(levels):
    assert charts.noise(rows(*levels))


def test_names_are_not_read_as_formulas():
    assert any("$x_1$0" in word for word in drawn(charts.noise(rows(30.0, name="$x_1$"))))


def test_a_ladder_names_its_rungs_its_front_and_its_floor():
    climbed = [*points((20, 1, True), rung="as asked"), *points((22, 1, True), rung="recovery")]
    climbed += [*points((30, 2, False), rung="int16"), *points((31, 2, False)), *points((1, None, False))]
    words = drawn(charts.ladder(climbed, 28.5))
    assert [w for w in words if w in {*charts.RUNGS, "kept", "Pareto front", "floor, 28.5 dB"}] == [
        "Pareto front", "floor, 28.5 dB", "int8", "int16", "cpu", "kept",
    ]  # fmt: skip
    assert not any("floor" in word for word in drawn(charts.ladder(climbed)))
    slow = drawn(charts.ladder([*climbed, *points((40, 50, True))]))
    assert {"1", "2", "5", "10", "20", "50"} <= set(slow)  # what is far apart is on a logarithmic axis
    with pytest.raises(ValueError, match="no point of the ladder has a known time"):
        charts.ladder(points((1, None, True)))


def event(engine, start, length):
    return TraceEvent(name="layer", ph="X", cat=engine, ts=start, dur=length)


def test_a_timeline_has_a_bar_for_each_busy_stretch_of_each_engine():
    """What lies closer together than the picture can show is one bar; what takes no time is none."""
    events = [
        event("MAC", 0.0, 1000.0),
        event("MAC", 1000.1, 500.0),
        event("MAC", 5000.0, 1.0),
        event("DMA in", 0.0, 12_000.0),
        event("vector", 3000.0, 0.0),
    ]
    assert charts._bars([e for e in events if e.cat == "MAC"], 0.01) == [
        (0.0, pytest.approx(1.5001)),
        (5.0, pytest.approx(0.01)),
    ]
    drawn = charts.timeline(events)
    assert drawn == charts.timeline(events)
    for engine in charts.ENGINES:
        assert f">{engine}</text>" in drawn
    assert "var(--first)" in drawn
    assert "var(--second)" in drawn


def test_ten_thousand_commands_are_a_small_picture():
    events = [event("MAC", 2.0 * i, 1.0) for i in range(10_000)]
    assert len(charts.timeline(events)) < 20_000
