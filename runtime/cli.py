"""``npu-run``: play a bundle, describe it, or test it; the only prints and exit codes of the runtime.

Exit codes: 0 fine, 1 the user's files or a failed self-test, 2 usage, 130 interrupted (SIGINT), 143 terminated
(SIGTERM) before the end of a file. Live sources have no end, so there SIGTERM is a good one: 0. Anything else is our
bug and shows its traceback.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from runtime.app import Options, play_all
from runtime.bundle import Bundle, PartitionEntry, open_bundle
from runtime.errors import UserError
from runtime.npu.encoding import loads
from runtime.npu.program import Program
from runtime.npu.timeline import PROVENANCE, estimate
from runtime.outputs import FrameResult
from runtime.player import Summary
from runtime.serve.access import parse_access
from runtime.session import DELEGATES, replay

TOKEN = "NPU_RUN_TOKEN"
"""Environment variable with the token that the live page's visitors need; not an option, which others could list."""

COMMANDS = """\
other commands:
  npu-run info BUNDLE [--json]      what is in a bundle
  npu-run selftest BUNDLE [--json]  replay its golden vectors on the simulated NPU, byte by byte
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
    except BrokenPipeError:
        # whoever read the output is gone; Python would say so once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    _source_options(parser)
    _result_options(parser)
    options = parser.parse_args(words)
    stop, terminated = threading.Event(), threading.Event()
    with _terminable(stop, terminated):
        summaries = play_all(
            open_bundle(options.bundle),
            options.source,
            Options(
                events=options.events,
                annotate=options.annotate,
                delegate=options.delegate,
                limit=options.limit,
                sinks=tuple(options.sink),
                state=options.state,
                serve=None if options.serve is None else parse_access(options.serve, os.environ.get(TOKEN)),
            ),
            listen=_ticker() if sys.stderr.isatty() else lambda result: None,
            warn=lambda text: print(f"npu-run: {text}", file=sys.stderr, flush=True),
            stop=stop,
        )
    facts = [dataclasses.asdict(summary) for summary in summaries]
    _print(
        options.json,
        facts[0] if len(facts) == 1 else {"sources": facts},
        lambda: [line for summary in summaries for line in _summary_lines(summary)],
    )
    return 143 if terminated.is_set() and any(summary.kind != "live" for summary in summaries) else 0


def _source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        action="append",
        help="video, folder of images, image, .npy file, camera (0), or stream (rtsp://...); several times",
    )
    parser.add_argument(
        "--delegate",
        choices=tuple(DELEGATES),
        default="npu",
        help="npu: the simulated NPU, bit for bit; plain: its slow reference kernels; cpu: ONNX Runtime (other bits)",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames of each source")


def _result_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=Path, metavar="F", help="write one JSON line per frame")
    parser.add_argument("--annotate", type=Path, metavar="F", help="write an mp4 with boxes, tracks and counts")
    parser.add_argument(
        "--sink",
        action="append",
        default=[],
        metavar="S",
        help="deliver crossings and visits to a .jsonl, .csv, .sqlite file or mqtt://HOST:PORT/PREFIX; several times",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep events that are not delivered here, over restarts"
    )
    parser.add_argument(
        "--serve",
        metavar="HOST:PORT",
        help=f"serve the live page, /metrics and /healthz; any host but this one needs a token in {TOKEN}",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


@contextlib.contextmanager
def _terminable(*flags: threading.Event) -> Iterator[None]:
    """SIGTERM sets flags, and so ends a run in good order."""

    def set_all(number: int, frame: object) -> None:
        for flag in flags:
            flag.set()

    before = signal.signal(signal.SIGTERM, set_all)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


_COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"info": _info, "selftest": _selftest}


def _bundle_options(command: str, description: str, words: Sequence[str]) -> tuple[Bundle, bool]:
    parser = argparse.ArgumentParser(f"npu-run {command}", description=description)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(words)
    return open_bundle(options.bundle), options.json


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return min(value, sys.maxsize)


def _print(as_json: bool, facts: Mapping[str, object], lines: Callable[[], Sequence[str]]) -> None:
    print(json.dumps(facts, ensure_ascii=False) if as_json else "\n".join(lines()), flush=True)


def _summary_lines(summary: Summary) -> list[str]:
    boxes = ", ".join(f"{count} {label}" for label, count in summary.boxes.items())
    untracked = "images are not tracked" if summary.kind == "images" else "not tracked"
    tracks = untracked if summary.tracks is None else f"{summary.tracks} tracks"
    lines = [
        f"{summary.source}: {summary.frames} frames in {summary.seconds:.1f} s ({summary.fps:.1f} per second)",
        f"boxes: {boxes}; {tracks}",
    ]
    lines += [f"line {name}: {count['in']} in, {count['out']} out" for name, count in summary.counts.items()]
    lines += [
        f"zone {name}: {zone.visits} visits of {zone.dwell_s:.1f} s, {zone.most} at most"
        for name, zone in summary.zones.items()
    ]
    if summary.dropped:
        lines.append(f"{summary.dropped} frames gave way to newer ones")
    if summary.tracks is None and summary.kind != "images":
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
    program = loads(bundle.read(partition.program))
    facts = {"provenance": PROVENANCE, "unknown": _unknown(program), **dataclasses.asdict(estimate(program))}
    return {**dataclasses.asdict(partition), "timeline": facts}


def _unknown(program: Program) -> list[str]:
    """The figures of the target that are not public, so count for nothing in an estimate."""
    return [name for name, value in program.device.items() if value == 0]


def _estimate_line(bundle: Bundle, file: str) -> str:
    program = loads(bundle.read(file))
    timeline, unknown = estimate(program), _unknown(program)
    amounts = f"{timeline.macs} MACs, {timeline.cycles} cycles, {timeline.bytes} bytes moved"
    without = f", without {', '.join(unknown)}, which is not public" if unknown else ""
    return f"{amounts}, {timeline.ms:.2f} ms per inference ({PROVENANCE}{without})"


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
