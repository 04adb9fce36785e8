"""Streams: the order of device work, and so of memory."""

from cenote._core.public_names import publish
from cenote._core.stream import (
    DEFAULT_STREAM,
    LEGACY_DEFAULT_STREAM,
    PER_THREAD_DEFAULT_STREAM,
    CudaStreamFlags,
    Stream,
)
from cenote._core.stream_pool import CudaStreamPool

__all__ = [
    "DEFAULT_STREAM",
    "LEGACY_DEFAULT_STREAM",
    "PER_THREAD_DEFAULT_STREAM",
    "CudaStreamFlags",
    "CudaStreamPool",
    "Stream",
]

publish(globals())
