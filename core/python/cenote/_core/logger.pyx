"""The core's log, seen from Python. Documented in `cenote.logger`."""
from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib


def level() -> int:
    """The level from which on lines are logged."""
    return <int> lib.logging_level()


def set_level(int value) -> None:
    lib.set_logging_level(<lib.log_level> value)


def flush_level() -> int:
    """The level from which on lines are written through to the file."""
    return <int> lib.flush_level()


def set_flush_level(int value) -> None:
    lib.set_flush_level(<lib.log_level> value)


def should_log(int value) -> bool:
    return lib.should_log(<lib.log_level> value)


def log(int value, str text) -> None:
    """Log a line, as the core does."""
    cdef lib.string line = text.encode()
    with nogil:
        lib.log(<lib.log_level> value, line)


def flush() -> None:
    """Write what is buffered to the file."""
    with nogil:
        lib.flush_log()


def report_count() -> int:
    """How many reports the core has made since `clear_reports`, those included that its log does not repeat."""
    return lib.report_count()


def kept_reports() -> list[str]:
    """The texts of the first of them, oldest first."""
    cdef vector[lib.string] kept
    with nogil:
        kept = lib.kept_reports()
    return [text.decode(errors="replace") for text in kept]


def clear_reports() -> None:
    with nogil:
        lib.clear_reports()


def start_listening() -> None:
    with nogil:
        lib.start_listening()


def stop_listening() -> None:
    with nogil:
        lib.stop_listening()


def wait() -> bool:
    """Wait until there are lines to take, or nobody listens any more: then it is False."""
    cdef bint is_heard
    with nogil:
        is_heard = lib.wait_for_log_records()
    return is_heard


def take() -> list[tuple[int, float, int, str]]:
    """The queued lines, oldest first: (level, seconds since 1970, native thread, text)."""
    cdef vector[lib.log_record] records
    cdef size_t i
    with nogil:
        records = lib.take_log_records()
    return [(<int> records[i].level, records[i].time, records[i].thread, records[i].text.decode(errors="replace"))
            for i in range(records.size())]


def print_record(int value, str text) -> None:
    """Write a line to stderr, unless a file has it."""
    cdef lib.string line = text.encode()
    with nogil:
        lib.print_log_record(<lib.log_level> value, line)


def report_unraisable(BaseException error not None, where) -> None:
    """Hand an exception that nobody can be told of to ``sys.unraisablehook``; `where` says what raised it."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(where)
