"""NVIDIA's own tools with cenote: compute-sanitizer inside of a pool, NVTX's ranges, containers under cuda-gdb."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 550
TOOLKIT = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))


def tool(name: str, *below: str) -> str:
    folders = [str(TOOLKIT / folder) for folder in ("bin", *below)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        pytest.skip(f"needs {name} of the CUDA toolkit")
    return found


def environment(**extra: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")} | extra


# A block of a pool, and a kernel that writes to its byte `OFFSET`.
STRAY_WRITE = """
import sys, cenote, cupy
cenote.install("pool:initial=64MiB | cuda", frameworks=("cupy",))
stray = cupy.RawKernel('extern "C" __global__ void stray(char* p, long long i) { p[i] = 1; }', "stray")
array = cupy.empty(1000, dtype=cupy.uint8)
beside = cupy.empty(1000, dtype=cupy.uint8)
stray((1,), (1,), (array, int(sys.argv[1])))
cupy.cuda.Stream.null.synchronize()
"""


def sanitized(tmp_path: Path, offset: int, **extra: str) -> str:
    script = tmp_path / "stray.py"
    script.write_text(STRAY_WRITE)
    done = subprocess.run(
        [tool("compute-sanitizer", "../compute-sanitizer"), "--tool", "memcheck", sys.executable, script, str(offset)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env=environment(**extra),
        check=False,
    )
    text = done.stdout + done.stderr
    assert "ERROR SUMMARY" in text, text
    return text


def test_compute_sanitizer_finds_a_stray_write_inside_of_a_pool(tmp_path: Path) -> None:
    found = sanitized(tmp_path, 1000, CENOTE_NVTX="1")
    assert "Invalid __global__ write of size 1" in found, found
    assert "stray" in found


def test_compute_sanitizer_finds_nothing_in_a_correct_program(tmp_path: Path) -> None:
    assert "Invalid" not in sanitized(tmp_path, 999, CENOTE_NVTX="1")


def test_compute_sanitizer_finds_no_stray_write_if_it_is_not_told(tmp_path: Path) -> None:
    """What the announcement is for."""
    assert "Invalid" not in sanitized(tmp_path, 1000)


def test_nsight_systems_records_the_ranges(tmp_path: Path) -> None:
    nsys = tool("nsys", "../nsight-systems/bin")
    report = tmp_path / "report"
    program = "import cenote; r = cenote.mr.from_spec('pool:initial=0 | cuda'); r.deallocate(r.allocate(1000), 1000)"
    subprocess.run(
        [nsys, "profile", "--trace=nvtx", "-o", str(report), sys.executable, "-c", program],
        env=environment(CENOTE_NVTX="1"),
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    listed = subprocess.run(
        [nsys, "stats", "--report", "nvtx_pushpop_sum", "--format", "csv", f"{report}.nsys-rep"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    ).stdout
    assert {"cenote:allocate", "cenote:grow", "cenote:deallocate"} <= set(re.findall(r"cenote:\w+", listed)), listed


PROGRAM = """
#include <cenote/containers/device_uvector.hpp>
#include <cenote/driver/memory.hpp>
#include <cenote/resources/cuda_memory_resource.hpp>
__global__ void add(int* p) { p[threadIdx.x] += 10; }
int main() {
  auto cuda = std::make_shared<cenote::cuda_memory_resource>(0);
  const int values[3] = {1, 2, 3};
  cenote::stream_ref stream;
  cenote::device_uvector<int> vector(3, stream, cuda);
  cenote::copy_async(vector.data(), values, sizeof(values), stream, 0);
  stream.synchronize();
  add<<<1, 3>>>(vector.data());
  stream.synchronize();
  return 0;
}
"""


def test_cuda_gdb_shows_a_container(tmp_path: Path) -> None:
    import cenote

    package = Path(cenote.__file__).parent
    library = package / "lib"
    source = tmp_path / "program.cu"
    source.write_text(PROGRAM)
    subprocess.run(
        [
            *(tool("nvcc"), "-std=c++20", "-g", "-G", f"-I{package / 'include'}", f"-L{library}", "-lcenote"),
            *("-Xlinker", "-rpath", "-Xlinker", str(library), str(source), "-o", str(tmp_path / "program")),
        ],
        check=True,
        timeout=TIMEOUT_SECONDS,
    )
    commands = [f"source {library / 'libcenote.so.1-gdb.py'}", "set cenote-elements 3", "break add", "run"]
    commands += ["thread 1", "frame function main", "print vector"]
    done = subprocess.run(
        [tool("cuda-gdb"), "-nx", "-batch", *(word for one in commands for word in ("-ex", one)), tmp_path / "program"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env=environment(),
        check=False,
    )
    if "Python" in done.stderr and "not supported" in done.stderr:
        pytest.skip("this cuda-gdb has no Python")
    text = done.stdout + done.stderr
    assert "device_uvector<int> of 3 elements, capacity 3, at 0x" in text, text
    assert "cuda_memory_resource of device 0" in text, text
    assert "Python Exception" not in text, text
