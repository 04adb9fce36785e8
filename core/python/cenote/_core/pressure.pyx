"""Pressure handlers. Documented in `cenote.pressure`."""
from dataclasses import dataclass
from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool
from libcpp.memory cimport shared_ptr
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport text_argument


@dataclass(frozen=True)
class HandlerFigures:
    """What a pressure handler has done so far.

    Attributes
    ----------
    name : str
        What it is called.
    priority : int
        The highest one is called first.
    calls, skipped, failures : int
        How often it was called, and how often of these it was skipped or raised.
    successes : int
        How often the allocation had memory after it.
    freed_bytes : int
        The bytes that it freed, as it said.
    """

    name: str
    priority: int
    calls: int
    skipped: int
    failures: int
    successes: int
    freed_bytes: int


def add(str name not None, uint64_t number, int priority, double seconds) -> int:
    """Have Python's handler of that number called; the number that the core knows it by."""
    cdef lib.string text = text_argument("name", name)
    return lib.add_python_handler(text, number, priority, seconds)


def remove(uint64_t handler) -> bool:
    cdef bool was_there
    with nogil:
        was_there = lib.remove_pressure_handler(handler)
    return was_there


def figures() -> list[HandlerFigures]:
    cdef vector[lib.pressure_handler_figures] all_handlers
    cdef size_t i
    with nogil:
        all_handlers = lib.pressure_handlers()
    return [HandlerFigures(all_handlers[i].name.decode(errors="replace"), all_handlers[i].priority,
                           all_handlers[i].calls, all_handlers[i].skipped, all_handlers[i].failures,
                           all_handlers[i].successes, all_handlers[i].freed_bytes)
            for i in range(all_handlers.size())]


cdef class Request:
    """What an allocation that found no memory asks of a handler."""

    cdef shared_ptr[lib.pressure_request] _request

    @property
    def handler(self) -> int:
        return self._request.get().handler

    @property
    def nbytes(self) -> int:
        return self._request.get().bytes

    @property
    def device(self) -> int:
        return self._request.get().device

    def answer(self, freed, str failure not None) -> None:
        """The handler has freed so many bytes, None if it does not know, or has raised what `failure` says."""
        cdef lib.string text = failure.encode(errors="replace")
        cdef int64_t known = -1 if freed is None else min(freed, 2**63 - 1)
        lib.answer_pressure(self._request.get()[0], known, text)


def wait() -> Request | None:
    """Wait for the next request; None once the desk is closed."""
    cdef Request asked = Request.__new__(Request)
    with nogil:
        asked._request = lib.wait_for_pressure()
    return asked if asked._request.get() != NULL else None


def open_desk() -> None:
    lib.open_pressure_desk()


def close_desk() -> None:
    with nogil:
        lib.close_pressure_desk()


def renew_desk() -> None:
    """In a forked child, where another thread may have had the parent's lock."""
    lib.renew_pressure_desk()
