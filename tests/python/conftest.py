"""Every test here runs on the simulated device, which is chosen before anything can use a driver."""

from __future__ import annotations

import ctypes
import gc
import os
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cpp_build import ROOT, CppTree, build_cpp_tree, build_tool, run_build

for _name in [name for name in os.environ if name.startswith("CENOTE_") and not name.startswith("CENOTE_TEST_")]:
    del os.environ[_name]
# A run in the background inherits an ignored SIGINT, and the tests of interruptions need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["CENOTE_CUDA_DRIVER"] = "sim"
os.environ["CENOTE_SIM"] = "devices=2,memory=8GiB,pageable=1"

from cenote import mr, registry, sim  # noqa: E402  the driver is chosen above
from cenote.statistics import statistics  # noqa: E402

DEVICES = (0, 1)
_driver = ctypes.CDLL(str(sim._library.find_library()))
TIMEOUT_SECONDS = 300


BUILDING = {"cpp_tree", "build_project", "project_with_cenote_inside", "site"}
"""Fixtures that compile for more than seconds: a test that asks for one, or for what needs it, is marked `build`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not BUILDING.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.build)


def pytest_collection_finish() -> None:
    gc.freeze()  # what is there before the first test is never garbage: collections between tests become cheap


def choose_no_device() -> None:
    """Empties this thread's stack of contexts, on which a call that was made to fail may have left some."""
    context = ctypes.c_void_p()
    while _driver.cuCtxGetCurrent(ctypes.byref(context)) == 0 and context:
        assert _driver.cuCtxSetCurrent(None) == 0


@pytest.fixture(autouse=True)
def device_left_as_it_was() -> Iterator[None]:
    """Restores the current resources; no test may have done what a real driver would not forgive."""
    # Tests count calls and live objects: what an earlier one left in a cycle must not be freed in their midst.
    gc.collect()
    gc.freeze()  # what is there now outlives the test: its collections need not look at that again
    gc.disable()
    sim.drain()  # what an earlier test has queued on the default stream holds up new blocking streams
    sim.clear_violations()
    before = {device: mr.get_per_device_resource(device) for device in DEVICES}
    yield
    registry.set_default_specification(None)
    for device, resource in before.items():
        mr.set_per_device_resource(device, resource)
    choose_no_device()
    if "cenote.logger" in sys.modules:
        sys.modules["cenote.logger"]._stop()  # reports go to stderr again
    gc.enable()
    assert sim.violations() == []


@pytest.fixture
def run_fresh() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in a process of its own; `None` removes a variable from its environment."""

    def run(code: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **{name: value for name, value in changes.items() if value is not None}}
        for name in [name for name, value in changes.items() if value is None]:
            environment.pop(name, None)
        finished = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=environment,
            check=False,
        )
        assert finished.returncode == 0, f"exit status {finished.returncode}\n{finished.stdout}\n{finished.stderr}"
        return finished

    return run


@pytest.fixture
def on_device() -> Callable[[int], AbstractContextManager[None]]:
    """``with on_device(1):`` makes a device current on this thread, as a framework does: by its primary context."""

    @contextmanager
    def current(device: int) -> Iterator[None]:
        context, popped = ctypes.c_void_p(), ctypes.c_void_p()
        assert _driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
        assert _driver.cuCtxPushCurrent_v2(context) == 0
        try:
            yield
        finally:
            assert _driver.cuCtxPopCurrent_v2(ctypes.byref(popped)) == 0
            assert _driver.cuDevicePrimaryCtxRelease_v2(device) == 0

    return current


@pytest.fixture
def counted() -> mr.StatisticsResourceAdaptor:
    """A pool over the memory of the device, with statistics of what it hands out."""
    return mr.StatisticsResourceAdaptor(mr.from_spec("pool:initial=0 | cuda"))


@pytest.fixture
def counted_current() -> Iterator[mr.StatisticsResourceAdaptor]:
    """The current resource, with statistics during the test."""
    with statistics():
        current = mr.get_current_device_resource()
        assert isinstance(current, mr.StatisticsResourceAdaptor)
        yield current


@pytest.fixture(scope="session")
def build_project() -> Callable[..., None]:
    """Configures the CMake project in a folder and builds it, in its folder `build` or another one."""

    def build(source: Path, *options: str, folder: Path | None = None) -> None:
        cmake, ninja = build_tool("cmake"), build_tool("ninja")
        into = str(folder or source / "build")
        made = run_build(
            *(cmake, "-S", str(source), "-B", into, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", *options)
        )
        if made.returncode == 0:
            made = run_build(cmake, "--build", into, "--parallel", str(os.cpu_count() or 1))
        assert made.returncode == 0, f"{made.stdout[-4000:]}\n{made.stderr[-4000:]}"

    return build


@pytest.fixture(scope="session")
def project_with_cenote_inside(tmp_path_factory: pytest.TempPathFactory, build_project: Callable[..., None]) -> Path:
    """The C++ project of the docs with cenote as a part of it, built by Clang where that is there, in `build`."""
    project = tmp_path_factory.mktemp("project")
    files = runpy.run_path(str(ROOT / "docs" / "snippets.py"))["files"]("docs/cpp/index.md")
    found, part = "find_package(cenote REQUIRED)", f'add_subdirectory("{ROOT / "core"}" cenote EXCLUDE_FROM_ALL)'
    assert found in files["CMakeLists.txt"]
    files["CMakeLists.txt"] = files["CMakeLists.txt"].replace(found, part)
    for name, text in files.items():
        (project / name).write_text(text)
    compiler = ("-DCMAKE_CXX_COMPILER=clang++",) if shutil.which("clang++") else ()
    quick = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0", "-DCMAKE_UNITY_BUILD=ON")
    build_project(project, f"-DPython_EXECUTABLE={sys.executable}", *compiler, *quick)
    return project


@pytest.fixture(scope="session")
def cpp_tree() -> CppTree:
    """The core and its tests, the one for all tests.

    ``CENOTE_TEST_SANITIZE=address,undefined`` or ``=thread`` builds them with sanitizers, in a folder of their own.
    """
    sanitize = os.environ.get("CENOTE_TEST_SANITIZE", "")
    # The tests in few units, which takes half the time; the core in one a source, whose links test_links.py looks at.
    settings = ("-DCMAKE_UNITY_BUILD=OFF", "-DCENOTE_TESTS_IN_A_UNIT=64", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1")
    return build_cpp_tree("cpp-tests", sanitize, ("all",), *settings)


@pytest.fixture(scope="session")
def run_in_tree(cpp_tree: CppTree) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a build tool, such as ctest or ninja, for the tree of `cpp_tree`."""

    def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_build(build_tool(tool), *arguments)

    return run
