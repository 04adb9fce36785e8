"""Compile the full allocator against the PyTorch that is installed.

The interface of PyTorch's allocator differs from version to version, and is C++. So cenote ships the sources, and
``cenote build torch`` compiles them against the headers of the PyTorch at hand. The library lies in the user's cache
folder, under the versions of PyTorch and cenote and a checksum of the sources; `cenote.install` takes it from there.
Nothing is compiled unless it is asked for, and PyTorch is not imported for it.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cenote.allocators.compiling import (
    BuildError,
    alone_in,
    cached_path,
    compile_by,
    compiler,
    package_folder,
    sources_of,
)

__all__ = ["BuildError", "TorchInstallation", "build", "built_library", "find_torch", "found", "library_path"]

OLDEST = (2, 9)
"""Older ones have another interface."""

NEWEST = (2, 14)
"""The newest whose headers the sources were compiled with. A newer one may do: the compiler tells."""

RUN = (2, 11)
"""The version that the tests ran with on a GPU."""

_UNITS = (
    "device_counters",
    "graph_pages",
    "lasting_stream",
    "memory_history",
    "private_pool",
    "private_pool_checkpoints",
    "private_pools",
    "recorded_frees",
    "shared_memory",
    "snapshot",
    "full_allocator",
    "full_allocator_figures",
    "full_allocator_history",
    "full_allocator_pools",
    "installation",
)

_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")

_CUDA_HEADERS = ("cuda_runtime_api.h", "crt/host_defines.h")


@dataclass(frozen=True)
class TorchInstallation:
    """A PyTorch on the path, which need not be importable."""

    folder: Path
    version: str
    cuda: str | None

    @property
    def release(self) -> tuple[int, ...]:
        """The numbers of the version."""
        return tuple(int(part) for part in self.version.split("+")[0].split(".")[:3] if part.isdigit())


def find_torch() -> TorchInstallation:
    """Find PyTorch, without importing it.

    Raises
    ------
    BuildError
        There is none, or its folder is not that of an installed PyTorch.
    """
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        raise BuildError("PyTorch is not installed: pip install 'cenote[torch]'")
    folder = Path(found.submodule_search_locations[0])
    try:
        facts = _constants((folder / "version.py").read_text())
    except OSError as error:
        raise BuildError(f"{folder} is no installed PyTorch: {error}") from error
    return TorchInstallation(folder, str(facts.get("__version__", "0")), facts.get("cuda"))


def _constants(source: str) -> dict[str, str | None]:
    """Read the texts that a module assigns to its names."""
    facts: dict[str, str | None] = {}
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                facts[target.id] = None if value.value is None else str(value.value)
    return facts


def library_path(torch: TorchInstallation) -> Path:
    """Say where the library for that PyTorch lies once it is built."""
    return cached_path("torch", torch.folder, f"torch-{torch.version}")


def built_library(torch: TorchInstallation) -> Path | None:
    """Give the library for that PyTorch, if it was built."""
    try:
        path = library_path(torch)
    except (BuildError, RuntimeError):  # a user without a home folder has no cache either
        return None
    return path if path.is_file() else None


def found() -> tuple[str, bool]:
    """Give the version of the PyTorch at hand, and whether the library was built for it.

    Raises
    ------
    BuildError
        There is no PyTorch.
    """
    torch = find_torch()
    return torch.version, built_library(torch) is not None


def _cuda_include(torch: TorchInstallation) -> list[Path]:
    """Find the headers of CUDA's runtime: of a toolkit, or of the packages that PyTorch brings."""
    major = (torch.cuda or "").partition(".")[0]
    candidates = [Path(home, "include") for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    nvidia = importlib.util.find_spec("nvidia")
    for folder in (nvidia.submodule_search_locations or []) if nvidia is not None else []:
        candidates += [Path(folder, each, "include") for each in (f"cu{major}", "cuda_runtime", "cuda_nvcc")]
    candidates += [Path(f"/usr/local/cuda-{torch.cuda}/include"), Path("/usr/local/cuda/include")]
    found = [next((each for each in candidates if (each / header).is_file()), None) for header in _CUDA_HEADERS]
    missing = [header for header, folder in zip(_CUDA_HEADERS, found, strict=True) if folder is None]
    if missing:
        packages = "nvidia-cuda-runtime nvidia-cuda-crt"
        if major == "12":
            packages = "nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12"
        raise BuildError(
            f"the headers of CUDA's runtime were not found ({', '.join(missing)}): pip install {packages}, or name a "
            "toolkit in CUDA_HOME"
        )
    return list(dict.fromkeys(folder for folder in found if folder is not None))


def _check_version(torch: TorchInstallation) -> None:
    if torch.cuda is None:
        raise BuildError(f"PyTorch {torch.version} is built without CUDA: there is no allocator to replace")
    if torch.release[:2] < OLDEST:
        raise BuildError(
            f"PyTorch {torch.version} is older than {'.'.join(map(str, OLDEST))}, whose allocator's interface is "
            "another: cenote.install() takes the pluggable allocator there"
        )


def _command(torch: TorchInstallation, target: Path) -> list[str]:
    include = torch.folder / "include"
    system = [include, include / "torch" / "csrc" / "api" / "include", *_cuda_include(torch)]
    number = "".join(f"{part:02}" for part in (*torch.release, 0, 0)[:3]).lstrip("0")
    return [
        *compiler(),
        *_FLAGS,
        f"-DCENOTE_TORCH_VERSION={number}",
        f"-I{package_folder('include')}",
        *(option for folder in system for option in ("-isystem", str(folder))),
        "-x",
        "c++",
        "-",
        "-o",
        str(target),
        f"-L{package_folder('lib')}",
        "-lcenote",
        f"-L{torch.folder / 'lib'}",
        "-lc10",
        "-lc10_cuda",
    ]


def build(force: bool = False) -> Path:
    """Compile the full allocator for the PyTorch that is installed, unless that was done before.

    Parameters
    ----------
    force : bool, optional
        Compile it in any case.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    BuildError
        There is no PyTorch with CUDA, no compiler, no headers of CUDA, or the compiler refuses the sources.
    """
    torch = find_torch()
    _check_version(torch)
    path = library_path(torch)
    if path.is_file() and not force:
        return path
    with alone_in(path.parent):  # the ranks of a job may all ask for it at once
        if force or not path.is_file():
            _compile(torch, path)
    return path


def _compile(torch: TorchInstallation, path: Path) -> None:
    units = "".join(f'#include "{sources_of("torch") / unit}.cpp"\n' for unit in _UNITS)
    known = "" if torch.release[:2] <= NEWEST else " cenote does not know this version of PyTorch yet."
    refused = (
        f"the compiler refuses the full allocator for PyTorch {torch.version}.{known} cenote.install() takes the "
        "pluggable allocator."
    )
    # Under another name first: an interrupted build leaves nothing that is loaded.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder, "full.so")
        compile_by(_command(torch, target), path, refused, units)
        os.replace(target, path)
