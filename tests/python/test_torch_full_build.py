"""Compiling the full allocator: what is refused, with which remedy; and the private pools in it, against a model.

With PyTorch it is tested on a device, by tests/gpu/test_torch_features.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cenote.allocators.compiling import sources_of
from cenote.allocators.torch import full_build

COMPILER = shlex.split(os.environ.get("CXX", "c++"))
POOL_TEST = Path(__file__).with_name("private_pool_history.cpp")


@pytest.fixture
def fake_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like an installed PyTorch 2.11, with headers that no compiler accepts."""
    folder = tmp_path / "site" / "torch"
    (folder / "include/c10/core").mkdir(parents=True)
    (folder / "include/c10/core/CachingDeviceAllocator.h").write_text("#error these are no headers\n")
    (folder / "lib").mkdir()
    (folder / "__init__.py").write_text("raise ImportError('it is not imported to be compiled for')\n")
    set_version(folder, "2.11.0+cu130", "13.0")
    cuda = tmp_path / "cuda"
    (cuda / "include/crt").mkdir(parents=True)
    for header in ("cuda_runtime_api.h", "crt/host_defines.h"):
        (cuda / "include" / header).write_text("")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_HOME", str(cuda))
    return folder


def set_version(folder: Path, version: str, cuda: str | None) -> None:
    (folder / "version.py").write_text(f"__version__ = {version!r}\ndebug = False\ncuda: str | None = {cuda!r}\n")


def test_pytorch_is_found_without_being_imported(fake_torch: Path) -> None:
    found = full_build.find_torch()
    assert (found.folder, found.version, found.cuda, found.release) == (fake_torch, "2.11.0+cu130", "13.0", (2, 11, 0))
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("version", "cuda", "why"),
    [
        ("2.11.0+cpu", None, "is built without CUDA"),
        ("2.8.1+cu128", "12.8", "is older than 2.9"),
    ],
)
def test_a_pytorch_that_has_no_such_allocator_is_refused(
    fake_torch: Path, version: str, cuda: str | None, why: str
) -> None:
    set_version(fake_torch, version, cuda)
    with pytest.raises(full_build.BuildError, match=why):
        full_build.build()


def test_a_missing_compiler_is_named_with_the_way_to_one(fake_torch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    with pytest.raises(full_build.BuildError, match=r"no-such-compiler was found: install g\+\+"):
        full_build.build()


@pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="needs a C++ compiler")
def test_what_the_compiler_refuses_is_told_with_its_first_error_and_leaves_no_library(fake_torch: Path) -> None:
    with pytest.raises(full_build.BuildError, match=r"for PyTorch 2\.11\.0.*no headers") as raised:
        full_build.build()
    path = full_build.library_path(full_build.find_torch())
    assert not path.exists() and full_build.built_library(full_build.find_torch()) is None
    assert "no headers" in path.with_suffix(".log").read_text()
    assert str(path.with_suffix(".log")) in str(raised.value)
    assert [each.name for each in path.parent.iterdir()] == [path.with_suffix(".log").name]


def test_a_version_that_is_not_known_yet_is_said_to_be_so(fake_torch: Path) -> None:
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("needs a C++ compiler")
    set_version(fake_torch, "2.99.0+cu150", "15.0")
    with pytest.raises(full_build.BuildError, match="does not know this version of PyTorch yet"):
        full_build.build()


def test_what_is_built_is_taken_and_not_built_again(fake_torch: Path) -> None:
    path = full_build.library_path(full_build.find_torch())
    path.parent.mkdir(parents=True)
    path.write_bytes(b"built")
    assert full_build.built_library(full_build.find_torch()) == path
    assert full_build.build() == path and path.read_bytes() == b"built"


COMPILER_THAT_COUNTS = """#!/bin/sh
cat > /dev/null
echo compiled >> "$COUNT"
sleep 0.2
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


def test_processes_that_build_at_once_compile_once(
    fake_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, count = tmp_path / "compiler", tmp_path / "count"
    compiler.write_text(COMPILER_THAT_COUNTS)
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("COUNT", str(count))
    with ThreadPoolExecutor() as others:
        built = list(others.map(lambda _: full_build.build(), range(4)))
    assert count.read_text().splitlines() == ["compiled"]
    assert len(set(built)) == 1 and built[0].read_text() == "library\n"


def test_the_library_of_another_version_is_another(fake_torch: Path) -> None:
    first = full_build.library_path(full_build.find_torch())
    set_version(fake_torch, "2.11.1+cu130", "13.0")
    assert full_build.library_path(full_build.find_torch()) != first


def test_the_command_says_why_it_fails(fake_torch: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(fake_torch.parent), "CXX": "no-such-compiler"}
    done = subprocess.run(
        [sys.executable, "-m", "cenote", "build", "torch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no C++ compiler no-such-compiler was found" in done.stderr and "Traceback" not in done.stderr


def test_every_source_is_compiled() -> None:
    sources = {path.stem for path in sources_of("torch").glob("*.cpp")}
    assert sources == set(full_build._UNITS)


@pytest.mark.build
@pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="needs a C++ compiler")
def test_a_private_pool_does_as_a_simple_model(tmp_path: Path) -> None:
    sources = sources_of("torch")
    program = tmp_path / "history"
    command = [*COMPILER, "-std=c++20", "-O1", f"-I{sources}", str(POOL_TEST), str(sources / "private_pool.cpp")]
    done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
