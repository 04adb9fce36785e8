"""What is compiled on the user's machine, for the library that is installed there: what such plugins have in common.

A plugin ships sources in its folder, and compiles them once. What comes out lies in the user's cache folder, under a
name that tells all that it depends on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import cenote

__all__ = ["BuildError", "alone_in", "cached_path", "compile_by", "compiler", "package_folder", "sources_of"]


class BuildError(RuntimeError):
    """It cannot be compiled here; the text says what to do."""


def package_folder(*parts: str) -> Path:
    """Give a folder of the package, which in an editable install is two.

    Raises
    ------
    BuildError
        It is not there.
    """
    for folder in cenote.__path__:
        if (path := Path(folder, *parts)).is_dir():
            return path
    raise BuildError(f"{'/'.join(parts)} is missing from the package: install cenote again")


def sources_of(plugin: str) -> Path:
    """Give the folder of a plugin's sources; `BuildError` where it is missing."""
    return package_folder("allocators", plugin, "sources")


def cached_path(plugin: str, library: Path, versions: str) -> Path:
    """Say where the result lies in the user's cache.

    Parameters
    ----------
    plugin : str
        Name of the plugin, such as ``torch``.
    library : Path
        Where the library lies that they are compiled for.
    versions : str
        Beginning of the file's name.

    Returns
    -------
    Path
        Another one for other sources, another library or another cenote.

    Raises
    ------
    BuildError
        The sources are missing.
    RuntimeError
        The user has neither a home folder nor a cache.
    """
    checksum = hashlib.sha256()
    for source in sorted(sources_of(plugin).iterdir()):
        checksum.update(source.read_bytes())
    checksum.update(str(library).encode())
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "cenote", f"{versions}-cenote-{cenote.__version__}-{checksum.hexdigest()[:12]}.so")


def compiler() -> list[str]:
    """Give the command of the C++ compiler: what CXX says, or the first that there is.

    Raises
    ------
    BuildError
        There is none.
    """
    wanted = shlex.split(os.environ.get("CXX", ""))
    for command in [wanted] if wanted else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]) is not None:
            return command
    raise BuildError(
        f"no C++ compiler{' ' + wanted[0] if wanted else ''} was found: install g++ 11 or newer (Debian and Ubuntu: "
        "apt install g++; conda: conda install gxx), or name one in CXX"
    )


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from compiling meanwhile; where a file system has no locks, they compile it, too."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def compile_by(command: Sequence[str], path: Path, refused: str, source: str = "") -> None:
    """Run a compiler, which is to leave `path` in the end.

    Parameters
    ----------
    command : sequence of str
        The compiler and its arguments.
    path : Path
        The result. If the compiler refuses, its messages are written to a ``.log`` beside it.
    refused : str
        Beginning of the error's text.
    source : str, optional
        Text for the compiler's input.

    Raises
    ------
    BuildError
        The compiler refuses the sources: with its first error, and where all of them are.
    """
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    first = next((line for line in done.stderr.splitlines() if "rror" in line), done.stderr.strip())
    log = path.with_suffix(".log")
    log.write_text(done.stderr)
    raise BuildError(f"{refused} The first error, all of them in {log}: {first}")
