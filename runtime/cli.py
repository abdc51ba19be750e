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
from runtime.arguments import TOKEN, add_delegate, add_faults, bundle_parser, run_parser
from runtime.bundle import Bundle
from runtime.delegates.choice import summarize
from runtime.delegates.failover import Supervisor
from runtime.errors import UserError
from runtime.npu.chip import Chip
from runtime.opening import Opening, read_options
from runtime.outputs import FrameResult
from runtime.replay import replay_session
from runtime.serve.access import parse_access
from runtime.serve.server import Offer
from runtime.session import Session
from runtime.streams.engine import Fixed, Sessions
from runtime.summaries import health_lines, selftest_lines, summary_lines
from runtime.swap import Outcome, Swap, Watcher
from runtime.text import printable

SPARE = "kept.npub"
"""File in the ``--state`` folder: a copy of the last bundle that proved itself, for when a new one does not start."""


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
    options = run_parser().parse_args(words)
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
        lambda: [*(line for summary in summaries for line in summary_lines(summary)), *health_lines(health)],
    )
    return 143 if terminated.is_set() and any(summary.kind != "live" for summary in summaries) else 0


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
    options = bundle_parser("info", "Describe a bundle.").parse_args(words)
    bundle = read_options(options).open(options.bundle)
    _print(options.json, describe.facts(bundle), lambda: describe.lines(bundle))
    return 0


def _selftest(words: Sequence[str]) -> int:
    """``npu-run selftest BUNDLE``: 1 when a tensor is not as near as its partition asks; vectors count as frames."""
    parser = bundle_parser("selftest", "Replay a bundle's golden vectors, partition by partition.")
    add_delegate(parser)
    add_faults(parser)
    options = parser.parse_args(words)
    bundle = read_options(options).open(options.bundle)
    supervisor = Supervisor(Chip(options.inject), _say) if options.inject else None
    session = Session(bundle, options.delegate, strict=options.strict, supervisor=supervisor)
    result = replay_session(session)
    health = None if supervisor is None else supervisor.health()
    facts = {**dataclasses.asdict(result), "passed": result.passed}
    facts |= {} if health is None else {"health": dataclasses.asdict(health)}
    _print(options.json, facts, lambda: [*health_lines(health), *selftest_lines(session, result)])
    return 0 if result.passed else 1


def _profile(words: Sequence[str]) -> int:
    """``npu-run profile BUNDLE``."""
    parser = bundle_parser("profile", "Say what each layer is estimated to cost on the target.")
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


def _announce(session: Session, opening: Opening) -> None:
    """Say, at the start of a run, whose bundle it is and where its partitions run; then it has run here."""
    manifest = session.manifest
    whose = f"{manifest.name} version {manifest.version}, {describe.signature(session.bundle)}"
    for line in (whose, *summarize(session.placement)):
        _say(line)
    opening.accept(session.bundle)


def _print(as_json: bool, facts: Mapping[str, object], lines: Callable[[], Sequence[str]]) -> None:
    print(json.dumps(facts) if as_json else "\n".join(map(printable, lines())), flush=True)


def _ticker() -> Callable[[FrameResult], None]:
    """A listener that rewrites one line on stderr, twice a second."""
    last = [time.monotonic()]

    def tick(result: FrameResult) -> None:
        now = time.monotonic()
        if now - last[0] >= 0.5:
            last[0] = now
            print(f"\rframe {result.index + 1}", end="", file=sys.stderr, flush=True)

    return tick
