"""The functions that PyTorch is given, on the simulated device: with a stand-in for how PyTorch calls them.

With PyTorch itself they are tested on a device, by tests/gpu.
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

SOURCE = Path(__file__).with_name("fake_torch.cpp")
COMPILER = shlex.split(os.environ.get("CXX", "c++"))

INTERRUPTED = """
import sys
from pathlib import Path

import cenote, fake_torch
from cenote import mr

library = str(Path(cenote.__file__).parent / "lib" / "libcenote_torch.so")
base = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB")
said = []
sys.unraisablehook = lambda report: said.append(report.exc_value)


def allocate(size, stream):
    if raised_by_allocate is not None:
        raise raised_by_allocate
    return base.allocate(size, stream)


def deallocate(ptr, size, stream):
    base.deallocate(ptr, size, stream)
    if raised_by_deallocate is not None:
        raise raised_by_deallocate


def careless():
    try:
        fake_torch.allocate(library, 1000)
    except Exception as error:
        seen.append(error)
    for _ in range(10):
        pass


raised_by_allocate = raised_by_deallocate = None
mr.set_current_device_resource(mr.CallbackMemoryResource(allocate, deallocate))
seen = []
careless()
assert seen == []
for raised in (KeyboardInterrupt("text"), SystemExit(3), GeneratorExit()):
    raised_by_allocate = raised
    try:
        careless()
    except BaseException as caught:
        assert caught is raised
        assert isinstance(sys.exc_info()[1], type(raised))
    else:
        raise AssertionError(raised)
for raised in (KeyError("key"), MemoryError("none")):
    raised_by_allocate, seen = raised, []
    careless()
    assert type(seen[0]) is RuntimeError
raised_by_allocate, raised_by_deallocate, seen = None, SystemExit(4), []
careless()
assert (seen, said) == ([], [raised_by_deallocate])
raised_by_deallocate = None
assert base.in_use() == 0
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    include = Path(sysconfig.get_path("include"))
    if shutil.which(COMPILER[0]) is None or not (include / "Python.h").is_file():
        pytest.skip("needs a C++ compiler and Python's headers")
    folder = tmp_path_factory.mktemp("fake_torch")
    command = [*COMPILER, "-std=c++17", "-shared", "-fPIC", f"-I{include}", str(SOURCE), "-ldl"]
    done = subprocess.run([*command, "-o", str(folder / "fake_torch.so")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_interrupt_arrives_though_pytorch_makes_another_exception_of_it(stand_in: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(stand_in), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
