"""No CUDA toolkit is needed: not to build, not to link, not to import."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import cenote
from cuda_headers import wheel_include_folders

PACKAGE = Path(cenote.__file__).parent
LINKER_SCRIPT = PACKAGE / "lib" / "libcenote.so"  # no library (test_symbols.py)
LIBRARIES = sorted({*PACKAGE.rglob("*.so"), PACKAGE / "lib" / "libcenote.so.1"} - {LINKER_SCRIPT})
NEEDED = re.compile(r"^lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so\.\d+$|^ld-linux.*\.so\.\d+$|^libcenote\.so\.1$")


def cache_entry(folder: Path, name: str) -> str:
    found = re.search(rf"^{name}:\w+=(.*)$", (folder / "CMakeCache.txt").read_text(), re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_headers_of_cuda_come_from_the_wheel(cpp_tree: Any) -> None:
    assert Path(cache_entry(cpp_tree.folder, "CENOTE_CUDA_INCLUDE")).resolve() in wheel_include_folders()


def test_no_command_of_the_build_names_a_toolkit(cpp_tree: Any) -> None:
    commands = json.loads((cpp_tree.folder / "compile_commands.json").read_text())
    assert len(commands) > 30
    wheel = {str(folder / below) for folder in wheel_include_folders() for below in ("", "cccl")}
    for command in commands:
        folders = re.findall(r"(?:-I|-isystem|-iquote|-L)\s*(\S+)", command["command"])
        foreign = {folder for folder in folders if re.search("cuda|nvidia|/cu[0-9]+", folder, re.IGNORECASE)}
        assert {str(Path(folder).resolve()) for folder in foreign} <= wheel, command["file"]
        assert "nvcc" not in command["command"]


def test_no_file_of_the_build_was_made_from_a_header_of_a_toolkit(
    cpp_tree: Any, run_in_tree: Callable[..., CompletedProcess[str]]
) -> None:
    wheel = wheel_include_folders()
    names = {header.name for folder in wheel for header in folder.glob("*.h")}
    listed = run_in_tree("ninja", "-C", str(cpp_tree.folder), "-t", "deps").stdout
    headers = {(cpp_tree.folder / line.strip()).resolve() for line in listed.splitlines() if line.startswith("    ")}
    ours = {header for header in headers if header.name in names}
    assert "cuda.h" in {header.name for header in ours}
    assert not {header for header in ours if not any(header.is_relative_to(folder) for folder in wheel)}


def test_the_package_ships_its_libraries() -> None:
    assert {path.name for path in (PACKAGE / "lib").iterdir() if ".so" in path.name and path.suffix != ".py"} == {
        "libcenote.so",
        "libcenote.so.1",
        "libcenote_sim.so",
        "libcenote_torch.so",
    }
    assert len(LIBRARIES) >= 9


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.partition(".")[0])
def test_library_needs_the_c_and_cpp_runtime_only(library: Path) -> None:
    listed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", listed)
    assert {"libc.so.6", "libcenote.so.1"} & set(needed)
    assert not [name for name in needed if not NEEDED.match(name)]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.partition(".")[0])
def test_library_is_found_beside_the_package_and_nowhere_else(library: Path) -> None:
    listed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    for paths in re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", listed):
        for path in filter(None, paths.split(":")):
            assert path.startswith("$ORIGIN"), f"{library.name} looks in {path}"


def test_importing_loads_no_library_of_cuda(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        from cenote import allocators, driver, mr, registry, sim, trace
        mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
        assert any(path.endswith("libcenote.so.1") for path in mapped)
        assert not [path for path in mapped if "libcuda" in path or "libnv" in path or "libcenote_sim" in path]
        """,
        CENOTE_CUDA_DRIVER=None,
    )
