"""Play a bundle on sources: frames in; events, deliveries, an annotated video, a live page and summaries out."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.bundle import Bundle
from runtime.delegates.failover import Health
from runtime.errors import SourceError, UserError
from runtime.events import happened, link_changed, new_run, run_of
from runtime.outputs import EventLog, FrameResult, VideoFile
from runtime.player import Player, Summary, painter
from runtime.serve.access import Access
from runtime.serve.facts import Facts, partitions
from runtime.serve.pictures import Draw, Pictures
from runtime.serve.server import Offer, Server
from runtime.session import Session
from runtime.sinks.courier import open_sink
from runtime.sinks.recorder import Batch, Recorder
from runtime.status import Status
from runtime.streams.engine import Broken, Engine, Fixed, Sessions
from runtime.streams.live import Link
from runtime.streams.opening import Opened, open_all
from runtime.zones import Happening

PATIENCE_S, DURABLE_PATIENCE_S = 10.0, 2.0
"""Seconds that sinks have, at the end, for the events that wait; the second when told to stop and they are kept."""

Listener = Callable[[FrameResult], None]


@dataclass(frozen=True)
class Options:
    """What ``npu-run`` is asked for.

    Attributes:
        events: file for one JSON line per frame.
        annotate: mp4 file for the frames with boxes, tracks and lines on them; one source only.
        delegate: what runs NPU partitions, a word of ``runtime.delegates.choice``.
        limit: stop after so many frames of each source.
        sinks: where events are delivered, see ``runtime.sinks.courier.open_sink``.
        state: folder of the queue that keeps events over restarts; in memory when ``None``.
        serve: who may see the live page, and where; ``None``: nobody.
    """

    events: Path | None = None
    annotate: Path | None = None
    delegate: str = "npu"
    limit: int | None = None
    sinks: tuple[str, ...] = ()
    state: Path | None = None
    serve: Access | None = None


def play(
    bundle: Bundle,
    source: str,
    *,
    events: Path | None = None,
    annotate: Path | None = None,
    delegate: str = "npu",
    limit: int | None = None,
    listen: Listener = lambda result: None,
) -> Summary:
    """Run a bundle on every frame of one source; see ``play_all``."""
    options = Options(events=events, annotate=annotate, delegate=delegate, limit=limit)
    return play_all(Fixed(Session(bundle, delegate)), (source,), options, listen=listen)[0]


def play_all(
    sessions: Sessions,
    sources: Sequence[str],
    options: Options,
    *,
    listen: Listener = lambda result: None,
    warn: Callable[[str], None] = lambda text: None,
    stop: threading.Event | None = None,
    offer: Offer | None = None,
    health: Callable[[], Health | None] = lambda: None,
) -> list[Summary]:
    """Run a bundle on every frame of several sources at a time.

    Objects are tracked and counted when the ``video`` extra is installed. Outputs are opened only once the first
    frame was inferred; when a source breaks later, what was written until then stays, and the others go on.

    Args:
        sessions: what runs each frame; the first one says what the lines, zones and labels are.
        sources: as ``--source``: videos, folders of images, images, ``.npy`` files, cameras' numbers, streams.
        options: what else.
        listen: called after every frame.
        warn: told of every interruption of a live source.
        stop: when it is set no further frame is captured, those that wait are played, and all ends in good order.
        offer: takes a new bundle from the live page's ``POST /bundle``; ``None``: there is no such page.
        health: asked for the live page and the metrics: what became of the NPU's jobs.

    Raises:
        SourceError: a source cannot be opened, has no frame, or breaks; or an extra is missing for it.
        UserError: an output cannot be written, or would replace a source or the bundle; or the bundle cannot be run.
    """
    run = _Run(sessions, sources, options, warn, stop or threading.Event())
    _spare_inputs(run.bundle, [Path(source) for source in sources], options)
    with contextlib.ExitStack() as stack:
        for opened in run.opened:
            stack.callback(opened.feed.frames.close)
        return run.play(stack, listen, offer, health)


class _Run:
    """What playing several sources needs from the first frame to the last."""

    def __init__(
        self,
        sessions: Sessions,
        sources: Sequence[str],
        options: Options,
        warn: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self.options, self._sessions, self._warn, self._stop = options, sessions, warn, stop
        self.bundle = sessions.session().bundle
        self.opened = open_all(sources, options.limit, self._link, stop)
        if options.annotate is not None and len(self.opened) > 1:
            raise UserError("shows one source", where=options.annotate, fix="give one --source with --annotate")
        self.status = Status([(each.name, each.kind) for each in self.opened])
        self._runs = [_run_id(self.bundle, each) for each in self.opened]
        self._links = [itertools.count() for _ in self.opened]
        self._players = [Player(self.bundle, each, options.delegate) for each in self.opened]
        self._recorder: Recorder | None = None
        self._broken: list[SourceError] = []

    def play(
        self, stack: contextlib.ExitStack, listen: Listener, offer: Offer | None, health: Callable[[], Health | None]
    ) -> list[Summary]:
        """Everything, in order."""
        options = self.options
        if options.sinks or options.state is not None or options.serve is not None:
            name = f"npu-run-{self.bundle.manifest.name}"
            sinks = [open_sink(text, name) for text in options.sinks]
            self._recorder = stack.enter_context(Recorder(options.state, sinks, self._stop))
        engine = Engine(self._sessions, [each.feed for each in self.opened], self._stop)
        stack.enter_context(engine)
        show = self._serve(stack, offer, health)
        outputs: list[Listener] | None = None
        for player in self._players:
            player.start()
        for item in engine.results():
            if isinstance(item, Broken):
                self._break(item)
                continue
            self.bundle = item.session.bundle
            result = self._players[item.source].take(item)
            if outputs is None:
                outputs = [*self._outputs(stack, result), *show, listen]
            self._report(item.source, item.seconds, result, engine.dropped[item.source])
            for output in outputs:
                output(result)
        return self._finish()

    def _serve(
        self, stack: contextlib.ExitStack, offer: Offer | None, health: Callable[[], Health | None]
    ) -> list[Listener]:
        """The live page, if it is asked for: what takes every result for it."""
        access, recorder = self.options.serve, self._recorder
        if access is None or recorder is None:
            return []
        pictures = Pictures(self._draws())

        known = [(self.bundle, partitions(self.bundle))]

        def facts() -> Facts:
            bundle = self.bundle
            if known[0][0] is not bundle:
                known[0] = (bundle, partitions(bundle))
            return Facts(*known[0], self.options.delegate, self.status, recorder, self.options.state, health())

        server = stack.enter_context(Server(access, facts, pictures, offer))
        self._warn(f"the live page is at {server.url}")
        return [pictures.show]

    def _draws(self) -> dict[str, Draw]:
        """What draws each source's results; nothing without the ``video`` extra."""
        try:
            return {player.name: painter(player) for player in self._players}
        except SourceError as error:
            self._warn(f"the live page has no video: {error}")
            return {}

    def _outputs(self, stack: contextlib.ExitStack, first: FrameResult) -> list[Listener]:
        """What takes every result; files are closed by ``stack``."""
        options, opened = self.options, self.opened[0]
        outputs: list[Listener] = []
        if options.annotate is not None:
            draw = painter(self._players[0])
            size = (first.frame.pixels.shape[1], first.frame.pixels.shape[0])
            video = stack.enter_context(VideoFile(options.annotate, opened.rate, size))
            outputs.append(lambda result: video.write(draw(result)))
        if options.events is not None:
            log = EventLog(
                options.events,
                self.bundle.manifest.labels,
                named=len(self.opened) > 1,
                patient=all(each.kind == "live" for each in self.opened),
            )
            outputs.append(stack.enter_context(log).write)
        return outputs

    def _report(self, source: int, seconds: dict[str, float], result: FrameResult, dropped: int) -> None:
        player, captured = self._players[source], result.frame.captured
        self.status.played(source, None if captured is None else max(0.0, time.time() - captured), seconds)
        self.status.change(source, lambda status: player.describe(status, result, dropped))
        self._record(source, result, player.happened)

    def _record(self, source: int, result: FrameResult, items: Sequence[Happening]) -> None:
        if self._recorder is not None and items:
            run, once = self._runs[source], self.opened[source].kind != "live"
            made = tuple(happened(run, result.source, result, item) for item in items)
            self._recorder.record(Batch(made, run, result.index, once))

    def _link(self, source: int, link: Link) -> None:
        """A live source came or went; called by the thread that captures it."""
        name, player, now = self.opened[source].name, self._players[source], time.time()
        changed = self.status.enter(source, "up" if link.up else "down", link.problem)
        if not link.up:
            self._warn(f"{name}: {link.problem}; trying again in {link.retry_s:.1f} s")
        if self._recorder is not None and changed:
            number = next(self._links[source])
            event = link_changed(self._runs[source], name, number, player.frames, player.time_s, now, link.problem)
            self._recorder.record(Batch((event,), self._runs[source], player.frames, once=False))

    def _break(self, item: Broken) -> None:
        self.status.enter(item.source, "broken", item.error.what)
        self._broken.append(item.error)

    def _finish(self) -> list[Summary]:
        """End visits, deliver what waits, and say what went wrong."""
        for source, player in enumerate(self._players):
            last = player.close()
            if last is not None:
                self._record(source, replace(last, index=last.index + 1), player.happened)
            elif self.opened[source].kind != "live" and not self._broken and not self._stop.is_set():
                self._broken.append(SourceError("has no frame", where=player.name))
        if self._recorder is not None:
            hurried = self._stop.is_set() and self.options.state is not None
            for sink, count in self._recorder.close(DURABLE_PATIENCE_S if hurried else PATIENCE_S).items():
                self._warn(f"{count} events wait in {self.options.state} for {sink}; the next run delivers them")
        if self._broken:
            raise self._broken[0]
        return [player.summary() for player in self._players]


def _run_id(bundle: Bundle, opened: Opened) -> str:
    return new_run() if opened.kind == "live" else run_of(bundle.sha256, opened.name, Path(opened.text))


def _spare_inputs(bundle: Bundle, sources: Sequence[Path], options: Options) -> None:
    events, annotate = options.events, options.annotate
    inputs = [bundle.path, *sources, *(item for source in sources if source.is_dir() for item in source.iterdir())]
    for output in (events, annotate, *(Path(sink) for sink in options.sinks)):
        if output is not None and any(_same(output, each) for each in inputs):
            raise UserError("is read, so it cannot be written", where=output, fix="give another name")
    if events is not None and annotate is not None and events.absolute() == annotate.absolute():
        raise UserError("cannot hold both events and video", where=events, fix="give another name to one of them")
    written = [path.absolute() for path in (*map(Path, options.sinks), events, annotate) if path is not None]
    twice = next((path for path in written if written.count(path) > 1), None)
    if twice is not None:
        raise UserError("is to be written twice", where=twice, fix="give another name to one of them")


def _same(output: Path, read: Path) -> bool:
    """Whether both are one file, by whatever name; what does not exist yet is another one."""
    try:
        return output.samefile(read)
    except OSError:
        return False
