"""Warp and Triton on cenote, against their published interfaces; the packages themselves find no device here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytestmark = pytest.mark.slow

RunFresh = Callable[..., CompletedProcess[str]]

WARP = """
__version__ = "1.19.0"
stream = None
installed = None
def set_cuda_allocator(allocator):
    global installed
    installed = allocator
class _Stream:
    cuda_stream = None
class _Device:
    stream = _Stream()
def get_cuda_device(ordinal=None):
    return _Device
"""

TRITON = """
from contextvars import ContextVar
__version__ = "3.9.0"
installed = ContextVar("installed", default=None)
set_allocator = installed.set
"""


@pytest.fixture
def run(run_fresh: RunFresh, tmp_path: Path) -> RunFresh:
    (tmp_path / "warp.py").write_text(WARP)
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(TRITON)
    (tmp_path / "triton" / "runtime").mkdir()
    (tmp_path / "triton" / "runtime" / "_allocation.py").write_text("class NullAllocator: pass\n")
    return lambda code: run_fresh(code, PYTHONPATH=str(tmp_path))


def test_warp_allocates_in_the_order_of_its_stream(run: RunFresh) -> None:
    run("""
        import cenote, warp
        from cenote import mr
        import cenote.allocators.warp as door
        mr.set_current_device_resource(mr.from_spec("pool"))
        pool = mr.get_current_device_resource()
        assert "1.19.0" in door.install()
        first, second = cenote.Stream(), cenote.Stream()
        warp._Stream.cuda_stream = first.handle
        address = warp.installed.allocate(1000)
        assert cenote.usage()["warp"].bytes == 1000 and warp.installed.deallocate_requires_context_guard
        warp._Stream.cuda_stream = second.handle
        warp.installed.deallocate(address, 1000)         # on another stream: after all work
        assert cenote.usage()["warp"].allocations == 0
        warp._Stream.cuda_stream = None                  # the legacy default stream
        warp.installed.deallocate(warp.installed.allocate(1000), 1000)
        assert pool.in_use() <= 1024 and cenote.usage()["warp"].total_allocations == 2
        door.uninstall()
        assert warp.installed is None
    """)


def test_scratch_memory_of_triton_dies_with_its_object(run: RunFresh) -> None:
    run("""
        import threading
        import cenote, triton
        from cenote import mr
        import cenote.allocators.triton as door
        mr.set_current_device_resource(mr.from_spec("pool"))
        assert "other threads call" in door.install()
        stream = cenote.Stream()
        for on in (stream.handle, None):
            scratch = triton.installed.get()(1000, 128, on)
            assert scratch.data_ptr() % 256 == 0 and cenote.usage()["triton"].bytes == 1000
            del scratch
            assert cenote.usage()["triton"].bytes == 0
        try:
            triton.installed.get()(1000, 512, None)
        except ValueError as error:
            assert "512" in str(error)
        else:
            raise SystemExit("no ValueError")
        seen = []
        thread = threading.Thread(target=lambda: (door.install(), seen.append(triton.installed.get())))
        thread.start()
        thread.join()
        assert seen == [door.triton_allocator]
        door.uninstall()
        assert type(triton.installed.get()).__name__ == "NullAllocator"
    """)
