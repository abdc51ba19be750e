import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from pipeline.report import html
from pipeline.workspace import SCHEMA, Output, Record

pytestmark = pytest.mark.filterwarnings("error")
SECTIONS = (
    "accuracy",
    "training",
    "graph",
    "coverage",
    "cost",
    "timeline",
    "noise",
    "samples",
    "demo",
    "stages",
    "kinds",
    "origin",
)
VOID = {"meta", "br", "img"}


@pytest.fixture
def no_charts(monkeypatch):
    """Leave out what takes time and is tested by itself."""
    drawn = SimpleNamespace(accuracy=str, losses=str, scores=str, noise=str, timeline=str, LOUDEST=60.0)
    monkeypatch.setattr(html, "_charts", lambda: drawn)


class Page(HTMLParser):
    """Text and elements of a page by section; checks that elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.section, self.texts, self.open, self.tags, self.attributes = "", {}, [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_data(" ")
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"]
        if tag == "main":
            self.section = ""

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.handle_data(" ")

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts[self.section] = self.texts.get(self.section, "") + data

    def words(self, section):
        return " ".join(self.texts[section].split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, finish):
    """The page of a run that ran every stage."""
    return html.page(finish(tmp_path_factory.mktemp("whole")).summary)


def test_every_section_shows_what_its_stage_left(whole):
    page = Page(whole)
    assert tuple(s for s in page.texts if s) == SECTIONS
    top = page.words("")
    assert "shop on toy-npu" in top
    assert "Every stage is up to date and every gate is kept." in top
    assert "AP50, float 91.0 %" in top
    assert "AP50, simulated NPU 90.4 % \N{MINUS SIGN}0.60 points against float" in top
    assert "MACs on the NPU 100.0 % 2 of 4 operators, 2 fallbacks" in top
    assert "Partitions 2 1 on the NPU, 1 crossing of 512 bytes" in top
    assert "Latency, estimated 1.25 ms 1 ms to 2.5 ms" in top
    assert "Bundle 412.3 kB" in top
    assert "Differing bytes 0 of 17,280 golden bytes" in top
    assert "90.5 % 54.0 % \N{MINUS SIGN}0.50 points" in page.words("accuracy")
    assert "2 epochs, 1,234 parameters; the weights of epoch 2 are kept" in page.words("training")
    assert "Softmax 1 0 1 0" in page.words("coverage")
    assert "Fallbacks: 2 of 4" in page.words("coverage")
    assert "Add CPU 0 It comes late It is odd" in page.words("coverage")
    assert "Latency 1.25 ms 1 ms to 2.5 ms, a priori; host toy-host" in page.words("cost")
    assert "Cheapest placement 1.25 ms proven" in page.words("cost")
    assert "Softmax 1 0.375 ms The link is a guess." in page.words("cost")
    timeline = page.words("timeline")
    assert "conv2d, requantize 3 0.375 ms 13,824 25.0 % 150 bytes n/a compute" in timeline
    assert "Memory of programs/0.npup: sram 1.5 kB of 2.0 kB (assumed), dram 4.0 kB of" in timeline
    assert "1 tensors lie outside of the chip for want of room" in timeline
    assert "Not public for this target, so not counted: launch_s." in timeline
    assert "000-clip_0016" in page.words("samples")
    assert "walkway 3 5 Zone visits per hour mean stay most at a time lawn 7 315 4.2 s 2" in page.words("demo")
    assert "2 8 frames played, 2 tracks, 31 boxes of person" in page.words("demo")
    assert "train ran 10.0 s never run" in page.words("stages")
    assert "81,234 estimated A priori" in page.words("kinds")
    assert "0 differing bytes simulated Bit for bit" in page.words("kinds")
    assert "ab" * 32 in page.words("origin")


def test_fallbacks_come_before_the_other_operators_and_layers_worst_first(whole):
    page = Page(whole)
    coverage, noise = page.words("coverage"), page.words("noise")
    assert coverage.index("alert") < coverage.index("stem")
    table = noise[noise.index("worst first") :]
    assert table.index("21.5") < table.index("31.2") < table.index("exact")


def test_nothing_from_a_model_becomes_markup(whole):
    text = whole
    assert "<script" not in text.lower()
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;alert" in text
    assert "it is &lt;3&gt;" in text


def test_the_page_needs_nothing_else(whole):
    text = whole
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    page = Page(text)
    assert "link" not in page.tags
    assert "script" not in page.tags
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "data", "poster"):
            assert value.startswith(("#", "data:image/jpeg;base64,")), value
    assert not [url for url in re.findall(r"url\(([^)]*)\)", text) if not url.startswith("#")]


def test_inline_pictures_do_not_disturb_the_page(whole):
    text = whole
    assert text.count("<style") == 1
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    for one, other in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert (one or other) in identifiers


def test_samples_are_in_the_page(finished):
    picture = (finished.folder / "package/samples/000-clip_0016.jpg").read_bytes()
    assert base64.b64encode(picture).decode() in html.page(finished.summary)


def test_the_same_run_gives_the_same_bytes(finished):
    assert html.page(finished.summary) == html.page(finished.summary)


SHOWN = {
    "train": ["training"],
    "quantize": ["noise"],
    "export": ["graph"],
    "coverage": ["coverage", "graph"],
    "partition": ["graph"],
    "package": ["samples", "demo"],
}


@pytest.mark.parametrize("stage", SHOWN)
def test_a_stage_that_is_not_up_to_date_says_so_in_its_section(finished, stage, no_charts):
    page = Page(html.page(finished.without(stage)))
    for section in SHOWN[stage]:
        assert f"The {stage} stage is not up to date: train comes first." in page.words(section)
    assert f"Not complete: {stage} not up to date." in page.words("")


def test_a_failed_stage_is_in_the_verdict_and_in_its_section(finished, no_charts):
    page = Page(html.page(finished.without("package", "clip.mp4: is <cut> short", "failed")))
    assert "The run failed. package: clip.mp4: is <cut> short" in page.words("")
    assert "The package stage failed: clip.mp4: is <cut> short." in page.words("samples")
    assert "AP50, int8 90.5 % \N{MINUS SIGN}0.50 points against float; not packaged" in page.words("")


def test_a_missed_gate_is_the_verdict(finished, no_charts):
    page = Page(html.page(finished.with_gate("coverage.min_macs_on_npu is 99.00%")))
    assert "1 gate missed. coverage.min_macs_on_npu is 99.00%" in page.words("")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"nodes": [{"name": 3}]}'])
@pytest.mark.parametrize(
    ("file", "section"),
    [
        ("train/history.json", "training"),
        ("quantize/errors.json", "noise"),
        ("package/profile.json", "timeline"),
        ("partition/check.json", "cost"),
        ("coverage/coverage.json", "coverage"),
        ("partition/plan.json", "graph"),
        ("package/demo/summary.json", "demo"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(finished, file, section, content, no_charts):
    (finished.folder / file).write_bytes(content)
    page = Page(html.page(finished.summary))
    assert f"{finished.folder / file} is damaged: " in page.words(section)
    assert page.texts.keys() >= set(SECTIONS)


@pytest.mark.parametrize("content", [b"", b"not onnx at all", None])
def test_a_damaged_model_is_named(finished, content, no_charts):
    path = finished.folder / "export/model.onnx"
    path.unlink() if content is None else path.write_bytes(content)
    assert f"{path}: " in Page(html.page(finished.summary)).words("graph")


def test_a_model_that_coverage_does_not_know_is_named(finished, no_charts):
    path = finished.folder / "coverage/coverage.json"
    path.write_text(path.read_text().replace('"sum"', '"other"'))
    words = Page(html.page(finished.summary)).words("graph")
    assert words.endswith("model.onnx: coverage.json does not know the operator sum.")


def test_a_missing_file_is_named(finished, no_charts):
    (finished.folder / "train/history.json").unlink()
    assert "The train stage wrote no history.json." in Page(html.page(finished.summary)).words("training")


def test_a_sample_that_is_no_picture_is_named(finished, no_charts):
    (finished.folder / "package/samples/000-clip_0016.jpg").write_bytes(b"GIF")
    assert "000-clip_0016.jpg is damaged" in Page(html.page(finished.summary)).words("samples")


def test_files_without_rows_are_told(finished, no_charts):
    for file in ("train/history.json", "quantize/errors.json"):
        (finished.folder / file).write_text("[]")
    (finished.folder / "package/samples/000-clip_0016.jpg").unlink()
    page = Page(html.page(finished.summary))
    assert "recorded no epoch" in page.words("training")
    assert "nothing to compare" in page.words("noise")
    assert "kept no sample frames" in page.words("samples")


def test_nothing_measured_is_told(finished, no_charts):
    summary = finished.summary
    for stage in ("train", "quantize", "package"):
        finished.summary = summary = finished.without(stage)
    page = Page(html.page(summary))
    assert "Nothing has been measured yet." in page.words("accuracy")
    assert "AP50, float n/a" in page.words("")


def test_numbers_that_are_none_are_shown_as_such(finished):
    finished.summary.stages[0].metrics["ap50"] = float("nan")
    assert "in torch, float32 n/a 55.0 % n/a" in Page(html.page(finished.summary)).words("accuracy")


def test_provenance_names_versions_and_the_digests_of_what_matters(finished, no_charts):
    outputs = {
        "shop.npub": Output("5" * 64, 412345),
        "checkpoints/a.onnx": Output("6" * 64, 1),
        "log.txt": Output("7", 1),
    }
    record = Record({"libraries": {"onnx": "1.22.0", "numpy": "2.1"}}, outputs, 1.0, {}, ())
    path = finished.folder / "package" / "stage.json"
    path.write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(record)}))
    words = Page(html.page(finished.summary)).words("origin")
    assert f"package/shop.npub 412.3 kB {'5' * 64}" in words
    assert words.endswith("numpy 2.1, onnx 1.22.0")
    assert "checkpoints" not in words
    path.write_text("{")
    assert "onnx" not in Page(html.page(finished.summary)).words("origin")
