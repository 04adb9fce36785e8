"""RMM on cenote: the real rmm and librmm, as far as they go without a device.

librmm's CUDA runtime finds no device where it is simulated, and so RMM makes no buffer there; its resources, in C++ and
in Python, can be asked for memory. Buffers, and libraries over librmm, are tested on a device, by tests/gpu.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cenote.allocators.rmm import extension_build
from cenote.sim import _library

pytest.importorskip("librmm")

RunFresh = Callable[..., CompletedProcess[str]]

PROGRAM = """
import cenote
from cenote import mr

report = cenote.install("pool:max=32MiB", frameworks="rmm")
assert report, str(report)
assert HOW in str(report), str(report)

import rmm
from cenote.allocators.rmm import memory_resource

resource = rmm.mr.get_per_device_resource(0)
assert resource is memory_resource(0) and rmm.mr.get_per_device_resource(1) is memory_resource(1)
pool = mr.get_current_device_resource()
address = resource.allocate(1 << 20)
assert cenote.usage()["rmm"].bytes == 1 << 20 and pool.in_use() == 1 << 20
adaptor = rmm.mr.StatisticsResourceAdaptor(resource)         # C++ of librmm's over it
inner = adaptor.allocate(1000)
assert adaptor.allocation_counts.current_bytes == 1000 and cenote.usage()["rmm"].bytes == (1 << 20) + 1000
adaptor.deallocate(inner, 1000)
mr.set_current_device_resource(mr.from_spec("cuda"))         # from now on; what is held goes back to its pool
other = resource.allocate(1000)
assert pool.in_use() == 1 << 20
resource.deallocate(address, 1 << 20)
resource.deallocate(other, 1000)
assert pool.in_use() == 0 and cenote.usage()["rmm"].allocations == 0
try:
    resource.allocate(1 << 40)
except MemoryError as error:
    assert "1.00 TiB" in str(error) or HOW == "calls of Python", error
else:
    raise SystemExit("no MemoryError")
assert cenote.uninstall()
assert rmm.mr.get_per_device_resource(0) is not resource
"""

CLI = "import cenote.cli, runpy; runpy.run_module('cenote', run_name='__main__')"


@pytest.fixture
def run(run_fresh: RunFresh, tmp_path: Path) -> RunFresh:
    """Runs a program in which both cenote and librmm use the simulated driver."""
    (tmp_path / "libcuda.so.1").symlink_to(_library.find_library())

    def run_on_simulated_device(code: str, **changes: str) -> CompletedProcess[str]:
        return run_fresh(code, LD_LIBRARY_PATH=str(tmp_path), CENOTE_SIM="devices=2,memory=64MiB", **changes)

    return run_on_simulated_device


@pytest.mark.slow
def test_rmm_draws_from_cenote_through_its_callbacks_where_nothing_was_built(run: RunFresh, tmp_path: Path) -> None:
    run(PROGRAM.replace("HOW", '"calls of Python"'), XDG_CACHE_HOME=str(tmp_path))


@pytest.mark.build
@pytest.mark.long
def test_built_module_draws_from_cenote_in_cpp(run: RunFresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("Cython")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = [
        run(f"import sys; sys.argv = ['cenote', 'build', 'rmm']; {CLI}", XDG_CACHE_HOME=str(tmp_path)).stdout
        for _ in "12"
    ]
    assert "compiling the resource for RMM 26" in said[0] and "built before" in said[1], said
    path = extension_build.build()
    assert path.is_file()
    assert extension_build.found()[1]
    assert os.listdir(tmp_path / "cenote") == [path.name]
    run(PROGRAM.replace("HOW", '"in C++"'), XDG_CACHE_HOME=str(tmp_path))


@pytest.mark.slow
def test_alias_needs_no_rmm(run: RunFresh) -> None:
    run("""
        import cenote.compat.as_rmm
        import cenote
        report = cenote.install("pool", frameworks="rmm")
        assert report and "means cenote" in str(report), str(report)
    """)


def test_the_wheel_has_what_is_compiled() -> None:
    installed = {
        path.name for path in metadata.files("cenote") or () if path.parts[:3] == ("cenote", "allocators", "rmm")
    }
    assert {"cenote_rmm.pyx", "current_resource.hpp", "extension_build.py"} <= installed


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(extension_build.BuildError, match=r"no-such-compiler was found|Cython was not found"):
        extension_build.build()
    monkeypatch.setattr(extension_build, "_folder_of", lambda package: None)
    with pytest.raises(extension_build.BuildError, match="pip install rmm-cu13"):
        extension_build.build()


def lay_headers(folder: Path, headers: tuple[str, ...] = (), cccl: str = "") -> None:
    """Lay headers where a wheel has them, or a toolkit; `cccl` is a version of CCCL's."""
    texts = dict.fromkeys(headers, "") | ({"cuda/std/__cccl/version.h": f"#define CCCL_VERSION {cccl}"} if cccl else {})
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder beside whose headers the path has none; its ``toolkit`` is the only one."""
    others = [entry for entry in sys.path if not Path(entry, "nvidia").exists()]
    monkeypatch.setattr("sys.path", [str(tmp_path / "other"), str(tmp_path), *others])
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(extension_build, "_TOOLKIT", tmp_path / "none")
    return tmp_path


RUNTIME = ("cuda_runtime_api.h", "crt/host_defines.h")


def include_of(version: str = "26.10") -> list[Path]:
    return extension_build._include(extension_build.RmmInstallation(Path("librmm"), version))


def test_the_wheels_that_bring_the_missing_headers_are_named(only: Path) -> None:
    with pytest.raises(extension_build.BuildError) as refused:
        include_of()
    assert "pip install nvidia-cuda-runtime nvidia-cuda-crt 'nvidia-cuda-cccl>=13.3'," in str(refused.value)
    lay_headers(only / "toolkit" / "include", RUNTIME, cccl="")
    lay_headers(only / "toolkit" / "include" / "cccl", cccl="3000002")
    with pytest.raises(extension_build.BuildError) as refused:
        include_of()
    assert "CCCL 3.3 or newer" in str(refused.value) and "cccl has CCCL 3.0" in str(refused.value)
    assert "pip install 'nvidia-cuda-cccl>=13.3'," in str(refused.value)


def test_headers_are_found_wherever_pip_has_put_a_wheel(only: Path) -> None:
    lay_headers(only / "toolkit" / "include", RUNTIME[:1])
    lay_headers(only / "toolkit" / "include" / "cccl", cccl="3000002")
    (only / "nvidia").mkdir()
    (only / "nvidia" / "__init__.py").touch()  # hides the other folder from the import system
    lay_headers(only / "nvidia" / "cu13" / "include", RUNTIME[1:])
    lay_headers(only / "other" / "nvidia" / "cu13" / "include" / "cccl", cccl="3003001")
    folders = include_of()
    assert folders[:3] == [
        only / "other" / "nvidia" / "cu13" / "include" / "cccl",
        only / "toolkit" / "include",
        only / "nvidia" / "cu13" / "include",
    ]
