"""The function that CuPy is given, on the simulated device: with a stand-in for what it needs of CuPy.

With CuPy itself it is tested on a device, by tests/gpu.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from busy_stream import KEEP_BUSY

SOURCE = Path(__file__).with_name("fake_cupy.c")
COMPILER = shlex.split(os.environ.get("CC", "cc"))

BEGIN = """
import cenote, fake_cupy
from cenote import mr
from cenote.allocators.cupy import _allocator


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.offset = mem, offset


entered = []


def set_device(device):
    if broken:
        raise RuntimeError("no such device")
    entered.append(device)


class OutOfMemory(MemoryError):
    pass


def call_with_hooks(malloc, size):
    seen.append(("malloc", size))
    return malloc(size)


def call_free_hooks(name, device, size, address, memory):
    seen.append((name, device, size, address, memory))
    if broken:
        raise RuntimeError("broken hook")


seen = []
broken = False
alloc = _allocator.make_allocator(
    fake_cupy.BaseMemory,
    MemoryPointer,
    set_device,
    call_with_hooks,
    call_free_hooks,
    OutOfMemory,
    fake_cupy.get_stream_ptr,
    fake_cupy.get_device_id,
    fake_cupy.has_memory_hooks,
)
pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB", "1MiB")
mr.set_current_device_resource(pool)
"""

GOES_BACK = """
for _ in range(4):  # the whole way at first, at once later
    blocks = [alloc(1000) for _ in range(8)]
    assert pool.in_use() == 8 * 1024
    assert cenote.usage()["cupy"].bytes == 8000
    assert all((b.mem.size, b.mem.device_id, b.offset) == (1000, 0, 0) for b in blocks)
    assert len({b.mem.ptr for b in blocks}) == 8 and all(b.mem.ptr % 256 == 0 for b in blocks)
    del blocks
    assert pool.in_use() == 0
last = alloc(1000)
mr.set_current_device_resource(mr.CudaMemoryResource())
del last
assert pool.in_use() == 0
assert cenote.usage()["cupy"].allocations == 0
"""

ZERO_BYTES = """
assert alloc(0).mem.ptr == 0
assert cenote.usage().get("cupy") is None
"""

ERRORS = """
refused = {2**30: MemoryError, -1: OverflowError, 2**64: OverflowError, 1.5: TypeError, "1": TypeError}
for size, error in refused.items():
    try:
        alloc(size)
    except error:
        continue
    raise AssertionError(f"{size} bytes are no {error}")
try:
    alloc(2**30)
except OutOfMemory as error:
    assert error.args[0] == 2**30 and "pool" in error.args[1]
assert pool.in_use() == 0
"""

HOOKS = """
import sys

said = []
sys.unraisablehook = lambda report: said.append(str(report.exc_value))
alloc(1000)
assert not seen
fake_cupy.set_hooks(1)
alloc(1000)
assert not seen                     # nobody was asked, as none was set so far
_allocator.hooks_are_used()
alloc(0)
assert not seen                     # nothing was allocated
block = alloc(1000)
told = (0, 1000, block.mem.ptr, id(block.mem))
assert seen == [("malloc", 1000)] and pool.in_use() == 1024
del block
assert seen[1:] == [("free_preprocess", *told), ("free_postprocess", *told)] and pool.in_use() == 0
block = alloc(1000)
broken = True
del block
assert said == ["broken hook"] * 2 and pool.in_use() == 0
broken = False
try:
    alloc(2**30)
except OutOfMemory:
    pass
fake_cupy.set_hooks(0)
seen.clear()
alloc(1000)
assert not seen and pool.in_use() == 0
"""

# A frame, and the arguments of a call, go while the exception that ended it is under way.
EXCEPTION_UNDER_WAY = """
def fails():
    block = alloc(1000)
    raise KeyError("kept")


try:
    fails()
except KeyError as error:
    assert error.args == ("kept",)
try:
    [].index(alloc(1000))
except ValueError as error:
    assert "not in list" in str(error)
assert pool.in_use() == 0
"""

OTHER_STREAM = """
stream = cenote.Stream()
block = alloc(1000)
fake_cupy.set_stream(stream.handle)
del block
other = alloc(1000)
fake_cupy.set_stream(0)
del other
assert pool.in_use() == 0
"""


CONTEXT = """
import threading

broken = True
try:
    alloc(1000)
except RuntimeError as error:
    assert str(error) == "no such device"
broken = False
alloc(1000), alloc(1000)
assert entered == [0]
thread = threading.Thread(target=lambda: (alloc(1000), alloc(1000)))
thread.start(), thread.join()
assert entered == [0, 0]
assert pool.in_use() == 0
"""


STREAM_UNKNOWN = """
import sys

said = []
sys.unraisablehook = lambda report: said.append(str(report.exc_value))
block = alloc(1000)
fake_cupy.set_stream(-1)
del block
assert said == ["no stream"], said
assert pool.in_use() == 0
"""

INTERRUPTED = """
import sys

said = []
sys.unraisablehook = lambda report: said.append(report.exc_value)


def allocate(size, stream):
    if raised is not None:
        raise raised
    return pool.allocate(size, stream)


def deallocate(ptr, size, stream):
    pool.deallocate(ptr, size, stream)
    if raised is not None:
        raise raised


mr.set_current_device_resource(mr.CallbackMemoryResource(allocate, deallocate))
for raised in (KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError("none")):
    try:
        alloc(1000)
    except BaseException as caught:
        assert caught is raised
    else:
        raise AssertionError(raised)
raised = KeyError("key")
try:
    alloc(1000)
except RuntimeError as caught:
    assert caught.__cause__ is raised
raised = None
block = alloc(1000)
raised = SystemExit(4)
del block
assert said == [raised]
assert pool.in_use() == 0
raised = None
mr.set_current_device_resource(pool)
"""

WATCH = """
import threading
from types import SimpleNamespace
from cenote.allocators import cupy as plugin


def watched(is_set):
    calls = []

    class MemoryHook:
        def __enter__(self):
            calls.append("enter")
            return self

    hooks = {}
    module = SimpleNamespace(
        MemoryHook=MemoryHook, _has_memory_hooks=lambda: is_set, get_memory_hooks=lambda: hooks
    )
    plugin._watch_hooks(module, lambda: calls.append("used"))
    return module, calls


module, calls = watched(is_set=False)
assert calls == []
hook = module.MemoryHook()
assert hook.__enter__() is hook and calls == ["used", "enter"]
module, calls = watched(is_set=False)
assert module.get_memory_hooks() == {} and calls == ["used"]
module, calls = watched(is_set=True)
assert calls == ["used"]
hook = module.MemoryHook()
assert hook.__enter__() is hook and calls == ["used", "enter"]
end = threading.Event()
thread = threading.Thread(target=end.wait, daemon=True)
thread.start()
assert watched(is_set=False)[1] == ["used"], "that thread may have set one"
end.set()
thread.join()
assert watched(is_set=False)[1] == []
"""

DAEMONS = """
import threading, time


def allocate_for_ever():
    while True:
        alloc(1000)


mr.set_current_device_resource(mr.CudaMemoryResource())  # which has nothing at once
for _ in range(4):
    threading.Thread(target=allocate_for_ever, daemon=True).start()
while (held := cenote.usage().get("cupy")) is None or held.total_allocations < 100:
    time.sleep(0.001)
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    include = Path(sysconfig.get_path("include"))
    if shutil.which(COMPILER[0]) is None or not (include / "Python.h").is_file():
        pytest.skip("needs a C compiler and Python's headers")
    folder = tmp_path_factory.mktemp("fake_cupy")
    command = [*COMPILER, "-shared", "-fPIC", f"-I{include}", str(SOURCE), "-o", str(folder / "fake_cupy.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "code",
    [
        GOES_BACK,
        ZERO_BYTES,
        ERRORS,
        HOOKS,
        WATCH,
        EXCEPTION_UNDER_WAY,
        OTHER_STREAM,
        CONTEXT,
        STREAM_UNKNOWN,
        INTERRUPTED,
        DAEMONS,
    ],
    ids=[
        "goes_back",
        "zero_bytes",
        "errors",
        "memory_hooks",
        "watched_hooks",
        "exception_under_way",
        "other_stream",
        "context_of_each_thread",
        "stream_unknown",
        "interrupted",
        "daemons_at_the_end",
    ],
)
def test_memory_of_cupy(stand_in: Path, code: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(stand_in), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


DIES_UNDER_WORK = f"""{KEEP_BUSY}
for _ in range(4):  # so that the last free will be one at once
    block = alloc(1000)
mr.set_current_device_resource(mr.CudaMemoryResource())
del pool
stream = cenote.Stream()
thread = keep_busy(stream)
del block
thread.join()
"""


def test_the_end_of_a_pool_with_its_last_block_lets_other_threads_run(stand_in: Path) -> None:
    test_memory_of_cupy(stand_in, DIES_UNDER_WORK)
