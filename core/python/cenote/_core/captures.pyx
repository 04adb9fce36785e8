"""Captures into a pool of graphs. Documented in `cenote.graph_pool`."""
from libc.stdint cimport uint64_t

from cenote._core cimport libcenote as lib
from cenote._core.stream cimport Stream, as_stream


def begin_capture_into(int device, uint64_t first, uint64_t second, stream not None) -> None:
    """Announce the capture that begins on a stream; its memory is the pool's. The stream must live until its end."""
    cdef Stream origin = as_stream(stream)
    with nogil:
        lib.begin_capture_into(device, lib.graph_pool_number(first, second), origin._handle)


def end_capture_into(int device, uint64_t first, uint64_t second) -> None:
    """Say that the capture has ended."""
    with nogil:
        lib.end_capture_into(device, lib.graph_pool_number(first, second))


def release_graph_pool(int device, uint64_t first, uint64_t second) -> None:
    """Take back one beginning. Legal at any time, also in a forked child."""
    lib.release_graph_pool(device, lib.graph_pool_number(first, second))
