"""The C++ examples on a device: built against the installed package, those for nvcc as well."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import cenote

EXAMPLES = Path(__file__).parents[2] / "examples" / "cpp"
pytestmark = [pytest.mark.xdist_group("cpp_examples"), pytest.mark.timeout(400)]  # they are built once

NVCC = shutil.which("nvcc")
TIMEOUT_SECONDS = 300

SAYS = {
    "basic": "element 999999 of 1000000: 999999",
    "custom_resource": "6 allocations, and none of them asked the driver",
    "statistics": "the pool took 6 pages from the driver",
    "out_of_core": "read on the host: right",
    "thrust_sort": "10 sorts of 1000000 numbers: right",
}


def call(*command: str | Path) -> str:
    """Run a command without what other tests set for the simulated device; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the examples."""
    if shutil.which("cmake") is None:
        pytest.skip("needs CMake")
    folder = tmp_path_factory.mktemp("examples")
    cuda = f"-DCMAKE_CUDA_COMPILER={NVCC or 'NOTFOUND'}"
    call("cmake", "-S", EXAMPLES, "-B", folder, f"-Dcenote_ROOT={Path(cenote.__file__).parent}", cuda)
    call("cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1))
    return folder


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.c*")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example_in_cpp_runs_on_the_gpu(name: str, built: Path) -> None:
    if name == "thrust_sort" and NVCC is None:
        pytest.skip("needs nvcc")
    assert SAYS[name] in call(built / name)
