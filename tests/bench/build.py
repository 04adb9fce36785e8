"""Builds the workers in C++ against the installed cenote, in a folder that the next run uses again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_name("cpp")
TIMEOUT_SECONDS = 1200


class BuildError(RuntimeError):
    """A worker could not be built; the text says why, in one line."""


def build(folder: Path, target: str, say: Callable[[str], None]) -> Path:
    """Build ``bench_worker`` or ``bench_rmm_worker``; the path of the program."""
    cmake = _tool("cmake")
    if not any(_find(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name):
        raise BuildError("there is no C++ compiler: install g++ 11 or newer")
    options = [f"-DCMAKE_PREFIX_PATH={_package('cenote')}", f"-DCENOTE_CUDA_INCLUDE={cuda_include()}"]
    if target == "bench_rmm_worker":
        options = [options[0], *rmm_options()]
    if ninja := _find("ninja"):
        options += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    say(f"building {target} …")
    folder = folder / target
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    with log.open("w") as output:
        for command in (
            [cmake, "-S", str(SOURCE), "-B", str(folder), *options],
            [cmake, "--build", str(folder), "--target", target, "--parallel"],
        ):
            done = subprocess.run(command, stdout=output, stderr=output, timeout=TIMEOUT_SECONDS, check=False)
            if done.returncode != 0:
                output.flush()
                raise BuildError(f"{_first_error(log.read_text())} (all of it: {log})")
    return folder / target


def rmm_options() -> list[str]:
    """Where RMM's headers and libraries are; BuildError where they are not."""
    rmm, logger = _package("librmm"), _package("rapids_logger")
    if rmm.parent != logger.parent:
        raise BuildError(f"librmm and rapids_logger lie in two folders: {rmm.parent} and {logger.parent}")
    # The runtime's headers need those of the compiler, which the wheel of the runtime does not have.
    include = cuda_include("crt/host_defines.h", "nvidia-cuda-crt")
    places = {"BENCH_RMM": rmm.parent, "BENCH_CUDART": _cudart(), "CUDA_INCLUDE": include}
    return [f"-DCENOTE_{name}={place}" for name, place in places.items()]


def cuda_include(header: str = "cuda.h", package: str = "nvidia-cuda-runtime") -> Path:
    """The folder of CUDA's headers, with `header`: of the wheels, else of a toolkit."""
    for folder in (*_nvidia_folders("include"), *_toolkit_folders("include")):
        if (folder / "cuda.h").is_file() and (folder / header).is_file():
            return folder
    raise BuildError(f"{header} was not found: pip install {package}, or install a CUDA toolkit")


def _cudart() -> Path:
    for folder in (*_nvidia_folders("lib"), *_toolkit_folders("lib64"), *_toolkit_folders("lib")):
        for found in sorted(folder.glob("libcudart.so*")):
            return found
    raise BuildError("libcudart.so was not found: pip install nvidia-cuda-runtime")


def _nvidia_folders(name: str) -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return [folder for root in roots for folder in sorted(Path(root).glob(f"*/{name}"), reverse=True)]


def _toolkit_folders(name: str) -> list[Path]:
    roots = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", *map(str, sorted(Path("/usr/local").glob("cuda-*")))]
    return [Path(root) / name for root in roots if root]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(f"the package {name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))


def _tool(name: str) -> str:
    found = _find(name)
    if found is None:
        raise BuildError(f"{name} is not there: pip install {name} (Python is {sys.executable})")
    return found


def _first_error(log: str) -> str:
    for line in log.splitlines():
        if "error" in line.lower():
            return line.strip()
    return "the build failed"
