"""Change the bundle while it runs: verify, self-test, swap between frames, go back when it fails.

A loop that plays frames asks for its session between frames, and tells what went wrong::

    swap = Swap(path, opening, delegate="npu")
    for frame in frames:
        session = swap.session()
        try:
            found = session.detect(frame)
        except UserError as error:
            if not swap.failed(session, error):
                raise
            found = swap.session().detect(frame)

``offer`` and ``Watcher`` may be called from any thread; a new bundle is opened and tested in the background, so that no
frame waits for it.
"""

import functools
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.bundle import Bundle, read_bundle
from runtime.errors import BundleError, SourceError, SwapError, UserError
from runtime.files import replace_file
from runtime.opening import Opening
from runtime.replay import replay_session
from runtime.session import Session

TRIAL_FRAMES = 30
"""Frames that a new bundle must run without an error before the old one is given up."""


WAITING = 4
"""Bundles that may wait for their test; further ones are refused."""


@dataclass(frozen=True)
class Outcome:
    """What became of an offered bundle.

    Attributes:
        state: ``testing``, ``ready`` (it passed and waits for the next frame), ``swapped``, ``refused`` (before a frame
            ran), ``rolled back`` (after one did), or ``kept`` (it has run ``TRIAL_FRAMES`` frames, and the old one was
            given up).
        version: of the bundle, when it could be read.
        sha256: of its bytes, when it could be read.
        reason: why it was refused or rolled back.
    """

    state: str
    version: int | None = None
    sha256: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Tested:
    """A bundle that passed.

    Attributes:
        session: loaded.
        data: its bytes.
        arrived: whether they came over the network, so that they lie nowhere yet.
    """

    session: Session
    data: bytes
    arrived: bool = False


class Swap:
    """The session that runs, and the one that takes over.

    The old session stays loaded until the new one has run ``TRIAL_FRAMES`` frames.
    """

    def __init__(
        self,
        path: Path,
        opening: Opening,
        *,
        delegate: str = "npu",
        strict: bool = False,
        spare: Path | None = None,
        tell: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Open and load the bundle to start with; it is self-tested when it has golden vectors.

        Args:
            path: of the bundle that runs; an offered one is put there when it is kept.
            opening: whom to trust, and the limits.
            delegate: as ``Session`` takes it.
            strict: as ``Session`` takes it.
            spare: file with a copy of the last bundle that was kept; started with when the one at ``path`` is refused,
                so that a device whose new bundle is bad comes up again after a power cut.
            tell: called with every outcome, from the thread that it comes about in.

        Raises:
            UserError: it cannot be opened, loaded, or fails its self-test, and so does the spare one, if there is one;
                or its version cannot be written down.
        """
        self._path, self._opening, self._tell, self._spare = path, opening, tell, spare
        self._delegate, self._strict = delegate, strict
        self._lock = threading.Lock()
        self._current = self._first()
        self._previous: _Tested | None = None
        self._next: _Tested | None = None
        self._frames = 0
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        opening.accept(self._current.session.bundle)
        self._keep(self._current)
        self._worker = threading.Thread(target=self._work, name="bundle swap", daemon=True)
        self._worker.start()

    def session(self) -> Session:
        """The session for the next frame; call it once between frames.

        A bundle that passed its tests takes over here; one that has run long enough is put in its place on disk.
        """
        with self._lock:
            if self._next is not None:
                self._previous, self._current, self._next = self._current, self._next, None
                self._frames = 0
                self._say("swapped", self._current.session.bundle)
            elif self._previous is not None:
                self._frames += 1
                if self._frames >= TRIAL_FRAMES:
                    self._tasks.put(functools.partial(self._keep, self._current))
                    self._previous = None
            return self._current.session

    def failed(self, session: Session, error: UserError) -> bool:
        """Whether the frame that ``session`` failed on is worth another try, with what :meth:`session` gives now.

        It is when there was a bundle before, which takes over again, or when another one has taken over meanwhile. An
        error of the source is not the bundle's.
        """
        if isinstance(error, SourceError):
            return False
        with self._lock:
            if session is not self._current.session:
                return True
            if self._previous is None:
                return False
            self._current, self._previous = self._previous, None
            self._say("rolled back", session.bundle, str(error))
        return True

    def offer(self, path: Path) -> None:
        """Test the bundle at ``path`` in the background, and swap when it passes.

        Raises:
            SwapError: too many are waiting, or the swap was closed.
        """
        self._put(path, None)

    def offer_bytes(self, data: bytes) -> None:
        """As :meth:`offer`, for a bundle that came over the network; it replaces the file when it is kept.

        Raises:
            SwapError: as there.
        """
        self._put(self._path, data)

    def close(self) -> None:
        """Stop testing; a test that goes on is finished first."""
        self._tasks.put(None)
        self._worker.join()

    def wait(self, seconds: float) -> Outcome:
        """The outcome once nothing is being tested, or after ``seconds``."""
        end = time.monotonic() + seconds
        while self._tasks.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
        return self.outcome

    def _put(self, path: Path, data: bytes | None) -> None:
        if not self._worker.is_alive():
            raise SwapError("no bundle is taken any more: the program ends", where=path)
        if self._tasks.qsize() >= WAITING:
            raise SwapError(f"{WAITING} bundles wait to be tested already", where=path, fix="try again later")
        self._tasks.put(functools.partial(self._consider, path, data))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            finally:
                self._tasks.task_done()

    def _first(self) -> _Tested:
        """The bundle to start with: the one at the path, else the spare one."""
        try:
            return self._open(self._path)
        except UserError as error:
            if self._spare is None or not self._spare.exists():
                raise
            self._say("refused", None, str(error))
            return self._open(self._spare)

    def _open(self, path: Path) -> _Tested:
        data = read_bundle(path, self._opening.limits)
        return _Tested(_test(self._opening.parse(data, path), self._delegate, self._strict), data)

    def _consider(self, path: Path, data: bytes | None) -> None:
        """Test what was offered; it is next when it passes."""
        bundle, current = None, self._current.session.bundle
        try:
            read = read_bundle(path, self._opening.limits) if data is None else data
            bundle = self._opening.parse(read, path)
            if bundle.sha256 == current.sha256:
                return
            self._say("testing", bundle)
            _same_use(bundle, current)
            session = _test(bundle, self._delegate, self._strict)
        except UserError as error:
            self._say("refused", bundle, str(error))
            return
        with self._lock:
            self._next = _Tested(session, read, arrived=data is not None)
            self._say("ready", bundle)

    def _keep(self, tested: _Tested) -> None:
        """Put a bundle where it is found after a restart, and remember its version: an older one is refused now."""
        bundle, reason = tested.session.bundle, None
        try:
            if tested.arrived:
                replace_file(self._path, tested.data)
            if self._spare is not None:
                replace_file(self._spare, tested.data)
            self._opening.accept(bundle)
        except OSError as error:
            where = error.filename or self._path
            reason = f"{where}: cannot be written: {error.strerror}; the bundle runs until the program ends"
        except UserError as error:
            reason = str(error)
        self._say("kept", bundle, reason)

    def _say(self, state: str, bundle: Bundle | None, reason: str | None = None) -> None:
        version, digest = (None, None) if bundle is None else (bundle.manifest.version, bundle.sha256)
        self.outcome = Outcome(state, version, digest, reason)
        self._tell(self.outcome)


def _test(bundle: Bundle, delegate: str, strict: bool) -> Session:
    """A loaded session whose golden vectors hold; without golden vectors, a loaded one."""
    session = Session(bundle, delegate, strict=strict)
    if bundle.manifest.golden is not None:
        replayed = replay_session(session)
        if not replayed.passed:
            worst = next(crossing for crossing in replayed.crossings if not crossing.passed)
            what = f"fails its self-test: {worst.differing} of {worst.bytes} bytes of {worst.tensor} differ"
            raise BundleError(f"{what}, asked is {worst.rule}", where=bundle.path)
    return session


def _same_use(new: Bundle, old: Bundle) -> None:
    """A bundle takes over only from one of the same name: what tracks and counts goes on with it."""
    if new.manifest.name != old.manifest.name:
        what = f"is {new.manifest.name}, and {old.manifest.name} runs here"
        raise SwapError(what, where=new.path, fix="stop the program and start it with that bundle")
    if new.manifest.labels != old.manifest.labels:
        raise SwapError("has other labels than the one that runs", where=new.path, fix="start the program again")


class Watcher:
    """Offers a bundle's file to a swap whenever it changes."""

    def __init__(self, path: Path, swap: Swap, *, every: float = 1.0) -> None:
        """Look at ``path`` every so many seconds, starting with what it is now."""
        self._path, self._swap, self._every = path, swap, every
        self._seen = self._look()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bundle watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _watch(self) -> None:
        changed = self._seen
        while not self._stop.wait(self._every):
            found = self._look()
            settled, changed = found == changed, found
            if settled and found is not None and found != self._seen:
                try:
                    self._swap.offer(self._path)
                except SwapError:
                    continue  # too many wait: it is offered again at the next look
                self._seen = found
