"""``cimport cenote``: a module of Cython outside of the package, compiled against what is installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import cenote

pytestmark = pytest.mark.build

PACKAGE = Path(cenote.__file__).parent
COMPILER = shlex.split(os.environ.get("CXX", "c++"))

SOURCE = """
# distutils: language = c++
cimport cenote
from libc.stdint cimport uintptr_t
from libcpp.memory cimport make_unique, shared_ptr, unique_ptr
from libcpp.utility cimport move

kept = {}
cdef unique_ptr[cenote.device_buffer] in_cpp


def take(cenote.DeviceBuffer buffer):
    global in_cpp
    in_cpp = buffer.release()
    return <uintptr_t> in_cpp.get().data(), in_cpp.get().size()


def give_back():
    return cenote.DeviceBuffer.adopt(move(in_cpp))


def give_nothing():
    cdef unique_ptr[cenote.device_buffer] none
    return cenote.DeviceBuffer.adopt(move(none))


def make(size_t size, cenote.Stream stream, cenote.DeviceMemoryResource mr):
    cdef shared_ptr[cenote.memory_resource] resource = cenote.resource_of(mr)
    cdef unique_ptr[cenote.device_buffer] made
    made = make_unique[cenote.device_buffer](size, cenote.stream_of(stream), resource)
    return cenote.DeviceBuffer.adopt(move(made))


def drop():
    in_cpp.reset()
"""

BEGIN = """
import gc
import cenote, beside
from cenote import mr
pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB", "1MiB")
stream = cenote.Stream()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    include = Path(sysconfig.get_path("include"))
    if shutil.which(COMPILER[0]) is None or not (include / "Python.h").is_file():
        pytest.skip("needs a C++ compiler and Python's headers")
    pytest.importorskip("Cython")
    made = tmp_path_factory.mktemp("beside")
    (made / "beside.pyx").write_text(SOURCE)
    for command in (
        [sys.executable, "-m", "cython", "--cplus", "-3", "-I", str(PACKAGE.parent), "beside.pyx"],
        [
            *COMPILER,
            *("-std=c++20", "-O0", "-shared", "-fPIC", "beside.cpp", "-o", "beside.so", "-DCYTHON_VECTORCALL_TPNEW=0"),
            *(f"-I{folder}" for folder in (include, PACKAGE / "include", PACKAGE / "_core")),
            *(f"-L{PACKAGE / 'lib'}", "-lcenote", f"-Wl,-rpath,{PACKAGE / 'lib'}"),
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=made, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture
def run(folder: Path, run_fresh: Callable[..., CompletedProcess[str]]) -> Callable[[str], CompletedProcess[str]]:
    def run_beside(code: str) -> CompletedProcess[str]:
        lines = code.splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        return run_fresh(BEGIN + "\n".join(line[indent:] for line in lines), PYTHONPATH=str(folder))

    return run_beside


def test_memory_passes_between_a_buffer_of_python_and_one_of_cpp(run: Callable[[str], CompletedProcess[str]]) -> None:
    run("""
        buffer = cenote.DeviceBuffer.to_device(b"abc", stream=stream)
        address = buffer.ptr
        assert beside.take(buffer) == (address, 3)
        assert (buffer.size, buffer.ptr) == (0, 0)          # as after close
        buffer.resize(10)                                   # and as usable
        back = beside.give_back()
        assert back.stream == stream and back.mr == mr.get_current_device_resource()
        assert type(back) is cenote.DeviceBuffer and back.ptr == address and back.tobytes() == b"abc"
        held = cenote.DeviceBuffer(size=1000, stream=stream, mr=pool)
        assert cenote.usage()["cenote"].allocations == 3
        beside.take(held)
        del held
        assert pool.in_use() == 1024 and cenote.usage()["cenote"].allocations == 2
        beside.drop()
        assert pool.in_use() == 0
    """)


def test_cpp_makes_buffers_of_the_resources_and_streams_of_python(run: Callable[[str], CompletedProcess[str]]) -> None:
    run("""
        made = beside.make(1000, stream, pool)
        assert (made.size, made.mr, made.stream) == (1000, pool, stream) and pool.in_use() == 1024
        assert cenote.usage()["cenote"].bytes == 1000
        del made
        assert pool.in_use() == 0
        calls = []
        def allocate(size, stream):
            calls.append(size)
            return pool.allocate(size, stream)
        python = mr.CallbackMemoryResource(allocate, lambda ptr, size, stream: pool.deallocate(ptr, size, stream))
        made = beside.make(1000, stream, python)
        del python, made
        gc.collect()
        assert calls == [1000] and pool.in_use() == 0
    """)


def test_buffer_that_is_viewed_stays_and_nothing_is_not_adopted(run: Callable[[str], CompletedProcess[str]]) -> None:
    run("""
        pinned = cenote.DeviceBuffer(size=8, mr=mr.PinnedHostMemoryResource())
        view = memoryview(pinned)
        for wrong, error in ((lambda: beside.take(pinned), BufferError), (beside.give_nothing, ValueError),
                             (lambda: beside.take(cenote.DeviceBuffer.__new__(cenote.DeviceBuffer)), RuntimeError)):
            try:
                wrong()
            except error:
                continue
            raise SystemExit(error.__name__)
        del view
        capsule = pinned.__dlpack__(stream=stream.handle)
        del capsule
        beside.take(pinned)                                  # the consumer's stream is waited for
        beside.drop()
    """)
