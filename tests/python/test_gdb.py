"""gdb's view of the containers: a small program is stopped, and what gdb prints of its variables is compared."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import cenote

pytestmark = pytest.mark.build

PACKAGE = Path(cenote.__file__).parent
SCRIPT = PACKAGE / "lib" / "libcenote.so.1-gdb.py"
COMPILER = shlex.split(os.environ.get("CXX", "c++"))

PROGRAM = """
#include <cenote/adaptors/statistics_resource_adaptor.hpp>
#include <cenote/containers/device_buffer.hpp>
#include <cenote/containers/device_scalar.hpp>
#include <cenote/containers/device_uvector.hpp>
#include <cenote/driver/cuda_stream.hpp>
#include <cenote/resources/cuda_memory_resource.hpp>
#include <cenote/resources/pinned_host_memory_resource.hpp>
#include <cenote/resources/pool_memory_resource.hpp>

using namespace cenote;
void stop_here() { asm volatile(""); }

int main() {
  auto cuda = std::make_shared<cuda_memory_resource>(1);
  auto pool = std::make_shared<pool_memory_resource>(cuda, 1 << 20);
  auto pinned = std::make_shared<pinned_host_memory_resource>(0);
  auto statistics = std::make_shared<statistics_resource_adaptor>(pinned);
  memory_resource& base = *pinned;
  cuda_stream stream(1);
  stream_ref legacy, per_thread = per_thread_default_stream();
  device_buffer buffer(1536, stream, pool);
  buffer.resize(1000, stream);
  device_buffer empty(0, legacy, pinned);
  device_buffer taken(10, legacy, pinned);
  device_buffer moved(std::move(taken));
  device_uvector<float> vector(300, legacy, cuda);
  device_uvector<int> readable(3, legacy, pinned);
  const double value = 2.5;
  device_scalar<double> scalar(value, legacy, pinned);
  legacy.synchronize();
  for (int i = 0; i < 3; ++i) readable.data()[i] = 10 * i;
  stop_here();
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool, hint in (("gdb", "apt-get install gdb"), (COMPILER[0], "apt-get install g++")):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: {hint}")
    folder = tmp_path_factory.mktemp("gdb")
    source, built = folder / "program.cpp", folder / "program"
    source.write_text(PROGRAM)
    options = [
        "-std=c++20",
        "-g",
        "-O0",
        f"-I{PACKAGE / 'include'}",
        f"-L{SCRIPT.parent}",
        f"-Wl,-rpath,{SCRIPT.parent}",
    ]
    if "clang" in COMPILER[0]:
        options.append("-fstandalone-debug")  # else it leaves out what it takes to be in the library's own
    done = subprocess.run(
        [*COMPILER, *options, str(source), "-o", str(built), "-lcenote"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return built


def run_gdb(program: Path, *commands: str, trusted: bool = False) -> str:
    trust = ["-iex", f"add-auto-load-safe-path {SCRIPT.parent}"] if trusted else []
    before = [*trust, "-ex", "set debuginfod enabled off", "-ex", "break stop_here", "-ex", "run", "-ex", "up"]
    asked = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", *before, *asked, str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "ptrace" in done.stderr or "Couldn't get registers" in done.stderr or "Could not trace" in done.stderr:
        pytest.skip(f"gdb may not trace programs here: {done.stderr.strip().splitlines()[-1]}")
    assert "Python Exception" not in done.stderr, done.stderr
    return done.stdout


VALUE = re.compile(r"^\$\d+ = (.*)$", re.MULTILINE)

# Each variable of the program, and what gdb says of it.
SHOWN = {
    "buffer": r"device_buffer of 1000 bytes \(1000 B\), capacity 1536, at 0x\w+, "
    r"pool_memory_resource of device 1, stream 0x\w+",
    "empty": r"device_buffer of 0 bytes \(0 B\), capacity 0, at 0x0, "
    r"pinned_host_memory_resource of device 0, the legacy default stream",
    "moved": r"device_buffer of 10 bytes \(10 B\), .*",
    "vector": r"device_uvector<float> of 300 elements, capacity 300, at 0x\w+, "
    r"cuda_memory_resource of device 1, the legacy default stream",
    "scalar": r"device_scalar<double> at 0x\w+, pinned_host_memory_resource of device 0, the legacy default stream",
    "stream": r"cuda_stream 0x\w+ of device 1",
    "legacy": r"the legacy default stream",
    "per_thread": r"the per-thread default stream",
    "*pool": r"pool_memory_resource of device 1, at 0x\w+",
    "*statistics": r"statistics_resource_adaptor of device 0, at 0x\w+",
    "base": r"pinned_host_memory_resource of device 0, at 0x\w+",
}


@pytest.fixture(scope="module")
def values(program: Path) -> dict[str, str]:
    printed = run_gdb(program, f"source {SCRIPT}", *(f"print {variable}" for variable in SHOWN))
    return dict(zip(SHOWN, VALUE.findall(printed), strict=True))


@pytest.mark.parametrize("variable", SHOWN)
def test_variable_is_shown_in_one_line(values: dict[str, str], variable: str) -> None:
    assert re.fullmatch(SHOWN[variable], values[variable])


def test_elements_are_shown_on_request_where_they_can_be_read(program: Path) -> None:
    asked = [f"set cenote-elements {count}" for count in (0, 2, 10)]
    printed = run_gdb(
        program, f"source {SCRIPT}", *(word for one in asked for word in (one, "print readable")), "print scalar"
    )
    none, two, all_three, scalar = VALUE.findall(printed)
    assert "{" not in none
    assert two.endswith("{[0] = 0, [1] = 10}")
    assert all_three.endswith("{[0] = 0, [1] = 10, [2] = 20}")
    assert scalar.endswith("{[0] = 2.5}")


def test_elements_that_cannot_be_read_are_left_out(program: Path) -> None:
    """As plain gdb finds the memory of a device: a container whose address is not mapped."""
    commands = (f"source {SCRIPT}", "set cenote-elements 5", "set var vector.buffer_.data_ = (void*)8", "print vector")
    printed = run_gdb(program, *commands)
    assert "device_uvector<float> of 300 elements, capacity 300, at 0x8" in printed


def test_gdb_finds_the_script_by_itself_where_it_trusts_the_folder(program: Path) -> None:
    assert "$1 = the legacy default stream" in run_gdb(program, "print legacy", trusted=True)
