"""`cenote.compat.as_rmm`: programs for RMM run on cenote. Each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cenote.compat.rmm_names import MODULES

RunFresh = Callable[..., CompletedProcess[str]]
ALIAS = "import cenote.compat.as_rmm\n"
HAS = {name: importlib.util.find_spec(name) is not None for name in ("torch", "cupy", "numba")}


@pytest.fixture
def run(run_fresh: RunFresh) -> RunFresh:
    """Runs a program in which ``import rmm`` means cenote."""

    def run_with_alias(code: str, **environment: str) -> CompletedProcess[str]:
        lines = code.splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        return run_fresh(ALIAS + "\n".join(line[indent:] for line in lines), **environment)

    return run_with_alias


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """Runs ``python -m cenote.compat.as_rmm …`` in a folder of its own."""

    def run_command(*arguments: str, status: int = 0) -> CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cenote.compat.as_rmm", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run_command


def test_every_module_can_be_imported_in_every_way(run: RunFresh) -> None:
    modules = sorted(MODULES)
    run(f"""
        import importlib, importlib.util, pickle, sys, types
        for name in {modules}:
            assert importlib.util.find_spec(name).name == name
            module = importlib.import_module(name)
            assert isinstance(module, types.ModuleType) and module is sys.modules[name]
            assert (module.__name__, module.__spec__.name) == (name, name)
            assert hasattr(module, "__path__") == (module.__package__ == name)
            assert importlib.reload(module) is module
            parent, _, child = name.rpartition(".")
            if parent:
                assert getattr(sys.modules[parent], child) is module
                assert child in dir(sys.modules[parent])
    """)


def test_submodules_are_attributes_without_an_import_of_their_own(run: RunFresh) -> None:
    run("""
        import rmm
        assert rmm.mr.PoolMemoryResource and rmm.statistics.profiler and rmm._cuda.gpu.getDevice
        assert rmm.pylibrmm.stream.Stream and rmm.allocators.cupy.rmm_cupy_allocator
        assert rmm.pylibrmm.memory_resource._memory_resource._flush_logs and rmm.librmm._logger.level_enum
        from rmm import mr, statistics
        from rmm.allocators import cupy
        import rmm.pylibrmm.memory_resource as resources
        assert resources.CudaMemoryResource is mr.CudaMemoryResource
    """)


def test_what_rmm_does_not_have_is_missing_in_the_usual_way(run: RunFresh) -> None:
    run("""
        import importlib, rmm
        try:
            rmm.no_such_name
        except AttributeError as error:
            assert str(error) == "module 'rmm' has no attribute 'no_such_name'"
        try:
            from rmm.mr import NoSuchResource
        except ImportError as error:
            assert "NoSuchResource" in str(error)
        for name in ("rmm.no_such_module", "rmm.mr.no_such_module"):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                assert error.name == name
            else:
                raise SystemExit(name)
        assert not hasattr(rmm, "usage") and importlib.util.find_spec("rmm.tests") is None
    """)


def test_importing_the_alias_loads_no_driver_and_no_framework(run: RunFresh) -> None:
    run("""
        import sys, rmm, rmm.mr, rmm.statistics, rmm.allocators.cupy, rmm.allocators.numba, rmm.allocators.torch
        import cenote
        assert not cenote.driver.is_loaded()
        assert not {"torch", "cupy", "numba", "cuda"} & set(sys.modules)
    """)


def test_names_are_those_of_cenote(run: RunFresh) -> None:
    run("""
        import pickle
        import cenote, rmm
        assert rmm.mr.CudaMemoryResource is cenote.mr.CudaMemoryResource
        assert rmm.pylibrmm.stream.DEFAULT_STREAM is cenote.DEFAULT_STREAM
        assert rmm.reinitialize is cenote.reinitialize and rmm.level_enum is cenote.logger.level_enum
        assert rmm._cuda.gpu.CUDARuntimeError is cenote.CudaError
        for by_reference in (rmm.mr.PoolMemoryResource, rmm.DeviceBuffer, rmm.statistics.Statistics, rmm.level_enum):
            assert pickle.loads(pickle.dumps(by_reference)) is by_reference
        assert rmm.DeviceBuffer.__module__.partition(".")[0] == "rmm"  # Dask looks its serializers up by this name
        assert rmm.__version__ == rmm._version.__version__ == "26.10.0" and isinstance(rmm.__git_commit__, str)
        error = rmm.RMMError(7, "text")
        assert (error.errcode, str(error)) == (7, "text")
    """)


def test_star_import_gives_the_public_names(run: RunFresh) -> None:
    run("""
        from rmm import *
        from rmm.pylibrmm.logger import *
        assert DeviceBuffer and mr.CudaMemoryResource and should_log(level_enum.error)
        assert "_initialize" not in globals()
    """)


def test_buffers_have_rmms_array_interface_and_survive_copies_and_pickles(run: RunFresh) -> None:
    run("""
        import copy, pickle
        import numpy, rmm
        for size in (0, 5):
            buffer = rmm.DeviceBuffer(size=size)
            assert buffer.__cuda_array_interface__ == {
                "data": (buffer.ptr, False), "shape": (size,), "strides": None, "typestr": "|u1", "version": 0}
        buffer = rmm.DeviceBuffer.to_device(b"abc")
        also = rmm.pylibrmm.device_buffer.to_device(numpy.frombuffer(b"abc", "u1"), stream=rmm.pylibrmm.stream.Stream())
        for one in (buffer, also, buffer.copy(), copy.copy(buffer), copy.deepcopy(buffer),
                    *(pickle.loads(pickle.dumps(buffer, protocol)) for protocol in range(2, 6))):
            assert type(one) is rmm.DeviceBuffer and one.tobytes() == b"abc"
            assert "stream" not in one.__cuda_array_interface__
        apart = []
        pickled = pickle.dumps(buffer, 5, buffer_callback=apart.append)
        assert len(apart) == 1 and pickle.loads(pickled, buffers=apart).tobytes() == b"abc"
        for wrong, error in [(None, TypeError), ("abc", TypeError), (123, TypeError), (numpy.ones(2, "u2"), ValueError),
                             (numpy.ones((2, 2), "u1"), ValueError), (numpy.ones(4, "u1")[::2], ValueError)]:
            try:
                rmm.DeviceBuffer.to_device(wrong)
            except error:
                continue
            raise SystemExit(repr(wrong))
    """)


def test_a_program_for_rmm_runs(run: RunFresh, tmp_path: Path) -> None:
    done = run(f"""
        import rmm
        from rmm.pylibrmm.memory_resource._memory_resource import _append_id, _flush_logs
        from rmm.pylibrmm.stream import Stream
        from rmm.statistics import profiler, statistics
        rmm.reinitialize(pool_allocator=True, initial_pool_size="1MiB", maximum_pool_size="2 MiB", logging=True,
                         log_file_name={str(tmp_path / "log.csv")!r})
        assert rmm.is_initialized() and rmm.get_log_filenames() == {{0: {str(tmp_path / "log.dev0.csv")!r}}}
        assert _append_id("a/log.csv", 3) == "a/log.dev3.csv"
        stream = Stream()
        with statistics(), profiler(name="block"):
            buffer = rmm.DeviceBuffer(size=1024, stream=stream)
            buffer.resize(2048, stream)
        _flush_logs()
        rmm.disable_logging()
        rmm.mr.set_current_device_resource(rmm.mr.CudaAsyncMemoryResource(release_threshold=0))
        free, total = rmm.mr.available_device_memory()
        assert 0 < free < total
        rmm.set_logging_level(rmm.level_enum.warn)
        rmm.flush_logger()
        print(rmm.statistics.default_profiler_records.report())
    """)
    assert "block" in done.stdout
    assert (tmp_path / "log.dev0.csv").read_text().count("allocate") == 2


def test_driver_functions_have_rmms_names(run: RunFresh) -> None:
    run("""
        import pickle
        from rmm._cuda import gpu
        assert gpu.getDeviceCount() == 2 and gpu.getDevice() == 0
        gpu.setDevice(1)
        assert gpu.getDevice() == 1
        assert gpu.getDeviceAttribute(75, 0) == gpu.getDeviceProperties(0).major
        assert gpu.deviceGetName(0) == gpu.getDeviceProperties(0).name
        assert gpu.driverGetVersion() >= gpu.runtimeGetVersion() >= 12000
        try:
            gpu.getDeviceAttribute(-5, 0)
        except gpu.CUDARuntimeError as error:
            assert pickle.loads(pickle.dumps(error)).status == error.status == 1
        else:
            raise SystemExit("no error")
    """)


def test_frameworks_that_are_missing_are_missing_as_in_rmm(run: RunFresh) -> None:
    program = "import rmm.allocators.torch, rmm.allocators.cupy, rmm.allocators.numba\n"
    if not HAS["torch"]:
        program += "assert rmm.allocators.torch.rmm_torch_allocator is None\n"
    for module, use in [
        ("cupy", "rmm.allocators.cupy.rmm_cupy_allocator(1)"),
        ("numba", "rmm.allocators.numba.RMMNumbaManager"),
    ]:
        if not HAS[module]:
            program += f"try:\n    {use}\nexcept ImportError as error:\n    assert {module!r} in str(error).lower()\n"
            program += f"else:\n    raise SystemExit({module!r})\n"
    run(program)


def test_real_rmm_that_was_imported_first_is_an_error_that_says_what_to_do(tmp_path: Path, run_fresh: RunFresh) -> None:
    (tmp_path / "rmm").mkdir()
    (tmp_path / "rmm" / "__init__.py").write_text("real = True\n")
    run_fresh(
        """
        import sys, rmm
        assert rmm.real
        try:
            import cenote.compat.as_rmm
        except ImportError as error:
            assert rmm.__file__ in str(error) and "import cenote.compat.as_rmm before it" in str(error), error
        else:
            raise SystemExit("no error")
        assert sys.modules["rmm"] is rmm and "rmm.mr" not in sys.modules
        """,
        PYTHONPATH=str(tmp_path),
    )


def test_alias_wins_over_an_rmm_that_is_installed_and_may_be_imported_twice(tmp_path: Path, run: RunFresh) -> None:
    (tmp_path / "rmm").mkdir()
    (tmp_path / "rmm" / "__init__.py").write_text("raise SystemExit('the real one')\n")
    (tmp_path / "rmm" / "extra.py").write_text("raise SystemExit('the real one')\n")
    run(
        """
        import importlib, sys, rmm
        assert rmm.__version__ == "26.10.0"
        importlib.reload(sys.modules["cenote.compat.as_rmm"])
        assert sum(type(finder).__module__ == "cenote.compat.rmm_alias" for finder in sys.meta_path) == 1
        try:
            import rmm.extra
        except ModuleNotFoundError:
            pass
        """,
        PYTHONPATH=str(tmp_path),
    )


def test_environment_makes_rmm_mean_cenote_from_its_import_on(tmp_path: Path, run_fresh: RunFresh) -> None:
    (tmp_path / "rmm").mkdir()
    (tmp_path / "rmm" / "__init__.py").write_text("real = True\n")
    means_cenote = "import cenote, rmm\nassert rmm.mr.CudaMemoryResource is cenote.mr.CudaMemoryResource\n"
    means_rmm = "import cenote, rmm\nassert rmm.real\n"
    run_fresh(means_cenote, PYTHONPATH=str(tmp_path), CENOTE_AS_RMM="1")
    assert not run_fresh(means_rmm, PYTHONPATH=str(tmp_path), CENOTE_AS_RMM="0").stderr
    assert not run_fresh(means_rmm, PYTHONPATH=str(tmp_path), CENOTE_AS_RMM="").stderr
    wrong = run_fresh(means_rmm, PYTHONPATH=str(tmp_path), CENOTE_AS_RMM="yes").stderr
    assert wrong == "cenote: CENOTE_AS_RMM is 'yes' and has no effect: it must be 1 or 0\n"
    run_fresh(
        """
        import rmm
        try:
            import cenote
        except ImportError as error:
            assert rmm.__file__ in str(error) and "unset CENOTE_AS_RMM" in str(error), error
        else:
            raise SystemExit("no error")
        """,
        PYTHONPATH=str(tmp_path),
        CENOTE_AS_RMM="1",
    )


@pytest.mark.slow
def test_dask_finds_its_serializers_of_rmm(run: RunFresh) -> None:
    pytest.importorskip("distributed")
    if not HAS["numba"]:
        pytest.skip("distributed's serializers of RMM need Numba")
    run("""
        import rmm
        from distributed.protocol import deserialize, serialize
        header, frames = serialize(rmm.DeviceBuffer.to_device(b"abc"), serializers=("cuda",))
        assert header["serializer"] == "cuda" and type(frames[0]) is rmm.DeviceBuffer
        again = deserialize(header, frames)
        assert type(again) is rmm.DeviceBuffer and again.tobytes() == b"abc"
    """)


SCRIPT = """
import sys, rmm
import beside
print(__name__, __file__, sys.argv, rmm.__version__, beside.value)
if __name__ == "__main__":
    sys.exit(3)
"""


def test_command_runs_a_script_as_python_would(command: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "beside.py").write_text("value = 'beside'\n")
    for name in ("scripts/script.py", str(folder / "script.py")):
        done = command(name, "--option", "-m", status=3)
        assert done.stdout == f"__main__ {name} {[name, '--option', '-m']} 26.10.0 beside\n"


def test_command_runs_a_module_and_a_program(command: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 'beside'\n")
    (tmp_path / "module.py").write_text(SCRIPT)
    done = command("-m", "module", "argument", status=3)
    assert done.stdout == f"__main__ {tmp_path}/module.py {[f'{tmp_path}/module.py', 'argument']} 26.10.0 beside\n"
    done = command("-c", "import sys, rmm, __main__; print(__name__, sys.argv, __main__.rmm is rmm)", "argument")
    assert done.stdout == "__main__ ['-c', 'argument'] True\n"


def test_command_shows_an_error_of_the_program_as_python_would(
    command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text("import rmm\n1 / 0\n")
    error = command("script.py", status=1).stderr
    assert "script.py" in error and "line 2" in error and "ZeroDivisionError" in error


def test_command_says_how_it_is_used(command: Callable[..., CompletedProcess[str]]) -> None:
    assert command("--help").stdout.startswith("usage: python -m cenote.compat.as_rmm script.py")
    assert command(status=2).stderr.startswith("usage:")
    assert "-m needs an argument" in command("-m", status=2).stderr
    assert "no option -x" in command("-x", status=2).stderr
    assert command("nowhere.py", status=2).stderr == "error: there is no file nowhere.py\n"


@pytest.mark.slow
def test_pytest_plugin_serves_a_test_suite_for_rmm(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest, rmm, rmm.statistics\n"
        "@pytest.fixture(autouse=True)\ndef reinitialize():\n    yield\n    rmm.reinitialize()\n"
    )
    (tmp_path / "test_rmm.py").write_text(
        "import rmm\ndef test_buffer():\n    assert rmm.DeviceBuffer(size=8).size == 8\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "cenote.compat.as_rmm", "-p", "no:cacheprovider", "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
