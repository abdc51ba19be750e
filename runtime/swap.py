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
    """A bundle that passed, with its bytes as long as they are not in their place."""

    session: Session
    data: bytes | None


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
        tell: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Open and load the bundle to start with; it is self-tested when it has golden vectors.

        Args:
            path: of the bundle that runs; an offered one is put there when it is kept.
            opening: whom to trust, and the limits.
            delegate: as ``Session`` takes it.
            strict: as ``Session`` takes it.
            tell: called with every outcome, from the thread that it comes about in.

        Raises:
            UserError: it cannot be opened, loaded, or fails its self-test.
        """
        self._path, self._opening, self._tell = path, opening, tell
        self._delegate, self._strict = delegate, strict
        first = _test(opening.open(path), delegate, strict)
        opening.accept(first.bundle)
        self._lock = threading.Lock()
        self._current = first
        self._previous: Session | None = None
        self._next: _Tested | None = None
        self._data: bytes | None = None
        self._frames = 0
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.outcome = Outcome("kept", first.manifest.version, first.bundle.sha256)
        self._worker = threading.Thread(target=self._work, name="bundle swap", daemon=True)
        self._worker.start()

    def session(self) -> Session:
        """The session for the next frame; call it once between frames.

        A bundle that passed its tests takes over here; one that has run long enough is put in its place on disk.
        """
        with self._lock:
            if self._next is not None:
                self._previous, self._current, self._data = self._current, self._next.session, self._next.data
                self._next, self._frames = None, 0
                self._say("swapped", self._current.bundle)
            elif self._previous is not None:
                self._frames += 1
                if self._frames >= TRIAL_FRAMES:
                    self._tasks.put(functools.partial(self._keep, self._current.bundle, self._data))
                    self._previous = self._data = None
            return self._current

    def failed(self, session: Session, error: UserError) -> bool:
        """Whether the frame that ``session`` failed on is worth another try, with what :meth:`session` gives now.

        It is when there was a bundle before, which takes over again, or when another one has taken over meanwhile. An
        error of the source is not the bundle's.
        """
        if isinstance(error, SourceError):
            return False
        with self._lock:
            if session is not self._current:
                return True
            if self._previous is None:
                return False
            self._current, self._previous, self._data = self._previous, None, None
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

    def _consider(self, path: Path, data: bytes | None) -> None:
        bundle = None
        try:
            read = read_bundle(path, self._opening.limits) if data is None else data
            bundle = self._opening.parse(read, path)
            if bundle.sha256 == self._current.bundle.sha256:
                return
            self._say("testing", bundle)
            _same_use(bundle, self._current.bundle)
            session = _test(bundle, self._delegate, self._strict)
        except UserError as error:
            self._say("refused", bundle, str(error))
            return
        with self._lock:
            self._next = _Tested(session, data)
            self._say("ready", bundle)

    def _keep(self, bundle: Bundle, data: bytes | None) -> None:
        """Write a bundle that came as bytes to its place, and remember its version: an older one is refused now."""
        reason = None
        try:
            if data is not None:
                replace_file(self._path, data)
            self._opening.accept(bundle)
        except OSError as error:
            reason = f"{self._path}: cannot be written: {error.strerror}; it runs until the program ends"
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
