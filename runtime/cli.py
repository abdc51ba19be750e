"""``npu-run``: play a bundle, describe it, or test it; the only prints and exit codes of the runtime.

Exit codes: 0 fine, 1 the user's files or a failed self-test, 2 usage, 130 interrupted. Anything else is our bug and
shows its traceback.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runtime import profiling
from runtime.app import Summary, play
from runtime.bundle import Bundle, PartitionEntry, open_bundle
from runtime.errors import UserError
from runtime.npu.encoding import loads
from runtime.npu.timeline import timeline
from runtime.outputs import FrameResult
from runtime.session import DELEGATES, replay

COMMANDS = """\
other commands:
  npu-run info BUNDLE [--json]      what is in a bundle
  npu-run selftest BUNDLE [--json]  replay its golden vectors on the simulated NPU, byte by byte
  npu-run profile BUNDLE [--json]   what each layer is estimated to cost on the target; --trace FILE for Perfetto
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(words[0]) if words else None
    try:
        return command(words[1:]) if command else _run(words)
    except UserError as error:
        print(f"npu-run: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("npu-run: interrupted; what was written until now is kept", file=sys.stderr)
        return 130


def _run(words: Sequence[str]) -> int:
    """``npu-run BUNDLE --source ...``."""
    parser = argparse.ArgumentParser(
        "npu-run",
        description="Play a bundle on a video, images or a camera.",
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--source", required=True, help="video, folder of images, image, .npy file, or camera (0)")
    parser.add_argument("--events", type=Path, metavar="F", help="write one JSON line per frame")
    parser.add_argument("--annotate", type=Path, metavar="F", help="write an mp4 with boxes, tracks and counts")
    parser.add_argument(
        "--delegate",
        choices=tuple(DELEGATES),
        default="npu",
        help="npu: the simulated NPU, bit for bit; plain: its slow reference kernels; cpu: ONNX Runtime (other bits)",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    options = parser.parse_args(words)
    summary = play(
        open_bundle(options.bundle),
        options.source,
        events=options.events,
        annotate=options.annotate,
        delegate=options.delegate,
        limit=options.limit,
        listen=_ticker() if sys.stderr.isatty() else lambda result: None,
    )
    _print(options.json, dataclasses.asdict(summary), lambda: _summary_lines(summary))
    return 0


def _info(words: Sequence[str]) -> int:
    """``npu-run info BUNDLE``."""
    bundle, as_json = _bundle_options("info", "Describe a bundle.", words)
    facts = _facts(bundle)
    _print(as_json, facts, lambda: _info_lines(bundle))
    return 0


def _selftest(words: Sequence[str]) -> int:
    """``npu-run selftest BUNDLE``: 1 when a byte differs."""
    bundle, as_json = _bundle_options("selftest", "Replay a bundle's golden vectors on the simulated NPU.", words)
    result = replay(bundle)
    fact = f"{result.differing} of {result.bytes} bytes differ, over {result.vectors} golden vectors"
    verdict = "passed" if result.differing == 0 else "FAILED"
    _print(as_json, dataclasses.asdict(result), lambda: [f"{bundle.path}: self-test {verdict}: {fact}"])
    return 0 if result.differing == 0 else 1


def _profile(words: Sequence[str]) -> int:
    """``npu-run profile BUNDLE``."""
    parser = _bundle_parser("profile", "Say what each layer is estimated to cost on the target.")
    parser.add_argument("--trace", type=Path, metavar="F", help="write a timeline for chrome://tracing and Perfetto")
    options = parser.parse_args(words)
    bundle = open_bundle(options.bundle)
    if options.trace is not None:
        _write_trace(options.trace, bundle)
    _print(options.json, profiling.facts(bundle), lambda: profiling.lines(bundle))
    return 0


def _write_trace(path: Path, bundle: Bundle) -> None:
    if path.exists() and path.samefile(bundle.path):
        raise UserError("is read, so it cannot be written", where=path, fix="give another name")
    try:
        path.write_text(json.dumps(profiling.document(bundle)) + "\n")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=path) from error


_COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"info": _info, "selftest": _selftest, "profile": _profile}


def _bundle_parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"npu-run {command}", description=description)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _bundle_options(command: str, description: str, words: Sequence[str]) -> tuple[Bundle, bool]:
    options = _bundle_parser(command, description).parse_args(words)
    return open_bundle(options.bundle), options.json


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return min(value, sys.maxsize)


def _print(as_json: bool, facts: Mapping[str, object], lines: Callable[[], Sequence[str]]) -> None:
    print(json.dumps(facts, ensure_ascii=False) if as_json else "\n".join(lines()))


def _summary_lines(summary: Summary) -> list[str]:
    boxes = ", ".join(f"{count} {label}" for label, count in summary.boxes.items())
    tracks = "not tracked" if summary.tracks is None else f"{summary.tracks} tracks"
    lines = [
        f"{summary.source}: {summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.1f} per second)",
        f"boxes: {boxes}; {tracks}",
    ]
    lines += [f"line {name}: {count['in']} in, {count['out']} out" for name, count in summary.counts.items()]
    if summary.tracks is None:
        lines.append("tracking and counting need: pip install supervision trackers")
    if summary.delegate != "cpu":
        lines.append(f"times are of this host: {summary.target} is simulated")
    else:
        lines.append(f"ran in ONNX Runtime on this host, not in the arithmetic of {summary.target}")
    return lines


def _facts(bundle: Bundle) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "bytes": bundle.size,
        "sha256": bundle.sha256,
        "schema": manifest.schema,
        "name": manifest.name,
        "target": manifest.target,
        "contract": manifest.contract,
        "labels": manifest.labels,
        "preprocess": dataclasses.asdict(manifest.preprocess),
        "decoder": dataclasses.asdict(manifest.decoder),
        "lines": [dataclasses.asdict(line) for line in manifest.lines],
        "partitions": [_partition_facts(bundle, partition) for partition in manifest.partitions],
        "golden": None if manifest.golden is None else manifest.golden.count,
        "provenance": dict(manifest.provenance),
        "files": {name: dataclasses.asdict(entry) for name, entry in manifest.files.items()},
    }


def _partition_facts(bundle: Bundle, partition: PartitionEntry) -> dict[str, object]:
    if partition.program is None:
        return {**dataclasses.asdict(partition), "timeline": None}
    line = timeline(loads(bundle.read(partition.program)))
    return {**dataclasses.asdict(partition), "timeline": None if line is None else profiling.totals(line)}


def _estimate_line(bundle: Bundle, file: str) -> str:
    line = timeline(loads(bundle.read(file)))
    if line is None:
        return "carries no estimates"
    spent = "time per inference not known" if line.ms is None else f"{line.ms:.2f} ms per inference"
    without = f", without {', '.join(line.missing)}, which is not public" if line.missing else ""
    return f"{line.macs} MACs, {sum(line.bytes.values())} bytes moved, {spent} (estimate, {line.provenance}{without})"


def _info_lines(bundle: Bundle) -> list[str]:
    manifest, pre = bundle.manifest, bundle.manifest.preprocess
    golden = "none" if manifest.golden is None else str(manifest.golden.count)
    rows = [
        ("bundle", f"{manifest.name} (schema {manifest.schema}, {bundle.size} bytes)"),
        ("sha256", bundle.sha256),
        ("target", f"{manifest.target} (contract {manifest.contract})"),
        ("input", f"{pre.width}x{pre.height} RGB"),
        ("labels", ", ".join(manifest.labels)),
        ("lines", ", ".join(line.name for line in manifest.lines) or "none"),
        ("golden", f"{golden} vectors"),
    ]
    for index, part in enumerate(manifest.partitions):
        file = part.program or part.model
        size = manifest.files[file].size
        rows.append((f"part {index}", f"{part.device}: {len(part.nodes)} nodes, {file}, {size} bytes"))
        if part.program is not None:
            rows.append(("", _estimate_line(bundle, part.program)))
    rows += [(key, value) for key, value in manifest.provenance.items()]
    width = max(len(key) for key, _ in rows)
    return [f"{key:<{width}}  {value}" for key, value in rows]


def _ticker() -> Callable[[FrameResult], None]:
    """A listener that rewrites one line on stderr, twice a second."""
    last = [time.monotonic()]

    def tick(result: FrameResult) -> None:
        now = time.monotonic()
        if now - last[0] >= 0.5:
            last[0] = now
            print(f"\rframe {result.index + 1}", end="", file=sys.stderr, flush=True)

    return tick
