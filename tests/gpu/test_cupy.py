"""CuPy on a device: its pool's figures, hooks, errors and pinned memory. Ordering is in test_one_pool."""

from __future__ import annotations

import pytest

pytest.importorskip("cupy")

INSTALL = """
import gc
import cenote, cupy
import numpy as np
from cenote.allocators.cupy import CenoteMemoryPool, pinned_allocator
report = cenote.install("pool:max=1GiB", frameworks="cupy")
assert report, str(report)
pool = CenoteMemoryPool()
"""


def test_pool_object_tells_what_cupy_uses(run):
    run(
        INSTALL
        + """
array = cupy.ones(1 << 20, dtype="u1")
assert pool.used_bytes() == 1 << 20 and pool.total_bytes() >= 1 << 20
del array
assert pool.used_bytes() == 0
pool.free_all_blocks()
assert (pool.free_bytes(), pool.n_free_blocks()) == (0, 0)
cupy.cuda.set_allocator(None)
with cupy.cuda.using_allocator(pool.malloc):
    inside = cupy.ones(1000, dtype="u1")
outside = cupy.ones(1000, dtype="u1")
assert pool.used_bytes() == 1000
"""
    )


def test_memory_hooks_fire_around_allocations_and_frees(run):
    run(
        INSTALL
        + """
class Seen(cupy.cuda.MemoryHook):
    name = "Seen"
    def __init__(self): self.calls = []
    def malloc_preprocess(self, **said): self.calls.append(("malloc_preprocess", said))
    def malloc_postprocess(self, **said): self.calls.append(("malloc_postprocess", said))
    def free_preprocess(self, **said): self.calls.append(("free_preprocess", said))
    def free_postprocess(self, **said): self.calls.append(("free_postprocess", said))

seen = Seen()
with seen:
    memory = cupy.cuda.alloc(1000)
    address, identity = memory.ptr, id(memory.mem)
    del memory
assert [name for name, _ in seen.calls] == [
    "malloc_preprocess", "malloc_postprocess", "free_preprocess", "free_postprocess"], seen.calls
assert seen.calls[0][1] == {"device_id": 0, "size": 1000, "mem_size": 1000}
assert seen.calls[1][1] == {"device_id": 0, "size": 1000, "mem_size": 1000, "mem_ptr": address, "pmem_id": identity}
assert seen.calls[2][1] == {"device_id": 0, "mem_size": 1000, "mem_ptr": address, "pmem_id": identity}
cupy.cuda.alloc(1000)
assert len(seen.calls) == 4
with cupy.cuda.memory_hooks.LineProfileHook() as profile:
    cupy.ones(1000)
"""
    )


HOOK = """
import threading
import cupy
import cenote

class Seen(cupy.cuda.MemoryHook):
    name = "Seen"
    def __init__(self): self.sizes = []
    def malloc_preprocess(self, **said): self.sizes.append(said["size"])

seen = Seen()
"""


def test_the_first_hook_of_the_process_may_be_another_threads(run):
    run(
        HOOK
        + """
cenote.install("pool", frameworks="cupy")
cupy.cuda.alloc(1000)

def in_a_thread():
    with seen:
        cupy.cuda.alloc(2000)

thread = threading.Thread(target=in_a_thread)
thread.start()
thread.join()
cupy.cuda.alloc(3000)
assert seen.sizes == [2000]
cupy.cuda.memory_hook.get_memory_hooks()["Seen"] = seen
cupy.cuda.alloc(4000)
assert seen.sizes == [2000, 4000]
"""
    )


def test_hooks_that_were_set_before_installing_fire(run):
    run(
        HOOK
        + """
is_set, is_installed = threading.Event(), threading.Event()

def in_a_thread():
    with seen:
        is_set.set()
        is_installed.wait()
        cupy.cuda.alloc(1000)

thread = threading.Thread(target=in_a_thread, daemon=True)
thread.start()
is_set.wait()
cenote.install("pool", frameworks="cupy")
is_installed.set()
thread.join()
assert seen.sizes == [1000]
"""
    )


def test_exhaustion_is_cupys_own_error_with_cenotes_figures(run):
    run(
        INSTALL
        + """
try:
    cupy.empty(1 << 40, dtype="u1")
except cupy.cuda.memory.OutOfMemoryError as error:
    assert type(error) is cupy.cuda.memory.OutOfMemoryError
    assert "Out of memory allocating 1,099,511,627,776 bytes" in str(error), error
    assert "1.00 TiB" in error.__notes__[0], error.__notes__
else:
    raise SystemExit("no error")
pool.set_limit(size=64 << 20)
try:
    cupy.empty(128 << 20, dtype="u1")
except cupy.cuda.memory.OutOfMemoryError as error:
    assert "limit set to: 67,108,864 bytes" in str(error), error
else:
    raise SystemExit("no error")
pool.set_limit()
assert cupy.empty(128 << 20, dtype="u1").nbytes == 128 << 20
"""
    )


def test_pinned_memory_comes_from_a_resource_of_cenotes(run):
    run(
        INSTALL
        + """
pinned = cenote.mr.from_spec("pool | pinned")
cupy.cuda.set_pinned_memory_allocator(pinned_allocator(pinned))
stream = cupy.cuda.Stream(non_blocking=True)
for round in range(20):
    memory = cupy.cuda.alloc_pinned_memory(1 << 16)
    host = np.frombuffer(memory, np.uint8, 1 << 16)
    host[:] = round
    assert pinned.in_use() >= 1 << 16
    with stream:
        array = cupy.asarray(host)
        assert int(array.sum()) == round << 16
    back = cupy.asnumpy(array)
    assert (back == round).all()
    del memory, host, array, back
stream.synchronize()
gc.collect()
"""
    )
