"""C++ that was written for RMM: one program compiles unchanged against RMM's headers and against those over cenote."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import cenote
from cuda_headers import wheel_include_folders

pytestmark = [pytest.mark.build, pytest.mark.long]

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("rmm_program.cpp")
COMPAT = ROOT / "core" / "compat"
LIBRARY = Path(cenote.__file__).parent / "lib"
COMPILER = shlex.split(os.environ.get("CXX", "c++"))


def folder_of(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


def compile_cpp(*options: str) -> None:
    if shutil.which(COMPILER[0]) is None:
        pytest.skip(f"needs a C++ compiler: there is no {COMPILER[0]}")
    system = [f"-isystem{folder / below}" for folder in wheel_include_folders() for below in ("", "cccl")]
    if not any((Path(each[8:]) / "cuda" / "memory_resource").is_file() for each in system):
        pytest.skip("needs CCCL: pip install nvidia-cuda-cccl")
    command = [*COMPILER, "-std=c++20", "-Wall", "-Wextra", *options, *system]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr[:4000]


OURS = [f"-I{COMPAT}", f"-I{ROOT / 'core' / 'cpp'}"]


def test_program_compiles_against_the_headers_of_rmm() -> None:
    librmm, logger = folder_of("librmm"), folder_of("rapids_logger")
    if librmm is None or logger is None:
        pytest.skip("needs librmm: pip install librmm-cu13")
    compile_cpp("-fsyntax-only", str(PROGRAM), f"-isystem{librmm / 'include'}", f"-isystem{logger / 'include'}")


def test_program_compiles_against_the_headers_over_cenote_and_runs(
    tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    assert len(PROGRAM.read_text().splitlines()) >= 300
    headers = [path.relative_to(COMPAT) for path in COMPAT.glob("rmm/**/*.hpp") if path.parent.name != "detail"]
    assert len(headers) > 40
    missing = [each for each in headers if f"#include <{each}>" not in PROGRAM.read_text()]
    assert missing == []
    program = tmp_path / "program"
    compile_cpp(*OURS, str(PROGRAM), "-o", str(program), f"-L{LIBRARY}", "-lcenote", f"-Wl,-rpath,{LIBRARY}")
    code = f"import subprocess; subprocess.run([{str(program)!r}], check=True)"
    done = run_fresh(code, RMM_PROGRAM_FOLDER=str(tmp_path), CENOTE_SIM="devices=2,memory=256MiB")
    assert done.stdout == "done\n" and not done.stderr


def test_each_header_compiles_alone(tmp_path: Path) -> None:
    for header in sorted(COMPAT.glob("rmm/**/*.hpp")):
        source = tmp_path / "alone.cpp"
        source.write_text(f"#include <{header.relative_to(COMPAT)}>\n" * 2)
        compile_cpp("-fsyntax-only", "-Wpedantic", *OURS, str(source))


def test_the_wheel_has_the_headers() -> None:
    assert (Path(cenote.__file__).parent / "include" / "cenote" / "compat" / "rmm" / "device_uvector.hpp").is_file()
