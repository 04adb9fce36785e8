"""Captures into a pool of graphs. Documented in `cenote.graph_pool`."""
from libc.stdint cimport uint64_t

from cenote._core cimport libcenote as lib


def begin_capture_into(int device, uint64_t first, uint64_t second) -> None:
    """Announce a capture on a device; its memory is the pool's."""
    with nogil:
        lib.begin_capture_into(device, lib.graph_pool_number(first, second))


def end_capture_into(int device, uint64_t first, uint64_t second) -> None:
    """Say that the capture has ended."""
    with nogil:
        lib.end_capture_into(device, lib.graph_pool_number(first, second))


def release_graph_pool(int device, uint64_t first, uint64_t second) -> None:
    """Take back one beginning."""
    with nogil:
        lib.release_graph_pool(device, lib.graph_pool_number(first, second))
