"""The full allocator against the wheels of each PyTorch that it is said to be compiled with: headers and symbols.

Nothing of a wheel is imported. CENOTE_TORCH_WHEELS names a folder of wheels, or of unpacked ones; else pip downloads
them, half a gigabyte each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cenote.allocators.compiling import sources_of
from cenote.allocators.torch import full_build

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("c++") is None or shutil.which("nm") is None, reason="needs a C++ compiler and nm"),
]

VERSIONS = {"2.9.1": "12.8", "2.10.0": "12.8", "2.11.0": "13.0", "2.12.0": "13.0", "2.13.0": "13.0", "2.14.1": "13.0"}
"""Releases that the documentation names, and the CUDA of their wheels."""

WANTED = re.compile(r"torch/(include/.*|lib/libc10(_cuda)?\.so|version\.py)")


def folder_of(wheel: Path, into: Path) -> Path:
    """Unpack what is needed of a wheel."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(into, [name for name in packed.namelist() if WANTED.fullmatch(name)])
    return into / "torch"


def version_of(folder: Path) -> str:
    """Read the version from the headers."""
    for name in ("headeronly", "csrc/api/include/torch"):
        header = folder / "include/torch" / name / "version.h"
        found = (
            re.findall(r"define TORCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header.read_text())
            if header.is_file()
            else []
        )
        if len(found) == 3:
            return ".".join(found)
    return ""


@pytest.fixture(params=VERSIONS)
def wheel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[full_build.TorchInstallation]:
    version: str = request.param
    given = os.environ.get("CENOTE_TORCH_WHEELS")
    folder: Path | None = None
    if given is not None:
        unpacked = [each for each in Path(given).glob("*/torch") if version_of(each) == version]
        packed = list(Path(given).glob(f"torch-{version}-*.whl"))
        folder = unpacked[0] if unpacked else folder_of(packed[0], tmp_path) if packed else None
        if folder is None:
            pytest.skip(f"{given} has no wheel of {version}")
    else:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        options = ["--python-version", "3.12", "--implementation", "cp", "-d", str(tmp_path), f"torch=={version}"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"pip has no wheel of {version}: {done.stderr.strip()[-200:]}")
        (archive,) = tmp_path.glob("*.whl")
        folder = folder_of(archive, tmp_path)
        archive.unlink()
    yield full_build.TorchInstallation(folder, version, VERSIONS[version])
    shutil.rmtree(tmp_path, ignore_errors=True)


def symbols(library: Path, *options: str) -> set[str]:
    """Names in the dynamic table of a library, without their versions."""
    done = subprocess.run(["nm", "-D", *options, str(library)], capture_output=True, text=True, check=True)
    return {line.split()[-1].partition("@")[0] for line in done.stdout.splitlines() if line.strip()}


def test_the_sources_compile_and_each_symbol_that_they_need_is_in_the_wheel(
    wheel: full_build.TorchInstallation, tmp_path: Path
) -> None:
    """Layouts are the compiler's matter: a function or a member that is another one now does not compile."""
    library = tmp_path / "full.so"
    units = "".join(f'#include "{sources_of("torch") / unit}.cpp"\n' for unit in full_build._UNITS)
    try:
        command = full_build._command(wheel, library)
    except full_build.BuildError as error:  # no headers of CUDA
        pytest.skip(str(error))
    done = subprocess.run(command, input=units, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    there = symbols(wheel.folder / "lib/libc10.so", "--defined-only")
    there |= symbols(wheel.folder / "lib/libc10_cuda.so", "--defined-only")
    needed = {name for name in symbols(library, "--undefined-only") if "c10" in name}
    assert needed and needed <= there, sorted(needed - there)
    assert "_ZN3c104cuda20CUDACachingAllocator9allocatorE" in there, "the slot of the allocator"
    names = ("cenote_torch_full_install", "cenote_torch_full_uninstall", "cenote_torch_full_join_pages")
    assert set(names) <= symbols(library, "--defined-only")
