"""The C++ tests under sanitizers, on the simulated device.

Compiling takes half of the time: for the short run each library and each program is built in a few large translation
units, without optimisation, and by Clang where it has the sanitizers, which takes half as long as GCC. A name in an
unnamed namespace is therefore one in all the sources of a library, and in all the tests of a folder. The invariants
after each step are checked by the same suites without sanitizers (test_cpp.py).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cpp_build import build_cpp_tree, run_build, run_ctest

pytestmark = pytest.mark.build

FEW_UNITS = ("-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=16", "-DCMAKE_CXX_FLAGS_DEBUG=-O0 -g1")
FEWER_CHECKS = ("-DCENOTE_CHECK=1",)
PROGRAMS = ("pool", "surface")


def why_not(compiler: list[str], sanitize: str, folder: Path) -> str:
    """Empty where the compiler makes programs with that sanitizer, and they start."""
    source, program = folder / "probe.cpp", folder / "probe"
    source.write_text("int main() { return 0; }\n")
    program.unlink(missing_ok=True)
    compiled = run_build(*compiler, f"-fsanitize={sanitize}", str(source), "-o", str(program))
    if compiled.returncode != 0:
        return compiled.stderr[-500:] or "it does not compile"
    started = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    return "" if started.returncode == 0 else started.stderr[-500:] or f"it ends with {started.returncode}"


def has_sanitizer(name: str, sanitize: str, folder: Path) -> bool:
    return shutil.which(name) is not None and not why_not([name], sanitize, folder)


def require_sanitizer(sanitize: str, folder: Path) -> None:
    """Skips where CMake's choice of a compiler has none; fails where the programs that it made do not start."""
    reason = why_not(shlex.split(os.environ.get("CXX", "c++")), sanitize, folder)
    if not (folder / "probe").exists():
        pytest.skip(f"the compiler has no -fsanitize={sanitize}: {reason}")
    assert not reason


@pytest.mark.parametrize("sanitize", ["address,undefined", "thread"])
def test_what_orders_memory_is_clean(sanitize: str, tmp_path: Path) -> None:
    """A short run, for every change: the pool, and who owns a block."""
    name, settings = "cpp-sanitized", (*FEW_UNITS, *FEWER_CHECKS)
    if has_sanitizer("clang++", sanitize, tmp_path):
        name, settings = "cpp-sanitized-by-clang", ("-DCMAKE_CXX_COMPILER=clang++", *settings)
    else:
        require_sanitizer(sanitize, tmp_path)
    tree = build_cpp_tree(name, sanitize, PROGRAMS, *settings)
    if not tree.has_googletest:
        pytest.skip("needs GoogleTest: apt-get install libgtest-dev, or conda install -c conda-forge gtest")
    selected = ("--tests-regex", rf"^({'|'.join(PROGRAMS)})\.")
    # These have one thread, with a long history or much memory, for each byte of which ThreadSanitizer keeps several.
    of_one_thread = ("--exclude-regex", r"repeated_phases\.|pauses_in\.|several_pages_of_another_device")
    left_out = of_one_thread if sanitize == "thread" else ()
    run_ctest(tree.folder, tmp_path / "ctest.xml", *selected, *left_out)


@pytest.mark.long
@pytest.mark.parametrize("sanitize", ["address,undefined", "thread"])
def test_every_suite_is_clean_with_a_million_random_operations(sanitize: str, tmp_path: Path) -> None:
    """The long run: all programs, optimised, without checks after each step, where random histories are the longest."""
    require_sanitizer(sanitize, tmp_path)
    settings = ("-DCENOTE_CHECK=0", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1")
    tree = build_cpp_tree("cpp-sanitized-all", sanitize, ("all",), *settings)
    if not tree.has_googletest:
        pytest.skip("needs GoogleTest: apt-get install libgtest-dev, or conda install -c conda-forge gtest")
    # ThreadSanitizer ends a forked child that starts a thread; the faults have one thread; and it has no addresses for
    # thousands of machines. AddressSanitizer (GCC 12) may hold a lock of its own allocator while another thread forks,
    # so that the child waits for it for ever.
    of_thread = "fork|faults|thousands_of_machines"
    left_out = of_thread if sanitize == "thread" else "fork.*(other_threads|another_thread)"
    run_ctest(tree.folder, tmp_path / "ctest.xml", "--exclude-regex", left_out)
