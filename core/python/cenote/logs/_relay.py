"""Threads that work in turn, each on what it is handed: the recorded threads of a log, in the order of the log."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class Relay:
    """Threads by number. At most one of them works at a time, and whoever hands work over waits until it is done."""

    def __init__(self) -> None:
        self._runners: dict[int, _Runner] = {}

    def run(self, number: int, work: Work) -> None:
        """Have a thread do a piece of work, and raise what the work raises. The first piece starts the thread.

        An interruption of the wait, as by Ctrl-C, reaches the caller when the piece is done, and the thread has ended.
        """
        if number not in self._runners:
            self._runners[number] = _Runner(f"recorded thread {number}")
        try:
            failure = self._runners[number].run(work)
        except BaseException:
            self.end(number)
            raise
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it knows this frame: they would keep one another, and what failed, until a collection

    def end(self, number: int) -> None:
        """End a thread, if there is one of that number, and wait until all that belongs to it is gone."""
        runner = self._runners.pop(number, None)
        if runner is not None:
            runner.end()

    def close(self) -> None:
        """End all threads."""
        for number in list(self._runners):
            self.end(number)


class _Runner:
    """One thread of a relay."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        # It knows the queues alone, and is a daemon: a relay that nobody closes keeps nothing but a parked thread.
        self._thread = threading.Thread(target=_serve, args=(self._work, self._done), name=name, daemon=True)
        self._thread.start()

    def run(self, work: Work) -> BaseException | None:
        """Hand over a piece of work, wait until it is done, and give what it raised."""
        self._work.put(work)
        return self._done.get()

    def end(self) -> None:
        """Let the thread end, after what it is at."""
        self._work.put(None)
        self._thread.join()
        # Before Python 3.13 join() returns while the destructors of the thread's own data still run, and with them the
        # end of its caches. The next thread must not meet them.
        while os.path.exists(f"/proc/self/task/{self._thread.native_id}"):
            time.sleep(0)


def _serve(work: SimpleQueue[Work | None], done: SimpleQueue[BaseException | None]) -> None:
    while (piece := work.get()) is not None:
        failure = None
        try:
            piece()
        except BaseException as error:
            failure = error
        del piece  # or it would live until the next one comes
        done.put(failure)
        del failure
