"""The fixtures that pytest finds once cenote is installed: what they build, and which tests they fail."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cenote import sim


def outcomes(directory: Path, code: str, **variables: str) -> tuple[dict[str, str], str]:
    """Run the tests in a process of its own: the outcome of each by name, and what was printed."""
    (directory / "test_it.py").write_text(
        "import cenote\nimport pytest\nfrom cenote import mr, sim\n" + textwrap.dedent(code)
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "--tb=short", "--strict-markers", "-p", "no:cacheprovider", "."],
        cwd=directory,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, str] = {}
    for line in finished.stdout.splitlines():
        outcome, _, rest = line.partition(" ")
        if outcome in ("PASSED", "FAILED", "ERROR") and "::" in rest:
            name = rest.split("::")[1].split()[0]
            found[name] = outcome if found.get(name) in (None, "PASSED") else found[name]
    return found, finished.stdout + finished.stderr


def test_each_test_has_the_machine_that_its_marker_describes(tmp_path: Path) -> None:
    found, printed = outcomes(
        tmp_path,
        """
        @pytest.mark.cenote_sim(devices=3, memory="2GiB", driver=12040)
        def test_three(cenote_sim):
            assert cenote_sim is sim and cenote.driver.device_count() == 3
            assert cenote.driver.memory_info(2) == (2 << 30, 2 << 30) and cenote.driver.version() == 12040

        def test_plain(cenote_sim):
            assert cenote.driver.device_count() == 1 and cenote.driver.memory_info(0)[1] == 80 << 30
            assert sim.calls("cuMemAlloc") == 0 and sim.live_objects() == []

        @pytest.mark.cenote_sim(devices=65)
        def test_nonsense(cenote_sim):
            pass

        @pytest.mark.cenote_sim(2)
        def test_by_place(cenote_sim):
            pass
        """,
    )
    assert found == {"test_three": "PASSED", "test_plain": "PASSED", "test_nonsense": "ERROR", "test_by_place": "ERROR"}
    assert "devices=65" in printed and "by name only" in printed


def test_what_a_test_does_wrong_fails_it_and_no_other(tmp_path: Path) -> None:
    found, printed = outcomes(
        tmp_path,
        """
        def test_violation(cenote_sim):
            buffer = cenote.DeviceBuffer(size=8)
            pointer = buffer.ptr
            buffer.close()
            with pytest.raises(cenote.CudaError):
                cenote.device_buffer.copy_ptr_to_host(pointer, bytearray(8))

        def test_report(cenote_sim):
            mr.from_spec("pool:initial=1MiB | cuda").allocate(1000)

        def test_leak(cenote_no_leaks):
            mr.CudaMemoryResource().allocate(1000)

        def test_current_resource(cenote_no_leaks):
            mr.set_current_device_resource(mr.from_spec("pool:initial=1MiB | cuda"))
            cenote.DeviceBuffer(size=1000)

        def test_async(cenote_no_leaks):
            stream = cenote.Stream()
            cenote.DeviceBuffer(size=1000, stream=stream, mr=mr.from_spec("async"))

        def test_without(cenote_no_reports):
            pass

        def test_reports_anywhere(cenote_no_reports):
            sim.configure()
            mr.from_spec("pool:initial=1MiB | cuda").allocate(2000)

        def test_clean(cenote_no_leaks):
            assert sim.violations() == [] and sim.reports() == []
        """,
    )
    wrong = {"test_violation", "test_report", "test_leak", "test_reports_anywhere"}
    right = {"test_current_resource", "test_async", "test_without", "test_clean"}
    assert found == {name: "ERROR" for name in wrong} | {name: "PASSED" for name in right}, printed
    assert "violations:" in printed and "cenote reported:" in printed
    assert "device memory: 1000 bytes at 0x" in printed and "made by cuMemAlloc" in printed


def test_the_machine_that_was_there_before_is_there_again(tmp_path: Path) -> None:
    found, printed = outcomes(
        tmp_path,
        """
        def test_before():
            assert cenote.driver.device_count() == 2

        @pytest.mark.cenote_sim(devices=5)
        def test_between(cenote_sim):
            assert cenote.driver.device_count() == 5

        def test_after():
            assert cenote.driver.device_count() == 2
        """,
        CENOTE_CUDA_DRIVER="sim",
        CENOTE_SIM="devices=2,memory=1GiB",
    )
    assert set(found.values()) == {"PASSED"} and len(found) == 3, printed


def test_where_another_driver_is_in_use_the_fixtures_are_errors(tmp_path: Path) -> None:
    other = tmp_path / "libcuda.so.1"
    other.write_bytes(sim._library.find_library().read_bytes())
    found, printed = outcomes(
        tmp_path,
        """
        def test_uses_it():
            cenote.driver.device_count()

        def test_simulated(cenote_sim):
            pass

        def test_leaks(cenote_no_leaks):
            pass

        def test_reports(cenote_no_reports):
            pass
        """,
        CENOTE_CUDA_DRIVER=str(other),
    )
    assert found == {
        "test_uses_it": "PASSED",
        "test_simulated": "ERROR",
        "test_leaks": "ERROR",
        "test_reports": "PASSED",
    }, printed
    assert "already in use" in printed


def test_the_plugin_imports_cenote_only_for_a_test_that_asks(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert 'pytest_cenote' in sys.modules and 'cenote' not in sys.modules\n"
    )
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("module", ["cenote", "cenote.sim"])
def test_cenote_does_without_pytest(module: str) -> None:
    code = f"import sys; sys.modules['pytest'] = None; import {module}; assert 'pytest_cenote' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
