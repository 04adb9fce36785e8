"""Compile the resource of RMM's that draws from cenote, against the librmm that is installed.

RMM's C++ has names of its own version, and CCCL's templates in them. So cenote ships the sources, and ``cenote build
rmm`` compiles them with Cython against the headers of the RMM at hand. The module lies in the user's cache folder,
under the versions of RMM, Python and cenote and a checksum of the sources; `cenote.install` takes it from there.
Nothing is compiled unless it is asked for, and RMM is not imported for it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib import metadata
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

__all__ = ["MODULE", "BuildError", "RmmInstallation", "build", "built_extension", "extension_path", "find_rmm", "found"]

MODULE = "cenote_rmm"
"""The name of the module."""

OLDEST = (26, 10)
"""Older ones have another interface."""

_OLDEST_CCCL = 3_003_000
"""RMM's headers want it; a CUDA toolkit may bring an older one."""

_TOOLKIT = Path("/usr/local/cuda")
"""Where NVIDIA's packages install a toolkit."""

_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-w")


@dataclass(frozen=True)
class RmmInstallation:
    """An RMM on the path."""

    librmm: Path
    """The folder of its C++ package."""
    version: str

    @property
    def release(self) -> tuple[int, ...]:
        """The numbers of the version."""
        return tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())


def find_rmm() -> RmmInstallation:
    """Find RMM, without importing it.

    Raises
    ------
    BuildError
        There is none, or it is older than what cenote knows.
    """
    folders = [_folder_of("rmm"), _folder_of("librmm")]
    if folders[0] is None or folders[1] is None:
        raise BuildError("RMM is not installed: pip install rmm-cu13, or rmm-cu12")
    version = (folders[1] / "VERSION").read_text().strip()
    found = RmmInstallation(folders[1], version)
    if found.release < OLDEST:
        raise BuildError(
            f"RMM {version} is older than {'.'.join(map(str, OLDEST))}, whose resources are others: cenote.install() "
            "takes RMM's callbacks there"
        )
    return found


def extension_path(rmm: RmmInstallation) -> Path:
    """Say where the module for that RMM lies once it is built."""
    return cached_path("rmm", rmm.librmm, f"rmm-{rmm.version}-{sys.implementation.cache_tag}")


def built_extension(rmm: RmmInstallation) -> Path | None:
    """Give the module for that RMM, if it was built."""
    try:
        path = extension_path(rmm)
    except (BuildError, RuntimeError):  # a user without a home folder has no cache either
        return None
    return path if path.is_file() else None


def found() -> tuple[str, bool]:
    """Give the version of the RMM at hand, and whether the module was built for it.

    Raises
    ------
    BuildError
        There is no RMM.
    """
    rmm = find_rmm()
    return rmm.version, built_extension(rmm) is not None


def build(force: bool = False) -> Path:
    """Compile the module for the RMM that is installed, unless that was done before.

    Parameters
    ----------
    force : bool, optional
        Compile it in any case.

    Returns
    -------
    Path
        The module.

    Raises
    ------
    BuildError
        There is no RMM, no Cython, no compiler, no headers of CUDA or CCCL, or the compiler refuses the sources.
    """
    rmm = find_rmm()
    path = extension_path(rmm)
    if path.is_file() and not force:
        return path
    if importlib.util.find_spec("Cython") is None:
        raise BuildError("Cython was not found: pip install 'cython>=3.1'")
    with alone_in(path.parent):
        if force or not path.is_file():
            _compile(rmm, path)
    return path


def _compile(rmm: RmmInstallation, path: Path) -> None:
    refused = f"the compiler refuses the resource for RMM {rmm.version}. cenote.install() takes RMM's callbacks."
    program, sources, include = compiler(), sources_of("rmm"), _include(rmm)
    # Under another name first: an interrupted build leaves nothing that is loaded.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unit, target = Path(folder, f"{MODULE}.cpp"), Path(folder, f"{MODULE}.so")
        source = Path(shutil.copy(sources / f"{MODULE}.pyx", folder))
        compile_by([sys.executable, "-m", "cython", "--cplus", str(source), "-o", str(unit)], path, refused)
        command = [
            *program,
            *_FLAGS,
            f"-I{package_folder('include')}",
            f"-I{sources}",
            *(option for each in include for option in ("-isystem", str(each))),
            str(unit),
            "-o",
            str(target),
            *(f"-L{each}" for each in (package_folder("lib"), rmm.librmm / "lib64")),
            "-lcenote",
            "-lrmm",
            "-Wl,--allow-shlib-undefined",
        ]
        compile_by(command, path, refused)
        os.replace(target, path)


def _folder_of(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])


def _cccl_version(folder: Path) -> int:
    """Give the version of the CCCL in a folder, as its macro has it; 0 where there is none."""
    try:
        text = (folder / "cuda" / "std" / "__cccl" / "version.h").read_text()
    except OSError:
        return 0
    found = re.search(r"define CCCL_VERSION (\d+)", text)
    return int(found[1]) if found else 0


def _spell_cccl(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}"


def _include(rmm: RmmInstallation) -> list[Path]:
    """Find the headers of RMM and its logger, of Python, of CUDA's runtime, and of CCCL."""
    major = "12" if any(metadata.distributions(name="librmm-cu12")) else "13"
    homes = [Path(home) for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    of_wheels = _include_of_wheels()
    others = "cu13" if major == "12" else "cu12"
    cuda = [*(home / "include" for home in homes), *(each for each in of_wheels if each.parent.name != others)]
    cuda.append(_TOOLKIT / "include")
    cccl = [place for each in dict.fromkeys([*cuda, *of_wheels]) for place in (each, each / "cccl")]

    def first_with(header: str) -> Path | None:
        return next((each for each in cuda if (each / header).is_file()), None)

    new_enough = next((each for each in cccl if _cccl_version(each) >= _OLDEST_CCCL), None)
    runtime, language = first_with("cuda_runtime_api.h"), first_with("crt/host_defines.h")
    of = f"-cu{major}" if major == "12" else ""
    missing = {}
    if runtime is None:
        missing["cuda_runtime_api.h"] = f"nvidia-cuda-runtime{of}"
    if language is None:
        missing["crt/host_defines.h"] = "nvidia-cuda-nvcc-cu12" if major == "12" else "nvidia-cuda-crt"
    if new_enough is None:
        missing[f"CCCL {_spell_cccl(_OLDEST_CCCL)} or newer"] = "'nvidia-cuda-cccl>=13.3'"
    if missing:
        newest = max(cccl, key=_cccl_version)
        is_old = new_enough is None and _cccl_version(newest) != 0
        at_hand = f" ({newest} has CCCL {_spell_cccl(_cccl_version(newest))})" if is_old else ""
        raise BuildError(
            f"headers of CUDA were not found: {', '.join(missing)}{at_hand}. "
            f"pip install {' '.join(missing.values())}, or name a toolkit that has them in CUDA_HOME"
        )
    logger = _folder_of("rapids_logger")
    # CCCL before CUDA's folders: a toolkit has one of its own in them.
    places = [new_enough, runtime, language, rmm.librmm / "include", Path(sysconfig.get_path("include"))]
    places += [logger / "include"] if logger is not None else []
    return list(dict.fromkeys(place for place in places if place is not None))


def _include_of_wheels() -> list[Path]:
    """Give the folders of headers that NVIDIA's wheels have, on the whole path.

    The import system would not do: where one of the folders ``nvidia`` has an ``__init__.py``, it knows that one alone.
    """
    return [
        include
        for entry in dict.fromkeys(sys.path)
        for include in sorted(Path(entry or ".").glob("nvidia/*/include"), reverse=True)
    ]
