"""The debug log: what cenote says of itself, through Python's `logging`.

The core says when a pool grows or gives memory back, when memory runs out (both ``debug``), and what went wrong where
no exception could be raised (``error``). Its lines go

* to the logger ``"cenote"`` of `logging`, from the first call of `set_logging_level` or `flush_logger` on. A daemon
  thread hands them over; `flush_logger` does so at once. Where `logging` has no handler they go to stderr;
* before that, and in programs without Python, to stderr;
* always also to the file that the environment variable ``CENOTE_DEBUG_LOG_FILE``, else ``RMM_DEBUG_LOG_FILE``, names.
  The first process that writes it begins it anew; others add to it. ``%p`` in the name is the number of the process.

The level is ``info`` at the start, or what the environment variable ``CENOTE_LOG_LEVEL`` says. The names and the levels
are those of RMM. Allocations and frees are not logged here but by `cenote.mr.LoggingResourceAdaptor`, which
`cenote.mr.enable_logging` puts on.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from cenote._core import logger as _logger

__all__ = [
    "flush_logger",
    "get_flush_level",
    "get_logging_level",
    "level_enum",
    "set_flush_level",
    "set_logging_level",
    "should_log",
]


class level_enum(IntEnum):
    """How much a line matters. No line is of the level ``off`` or ``n_levels``: a log of that level is silent."""

    trace = 0
    debug = 1
    info = 2
    warn = 3
    error = 4
    critical = 5
    off = 6
    n_levels = 7


# What `logging` calls the levels, by ours. It has no word for the lowest and needs none for silence.
_LOGGING_LEVELS = (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, 60, 60)

_python_logger = logging.getLogger("cenote")
_thread: threading.Thread | None = None
_waiting: deque[tuple[int, float, int, str]] = deque()  # taken from the core, and not handed over yet
_handing_over = threading.RLock()  # guards the order of the lines; a handler may call cenote, and even flush_logger


def _checked(level: level_enum) -> level_enum:
    if not isinstance(level, level_enum):
        raise TypeError(f"level must be a member of level_enum, not {type(level).__name__}")
    return level


def should_log(level: level_enum) -> bool:
    """Whether a line of this level is logged; TypeError if `level` is no member of `level_enum`."""
    return _logger.should_log(_checked(level))


def set_logging_level(level: level_enum) -> None:
    """Log the lines of this level and above, from now on through the logger ``"cenote"``, which gets the level too.

    Parameters
    ----------
    level : level_enum
        `level_enum.off` silences the log.

    Raises
    ------
    TypeError
        If `level` is no member of `level_enum`.
    """
    _logger.set_level(_checked(level))
    _python_logger.setLevel(_LOGGING_LEVELS[level])
    if level < level_enum.off:
        _listen()


def get_logging_level() -> level_enum:
    """Give the level from which on lines are logged."""
    return level_enum(_logger.level())


def set_flush_level(level: level_enum) -> None:
    """Write lines of this level and above through to the log file at once; TypeError as for `set_logging_level`."""
    _logger.set_flush_level(_checked(level))


def get_flush_level() -> level_enum:
    """Give the level from which on lines are written through to the log file; ``warn`` at the start."""
    return level_enum(_logger.flush_level())


def flush_logger() -> None:
    """Hand every line that has been logged so far to `logging`, and write the log file out.

    What a handler of `logging` raises is raised here, once every line has been handed over; further errors, and what
    is raised when nobody flushes, are reported by ``sys.unraisablehook``. KeyboardInterrupt and SystemExit are raised
    at once, and what was not handed over by then is with the next line.
    """
    raised: list[BaseException] = []

    def keep(error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        raised.append(error)

    _listen()
    try:
        _hand_over(keep)
    except BaseException:
        for error in raised:
            _report(error)
        raise
    finally:
        _logger.flush()
    for error in raised[1:]:
        _report(error)
    if raised:
        raise raised[0]


def _hand_over(report: Callable[[BaseException], None]) -> None:
    """Hand each line that waits to `logging`; what a handler raises is reported, and keeps no other line back."""
    with _handing_over:
        _waiting.extend(_logger.take())
        while _waiting:
            try:
                _hand_over_line(*_waiting.popleft())
            except BaseException as error:
                report(error)


def _hand_over_line(level: int, seconds: float, thread: int, text: str) -> None:
    if not _python_logger.hasHandlers():
        _logger.print_record(level, text)
        return
    number = _LOGGING_LEVELS[level]
    if not _python_logger.isEnabledFor(number):
        return
    record = _python_logger.makeRecord("cenote", number, "libcenote", 0, text, (), None)
    record.created, record.msecs, record.thread = seconds, seconds % 1 * 1000, thread
    record.threadName = f"thread {thread}"
    _python_logger.handle(record)


def _report(error: BaseException) -> None:
    """Report what a handler raised where nobody has called: the next line may fare better."""
    _logger.report_unraisable(error, _python_logger)


def _hand_over_for_ever() -> None:
    while _logger.wait():
        _hand_over(_report)


def _listen() -> None:
    global _thread
    with _handing_over:
        if _thread is not None:
            return
        _logger.start_listening()
        _thread = threading.Thread(target=_hand_over_for_ever, name="cenote-log", daemon=True)
        _thread.start()


@atexit.register
def _stop() -> None:
    """Before the interpreter goes: a daemon thread that wakes up during its end cannot take the GIL any more."""
    global _thread
    if _thread is None:
        return
    _logger.stop_listening()
    _thread.join()
    _hand_over(_report)
    _thread = None


def _forget_thread() -> None:
    """In a forked child, which has neither the thread nor, in the core, a listener."""
    global _thread, _handing_over
    _thread, _handing_over = None, threading.RLock()
    _waiting.clear()  # the parent's


os.register_at_fork(after_in_child=_forget_thread)
logging.addLevelName(_LOGGING_LEVELS[level_enum.trace], "TRACE")
