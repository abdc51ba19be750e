"""Manifests: what is refused, with the key, and that they are written the same each time."""

from dataclasses import replace

import pytest
import tiny
from test_bundle import rewritten, with_manifest

from runtime import strict_json
from runtime.bundle import GoldenEntry, open_bundle, write_bundle
from runtime.errors import BundleError
from runtime.manifest import FileEntry, Line, Manifest, Zone
from runtime.tensors import TensorSpec


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b'{"schema": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "has lists or objects too deep inside each other"),
        (b"[" * 16, "is not JSON"),
        (b"[]", "is a list, not an object"),
        (b'"x"', 'is "x", not an object'),
        (b'{"schema": 2, "schema": 2}', "has a key twice"),
        (b'{"schema": NaN}', "has NaN, which is not JSON"),
        (b"{}", "schema is missing|name is missing"),
        (b'{"schema": 3}', r"written by a newer version: schema 3, this runtime reads 2 \(update the runtime\)"),
        (b'{"schema": 1}', "schema is 1, this runtime reads 2"),
        (b'{"schema": "2"}', "schema is '2', this runtime reads 2"),
    ],
)
def test_manifest_that_is_none(tmp_path, tiny_bundle, content, message):
    path = rewritten(tmp_path, tiny_bundle, lambda e: e.update({"manifest.json": content}))
    with pytest.raises(BundleError, match=message):
        open_bundle(path)


def deep(keys, value):
    """An edit that sets ``value`` at ``keys``."""

    def change(manifest):
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (deep(["lable"], 1), r"manifest\.json: lable is not a key \(did you mean labels\?\)"),
        (deep(["decoder", "strid"], 1), r"decoder\.strid is not a key \(did you mean stride\?\)"),
        (lambda m: m.pop("lines"), "lines is missing"),
        (lambda m: m["partitions"][0].pop("nodes"), r"partitions\[0\]\.nodes is missing"),
        (deep(["name"], 3), "name is 3, not a string"),
        (deep(["name"], "\ud800"), "name has a character that is none"),
        (deep(["provenance", "\ud800"], "x"), "provenance has a character that is none"),
        (deep(["x" * 5000], 1), r"json: x{40} is not a key"),
        (deep(["labels"], "person"), 'labels is "person", not a list'),
        (deep(["decoder", "stride"], 2.0), r"decoder\.stride is 2\.0, not a whole number"),
        (deep(["decoder", "stride"], True), r"decoder\.stride is true, not a whole number"),
        (deep(["decoder", "iou_threshold"], "x"), r"decoder\.iou_threshold is \"x\", not a finite number"),
        (deep(["decoder", "iou_threshold"], 1e999), "Infinity"),
        (deep(["decoder"], []), "decoder is a list, not an object"),
        (deep(["provenance"], []), "provenance is a list, not an object"),
        (deep(["provenance", "commit"], None), r"provenance\.commit is null, not a string"),
        (deep(["lines", 0, "start"], [1]), r"lines\[0\]\.start has 1 items, not 2"),
        (deep(["partitions", 0, "device"], "gpu"), r"partitions\[0\]\.device is \"gpu\", not one of 'npu', 'cpu'"),
        (deep(["partitions", 0, "device"], ["npu"]), r"partitions\[0\]\.device is a list, not one of"),
    ],
)
def test_manifest_of_the_wrong_shape(tmp_path, tiny_bundle, change, message):
    with pytest.raises(BundleError, match=message):
        open_bundle(with_manifest(tmp_path, tiny_bundle, change))


def spec(**changes):
    return lambda m: {"tensors": (replace(m.tensors[0], **changes), *m.tensors[1:])}


def zone(*points):
    return Zone("z", tuple((float(x), float(y)) for x, y in points))


def part(**changes):
    return lambda m: {"partitions": (replace(m.partitions[0], **changes),)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"labels": ()}, "labels is empty"),
        (lambda m: {"labels": ("a", "a")}, "labels names a twice"),
        (lambda m: {"target": ""}, "target is empty"),
        (lambda m: {"version": -1}, "version is -1; it must be at least 0"),
        (lambda m: {"lines": (*m.lines, *m.lines)}, "lines names door twice"),
        (lambda m: {"zones": (zone((0, 0), (1, 0), (0, 1)),) * 2}, "zones names z twice"),
        (lambda m: {"zones": (zone((0, 0), (1, 0)),)}, "zone z has 2 corners; it needs 3 to 100, each another point"),
        (lambda m: {"zones": (zone((0, 0), (1, 0), (0, 1), (1, 0)),)}, "zone z has 4 corners"),
        (lambda m: {"zones": (zone(*((n, n * n) for n in range(101))),)}, "zone z has 101 corners"),
        (
            lambda m: {"lines": (Line("l", (1.0, 2.0), (1.0, 2.0)),)},
            "line l goes from .* it needs two different points",
        ),
        (lambda m: {"lines": (Line("l", (1.0, float("nan")), (1.0, 2.0)),)}, "line l goes from"),
        (lambda m: {"tensors": (*m.tensors, m.tensors[0])}, "tensors names image twice"),
        (lambda m: {"output_names": ("scores",)}, "outputs has 2 names and output_names 1"),
        (lambda m: {"output_names": ("scores", "other")}, "the decoder takes scores and boxes"),
        (spec(dtype="complex64"), "tensor image has dtype complex64"),
        (spec(shape=(1, 3, 0, 24)), r"tensor image has shape \[1, 3, 0, 24\]"),
        (spec(zero_point=None), "tensor image has only one of scale and zero_point"),
        (spec(scale=0.0), r"tensor image has scale 0\.0; it must be above 0"),
        (spec(zero_point=200), "tensor image has zero_point 200"),
        (spec(shape=(1, 3, 16, 25)), r"the preprocessing gives \[1, 3, 16, 24\]"),
        (spec(scale=None, zero_point=None), "input image is int8; the preprocessing gives float32, or int8"),
        (lambda m: {"inputs": ("other",)}, "tensor other is not in tensors"),
        (lambda m: {"inputs": ("image", "scores_q")}, r"exists already|inputs has 2 names"),
        (lambda m: {"partitions": ()}, "partitions is empty"),
        (part(inputs=("ghost",)), r"partitions\[0\] names tensor ghost, which is not in tensors"),
        (part(inputs=("image", "image")), r"partitions\[0\]\.inputs names image twice"),
        (part(inputs=("boxes_q",)), r"partitions\[0\] reads tensor boxes_q before a partition gives it"),
        (part(outputs=("image",)), r"partitions\[0\] gives tensor image, which exists already"),
        (part(outputs=("scores_q",)), "no partition gives the output boxes_q"),
        (part(program=None), r"partitions\[0\] runs on npu and has program None"),
        (part(device="cpu"), r"partitions\[0\] runs on cpu and has program programs/0\.npup"),
        (part(model="models/9.onnx"), r"partitions\[0\] names file models/9\.onnx, which is not in files"),
        (part(program="p"), r"partitions\[0\] names file p, which is not in files"),
        (lambda m: {"golden": GoldenEntry("a", "b", 1)}, "golden names file a, which is not in files"),
        (lambda m: {"golden": GoldenEntry("models/0.onnx", "models/0.onnx", 0)}, "count must be at least 1"),
        (lambda m: {"preprocess": replace(m.preprocess, std=(0.0, 1.0, 1.0))}, "std above 0"),
        (lambda m: {"decoder": replace(m.decoder, stride=0)}, "stride and max_detections must be at least 1"),
        (lambda m: {"decoder": replace(m.decoder, iou_threshold=1.5)}, r"thresholds must be in 0\.\.1"),
        (lambda m: {"labels": ("a", "b")}, r"scores has shape \[1, 1, 8, 12\]; for 2 labels"),
        (lambda m: {"outputs": ("boxes_q", "scores_q"), "labels": ("a", "b", "c", "d")}, "boxes has shape"),
    ],
)
def test_manifest_that_contradicts_itself(tmp_path, change, message):
    manifest, payloads = tiny.whole()
    path = tmp_path / "x.npub"
    with pytest.raises(BundleError, match=message):
        write_bundle(path, replace(manifest, **change(manifest)), payloads)
    assert not path.exists()


def test_two_inputs_are_refused(tmp_path):
    manifest, payloads = tiny.whole()
    other = TensorSpec("other", (1, 3, 16, 24), "float32")
    changed = replace(manifest, tensors=(*manifest.tensors, other), inputs=("image", "other"))
    with pytest.raises(BundleError, match="inputs has 2 names; the preprocessing gives one image"):
        write_bundle(tmp_path / "x.npub", changed, payloads)


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("../up", FileEntry("0" * 64, 1), "'../up', which is not a plain relative path"),
        ("manifest.json", FileEntry("0" * 64, 1), r"'manifest\.json', which is not a plain"),
        ("a", FileEntry("xyz", 1), "files has no SHA-256 and size of a"),
        ("a", FileEntry("0" * 64, -1), "files has no SHA-256 and size of a"),
    ],
)
def test_files_that_cannot_be(tmp_path, tiny_bundle, name, entry, message):
    value = {"sha256": entry.sha256, "size": entry.size}
    with pytest.raises(BundleError, match=message):
        open_bundle(with_manifest(tmp_path, tiny_bundle, deep(["files", name], value)))


def test_manifest_json_is_stable_and_exact():
    manifest = replace(tiny.whole()[0], lines=(Line("l", (0.1, 1 / 3), (5e-324, 2.0)),))
    data = strict_json.dumps(manifest)
    assert strict_json.build(Manifest, strict_json.parse(data, "x"), "x") == manifest
    assert data == strict_json.dumps(manifest)
