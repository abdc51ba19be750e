import xml.etree.ElementTree as ET
from collections import Counter

from pipeline.report import results
from pipeline.report.graph_parts import parts
from pipeline.report.graph_picture import Arrow, Box, picture
from pipeline.report.results import Absent

BOXES = [
    Box("i", "1x3", "image", "edge"),
    Box("a", "Conv 3x3 + Relu", "a.very.long.module.path.of.a.network.0.conv", "npu", "first\nsecond"),
    Box("b", "Softmax <&>", "<b>", "cpu", "because"),
]
ARROWS = [Arrow("i", "a"), Arrow("a", "b", "t: 1x8", crossing=True)]


def drawn(boxes=BOXES, arrows=ARROWS):
    return ET.fromstring(picture(boxes, arrows, "a & b"))


def kinds(root):
    return Counter(group.get("class") for group in root.findall("g"))


def test_boxes_tell_their_device_by_shape_and_word_not_only_by_colour():
    npu, cpu = (next(g for g in drawn().findall("g") if g.get("class") == f"box {d}") for d in ("npu", "cpu"))
    assert float(npu.find("rect").get("rx")) > 0
    assert float(cpu.find("rect").get("rx")) == 0
    assert "CPU" in [text.text for text in cpu.findall("text")]
    assert "CPU" not in [text.text for text in npu.findall("text")]


def test_crossings_are_marked():
    root = drawn()
    assert kinds(root) == {"box edge": 1, "box npu": 1, "box cpu": 1, "arrow": 1, "arrow crossing": 1}
    marks = [path for path in root.iter("path") if path.get("class") == "mark"]
    assert len(marks) == 1


def test_text_is_escaped_and_long_names_keep_their_end():
    root = drawn()
    texts = [text.text for text in root.iter("text")]
    assert "Softmax <&>" in texts
    assert "<b>" in texts
    assert any(text.startswith("\N{HORIZONTAL ELLIPSIS}") and text.endswith("network.0.conv") for text in texts)
    assert root.get("aria-label") == "a & b"
    assert "first\nsecond" in [title.text for title in root.iter("title")]


def test_the_same_graph_gives_the_same_text():
    assert picture(BOXES, ARROWS, "x") == picture(BOXES, ARROWS, "x")


def test_the_models_operators_each_stand_in_one_box(finished):
    found = parts(finished.summary)
    assert found.whole
    assert [box.title for box in found.boxes if box.place != "edge"] == ["Conv 3\u00d73 + Relu", "Softmax", "Add"]
    assert [box.place for box in found.boxes] == ["edge", "npu", "cpu", "cpu", "edge"]
    names = [node.name for node in results.coverage(finished.summary)]
    listed = [line.rpartition(" (")[0] for box in found.boxes for line in box.hint.splitlines()]
    assert [listed.count(name) for name in names] == [1] * len(names)
    assert [(a.source[-4:], a.target[-6:], a.crossing) for a in found.arrows if a.crossing] == [
        ("stem", "cript>", True),
        ("stem", "or sum", True),
    ]
    hint = next(box.hint for box in found.boxes if box.title == "Softmax")
    assert "CPU, partition 1, output 1\u00d78\u00d78\u00d78" in hint
    assert hint.endswith("The axis must be 1; it is <3>")


def test_a_large_graph_becomes_its_partitions(finished):
    for most in (2, 1):  # by boxes, and by operators without even reading the model
        found = parts(finished.summary, most)
        assert not found.whole
        assert [(box.title, box.name, box.place) for box in found.boxes] == [
            ("NPU partition 0", "2 operators", "npu"),
            ("CPU partition 1", "2 operators", "cpu"),
        ]
        assert found.boxes[0].hint == "1 Conv\n1 Relu"
        assert [(a.source, a.target, a.crossing) for a in found.arrows] == [("0", "1", True)]
        assert found.arrows[0].hint == "r: 1\u00d78\u00d78\u00d78 int8, 512 values"


def test_nothing_is_drawn_without_a_placement(finished):
    assert parts(finished.without("coverage")) == Absent("The coverage stage is not up to date: train comes first.")
