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

from runtime import describe, profiling
from runtime.app import Options, play_all
from runtime.bundle import Bundle
from runtime.delegates.choice import delegates, resolve, summarize
from runtime.delegates.failover import Health, Supervisor
from runtime.errors import UserError
from runtime.npu.chip import Chip
from runtime.npu.faults import KINDS, Fault, parse_fault
from runtime.opening import Opening, add_options, read_options
from runtime.outputs import FrameResult
from runtime.player import Summary
from runtime.replay import Replay, replay_session
from runtime.serve.access import parse_access
from runtime.serve.server import Offer
from runtime.session import Session
from runtime.streams.engine import Fixed, Sessions
from runtime.swap import Outcome, Swap, Watcher
from runtime.text import printable

TOKEN = "NPU_RUN_TOKEN"
"""Environment variable with the token that the live page's visitors need; not an option, which others could list."""

SPARE = "kept.npub"
"""File in the ``--state`` folder: a copy of the last bundle that proved itself, for when a new one does not start."""

COMMANDS = """\
other commands:
  npu-run info BUNDLE [--json]      what is in a bundle, and who signed it
  npu-run selftest BUNDLE [--json]  replay its golden vectors, partition by partition
  npu-run profile BUNDLE [--json]   what each layer is estimated to cost on the target; --trace F for Perfetto
"""

DELEGATE_HELP = """npu: the simulated NPU, bit for bit; plain: its slow reference kernels; cpu: ONNX Runtime (other
bits); ort:PROVIDER[,OPTION=VALUE]: a processor that ONNX Runtime knows, as ort:OpenVINO,device_type=CPU; auto: the
first of those that is here, else npu"""

INJECT_HELP = f"""a fault of the simulated NPU for a drill, FAULT@FRAME or FAULT@FRAME+FRAMES, several times; faults
are {", ".join(KINDS)}; load stands for the frame before the first, in which programs are put on the device"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(words[0]) if words else None
    try:
        return command(words[1:]) if command else _run(words)
    except UserError as error:
        print(f"npu-run: {printable(' '.join(str(error).split()))}", file=sys.stderr)
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
    _add_inputs(parser)
    _add_outputs(parser)
    options = parser.parse_args(words)
    terminated, stop = threading.Event(), threading.Event()
    supervisor = Supervisor(Chip(options.inject), _say) if options.inject else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(_terminable(terminated, stop))
        sessions, offer = _sessions(stack, options, supervisor)
        summaries = play_all(
            sessions,
            options.source,
            _play_options(options),
            listen=_ticker() if sys.stderr.isatty() else lambda result: None,
            warn=_say,
            stop=stop,
            offer=offer,
            health=lambda: None if supervisor is None else supervisor.health(),
        )
    health = None if supervisor is None else supervisor.health()
    facts = [dataclasses.asdict(summary) for summary in summaries]
    document: dict[str, object] = facts[0] if len(facts) == 1 else {"sources": facts}
    _print(
        options.json,
        {**document, "health": None if health is None else dataclasses.asdict(health)},
        lambda: [*(line for summary in summaries for line in _summary_lines(summary)), *_health_lines(health)],
    )
    return 143 if terminated.is_set() and any(summary.kind != "live" for summary in summaries) else 0


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        action="append",
        help="video, folder of images, image, .npy file, camera (0), or stream (rtsp://...); several times",
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames of each source")
    _add_delegate(parser)
    add_options(parser)
    _add_faults(parser)
    parser.add_argument(
        "--watch", action="store_true", help="take over a new bundle when its file changes, or comes by POST /bundle"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
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
        "--serve",
        metavar="HOST:PORT",
        help=f"serve the live page, /metrics and /healthz; any host but this one needs a token in {TOKEN}",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def _play_options(options: argparse.Namespace) -> Options:
    return Options(
        events=options.events,
        annotate=options.annotate,
        delegate=options.delegate,
        limit=options.limit,
        sinks=tuple(options.sink),
        state=options.state,
        serve=None if options.serve is None else parse_access(options.serve, os.environ.get(TOKEN)),
    )


def _sessions(
    stack: contextlib.ExitStack, options: argparse.Namespace, supervisor: Supervisor | None
) -> tuple[Sessions, Offer | None]:
    """What runs the frames, and what takes new bundles; ``stack`` closes it."""
    opening = read_options(options)
    if not options.watch:
        session = Session(opening.open(options.bundle), options.delegate, strict=options.strict, supervisor=supervisor)
        _announce(session, opening)
        return Fixed(session), None
    if supervisor is not None:
        raise UserError("--inject does not go with --watch", fix="drill one of them at a time")

    def tell(outcome: Outcome) -> None:
        _say(f"bundle version {outcome.version}: {outcome.state}{f' ({outcome.reason})' if outcome.reason else ''}")

    spare = None if options.state is None else options.state / SPARE
    swap = Swap(options.bundle, opening, delegate=options.delegate, strict=options.strict, spare=spare, tell=tell)
    stack.callback(swap.close)
    stack.callback(Watcher(options.bundle, swap).close)
    _announce(swap.session(), opening)
    return swap, swap.offer_bytes


def _say(text: str) -> None:
    print(f"npu-run: {printable(text)}", file=sys.stderr, flush=True)


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
    options = _bundle_parser("info", "Describe a bundle.").parse_args(words)
    bundle = read_options(options).open(options.bundle)
    _print(options.json, describe.facts(bundle), lambda: describe.lines(bundle))
    return 0


def _selftest(words: Sequence[str]) -> int:
    """``npu-run selftest BUNDLE``: 1 when a tensor is not as near as its partition asks; vectors count as frames."""
    parser = _bundle_parser("selftest", "Replay a bundle's golden vectors, partition by partition.")
    _add_delegate(parser)
    _add_faults(parser)
    options = parser.parse_args(words)
    bundle = read_options(options).open(options.bundle)
    supervisor = Supervisor(Chip(options.inject), _say) if options.inject else None
    session = Session(bundle, options.delegate, strict=options.strict, supervisor=supervisor)
    result = replay_session(session)
    health = None if supervisor is None else supervisor.health()
    facts = {**dataclasses.asdict(result), "passed": result.passed}
    facts |= {} if health is None else {"health": dataclasses.asdict(health)}
    _print(options.json, facts, lambda: [*_health_lines(health), *_selftest_lines(session, result)])
    return 0 if result.passed else 1


def _profile(words: Sequence[str]) -> int:
    """``npu-run profile BUNDLE``."""
    parser = _bundle_parser("profile", "Say what each layer is estimated to cost on the target.")
    parser.add_argument("--trace", type=Path, metavar="F", help="write a timeline for chrome://tracing and Perfetto")
    options = parser.parse_args(words)
    bundle = read_options(options).open(options.bundle)
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
    add_options(parser)
    return parser


def _add_delegate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--delegate", type=_delegate, default="npu", metavar="D", help=DELEGATE_HELP)
    parser.add_argument("--strict", action="store_true", help="refuse when an operator would fall back to the CPU")


def _add_faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inject", type=_fault, action="append", default=[], metavar="F", help=INJECT_HELP)


def _delegate(text: str) -> str:
    """A delegate's name, checked, and what ``auto`` means here; a word that is none is wrong usage."""
    try:
        delegates(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return resolve(text)


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _announce(session: Session, opening: Opening) -> None:
    """Say, at the start of a run, whose bundle it is and where its partitions run; then it has run here."""
    manifest = session.manifest
    whose = f"{manifest.name} version {manifest.version}, {describe.signature(session.bundle)}"
    for line in (whose, *summarize(session.placement)):
        _say(line)
    opening.accept(session.bundle)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return min(value, sys.maxsize)


def _print(as_json: bool, facts: Mapping[str, object], lines: Callable[[], Sequence[str]]) -> None:
    print(json.dumps(facts) if as_json else "\n".join(map(printable, lines())), flush=True)


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
    if summary.delegate in ("npu", "plain"):
        lines.append(f"times are of this host: {summary.target} is simulated")
    else:
        lines.append(f"ran in ONNX Runtime on this host, not in the arithmetic of {summary.target}")
    return lines


def _health_lines(health: Health | None) -> list[str]:
    """What a drill came to; nothing without one."""
    if health is None:
        return []
    failures = ", ".join(f"{count} {kind}" for kind, count in health.failures.items()) or "none"
    line = (
        f"device: {health.jobs - health.on_host} of {health.jobs} jobs, the host computed {health.on_host}; "
        f"failures: {failures}; came back {health.recoveries} times; {health.throttled} jobs throttled"
    )
    return [line, *(f"a bit flipped unnoticed: {flip}" for flip in health.flips)]


def _selftest_lines(session: Session, result: Replay) -> list[str]:
    fact = f"{result.differing} of {result.bytes} bytes differ, over {result.vectors} golden vectors"
    verdict = "passed" if result.passed else "FAILED"
    rows = list(summarize(session.placement))
    rows += [
        f"partition {c.partition}, {c.tensor}: {c.differing} of {c.bytes} bytes differ, at most {c.worst:.3g}, "
        f"{c.mean:.3g} on average; {'fine' if c.passed else 'NOT fine'}, asked is {c.rule}"
        for c in result.crossings
        if c.differing
    ]
    return [*rows, f"{session.bundle.path}: self-test {verdict}: {fact}"]


def _ticker() -> Callable[[FrameResult], None]:
    """A listener that rewrites one line on stderr, twice a second."""
    last = [time.monotonic()]

    def tick(result: FrameResult) -> None:
        now = time.monotonic()
        if now - last[0] >= 0.5:
            last[0] = now
            print(f"\rframe {result.index + 1}", end="", file=sys.stderr, flush=True)

    return tick
