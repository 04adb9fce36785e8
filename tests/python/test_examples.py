"""The examples, in Python and in C++, each in a process of its own, on the simulated device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cenote

EXAMPLES = Path(__file__).parents[2] / "examples"

SAYS = {
    "choose_a_resource.py": ["statistics | pool:max=1GiB | virtual", "the water is the same", "2.00 GiB"],
    "share_one_pool.py": [
        "current resource: pool:max=2GiB | virtual",
        "torch",
        "cupy",
        "numba",
        "1,000,000",
    ],
    "count_driver_calls.py": ["cuda: ", "1000 of them cuMemAlloc", "0 of them cuMemAlloc", "handled: out_of_memory"],
    "replay_a_trace.py": ["26,194 events", "pool  ", "async", "13,098 allocations"],
    "share_between_processes.py": ["the worker has 64 MiB of device 0\nthe first bytes are 42 42 42"],
    "spill_with_dask.py": ["32 of 32 buffers", "of 256 MiB on its device, and has spilled"],
    "actors_with_ray.py": ["GPU 0, pool:max=256MiB | virtual\nGPU 1, pool:max=256MiB | virtual\n32 MiB arrived"],
    "train_with_torchrun.py": ["rank 0 on device 0, statistics | pool:max=4GiB | virtual: {'cenote': 2000000}"],
}
NEEDS = {
    "spill_with_dask.py": ("distributed", pytest.mark.slow),
    "actors_with_ray.py": ("ray", pytest.mark.long),
    "train_with_torchrun.py": ("torch", pytest.mark.long),
}

CPP_SAYS = {
    "basic": ["pool:max=1GiB | virtual", "element 999999 of 1000000: 999999", "after the containers: 0 B"],
    "custom_resource": [
        "statistics | step:bytes=1MiB | cuda",
        "step 3: 781.38 KiB",
        "6 allocations",
        "out_of_memory: 2",
    ],
    "statistics": [
        "100 allocations, 104857600 bytes in all,   1048576 at the peak",
        "the pool took 6 pages from the driver",
        "not freed yet: allocation 0, 10485760 bytes",
        "cenote_example.dev0.csv has 202 lines",
    ],
    "out_of_core": ["64.00 MiB worked on in 8 tiles, two of them (16.00 MiB)", "read on the host: right"],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)
    assert {path.stem for path in (EXAMPLES / "cpp").glob("*.cpp")} == set(CPP_SAYS)


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS[name][1:] if name in NEEDS else ()) for name in SAYS])
def test_example_runs_and_says_what_it_promises(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name][0])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**os.environ, "CENOTE_SIM": "devices=2,memory=80GiB" if name in NEEDS else "memory=80GiB"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for words in SAYS[name]:
        assert words in done.stdout


@pytest.mark.parametrize("name", SAYS)
def test_example_says_what_it_shows_and_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert text.startswith('"""')
    assert f"python {name}" in " ".join(text.split('"""')[1].split())


@pytest.fixture(scope="module")
def cpp_examples(build_project: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the C++ examples, built with the installed package alone."""
    if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("examples")
    found = f"-Dcenote_ROOT={Path(cenote.__file__).parent}"
    warnings = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror"
    build_project(EXAMPLES / "cpp", found, warnings, "-DCMAKE_CUDA_COMPILER=NOTFOUND", folder=folder)
    return folder


@pytest.mark.parametrize("name", CPP_SAYS)
def test_example_in_cpp_runs_and_says_what_it_promises(name: str, cpp_examples: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [cpp_examples / name],
        cwd=tmp_path,
        env={**os.environ, "CENOTE_SIM": "memory=80GiB", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for words in CPP_SAYS[name]:
        assert words in done.stdout


@pytest.mark.parametrize("source", sorted((EXAMPLES / "cpp").glob("*.c*")), ids=lambda path: path.name)
def test_example_in_cpp_says_what_it_shows_and_is_built_and_on_its_page(source: Path) -> None:
    assert source.read_text().startswith("// ")
    assert source.stem in (EXAMPLES / "cpp" / "CMakeLists.txt").read_text()
    page = EXAMPLES.parent / "docs" / "cpp" / "examples.md"
    assert f"{{literalinclude}} ../../examples/cpp/{source.name}\n" in page.read_text()
