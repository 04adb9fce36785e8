"""The simulated driver from Python. Tests that choose a machine have a process of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cenote import sim

PRELUDE = """
import os
import cenote.sim as sim
sim.configure(devices=2, memory="1GiB")
import cenote
def allocate():
    resource = cenote.mr.CudaMemoryResource()
    resource.deallocate(resource.allocate(1000), 1000)
"""


def run_fresh(code: str) -> None:
    """Run the code in a new process; its assertions are the test's."""
    finished = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_configure_selects_the_simulated_driver() -> None:
    run_fresh("""
        assert not sim.is_active()
        allocate()
        assert sim.is_active() and cenote.driver.is_simulated() and cenote.driver.device_count() == 2
    """)


def test_memory_may_be_given_in_bytes_and_the_driver_may_be_old() -> None:
    run_fresh("""
        sim.configure(memory=1 << 30, driver=12040)
        assert os.environ["CENOTE_SIM"] == "devices=1,memory=1073741824B,driver=12040"
        assert cenote.driver.version() == 12040
    """)


def test_devices_may_use_any_memory_of_the_host_where_asked_for() -> None:
    run_fresh("""
        sim.configure(pageable=True)
        assert os.environ["CENOTE_SIM"] == "devices=1,memory=80GiB,pageable=1"
        allocate()
        assert sim.is_active()
    """)


def test_devices_may_have_no_virtual_memory_where_asked_for() -> None:
    run_fresh("""
        virtual_memory_management_supported = 102
        sim.configure()
        assert cenote.driver.device_attribute(virtual_memory_management_supported, 0) == 1
        sim.configure(virtual_memory=False)
        assert os.environ["CENOTE_SIM"] == "devices=1,memory=80GiB,virtual_memory=0"
        assert cenote.driver.device_attribute(virtual_memory_management_supported, 0) == 0
    """)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("devices=65", "devices=65"),
        ("devices=-1", "devices=-1"),
        ("memory='garbage'", "memory=garbage"),
        ("memory=-5", "memory=-5B"),
        ("memory=0", "memory=0B"),
        ("memory=1 << 43", "memory="),
        ("memory='1GiB,devices=7'", "memory"),
        ("memory=''", "memory="),
        ("driver=5", "driver=5"),
        ("driver=99999", "driver=99999"),
        ("name=''", "name=: a text of 1 to 255 bytes"),
        ("name='é' * 128", "a text of 1 to 255 bytes"),
        ("name='a\\0b'", "name: 'a\\x00b' has a null character"),
        ("name='a,b'", "name"),
        ("mig=8", "mig=8"),
        ("mig=-1", "mig=-1"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_by_the_arguments_name(arguments: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"cenote\.sim\.configure: .*" + re.escape(named)):
        eval(f"sim.configure({arguments})")


@pytest.mark.parametrize(
    "arguments", ["devices='2'", "devices=2.0", "devices=True", "memory=1.5", "driver='12.4'", "name=3", "peers=1"]
)
def test_an_argument_of_another_type_is_refused_by_its_name(arguments: str) -> None:
    name = arguments.split("=")[0]
    with pytest.raises(TypeError, match=rf"cenote\.sim\.configure: {name} must be"):
        eval(f"sim.configure({arguments})")


def test_a_refused_machine_changes_nothing() -> None:
    run_fresh("""
        allocate()
        before = os.environ["CENOTE_SIM"]
        for wrong in (dict(devices=65), dict(memory="?"), dict(devices="2")):
            try:
                sim.configure(**wrong)
            except (TypeError, ValueError):
                pass
            else:
                raise AssertionError
        assert os.environ["CENOTE_SIM"] == before and cenote.driver.device_count() == 2
    """)


def test_another_machine_takes_the_place_of_one_in_use() -> None:
    run_fresh("""
        allocate()
        cenote.driver.set_device(1)
        for devices, memory in ((3, 1 << 30), (1, 2 << 30), (2, 4 << 30)):
            sim.configure(devices, memory, name=f"card of {devices}")
            assert cenote.driver.device_count() == devices
            assert cenote.driver.memory_info(devices - 1) == (memory, memory)
            assert cenote.driver.device_name(0) == f"card of {devices}"
            allocate()
        try:
            cenote.driver.memory_info(2)
        except IndexError as error:
            assert "there is no device 2" in str(error)
        else:
            raise AssertionError
        assert sim.violations() == [] and sim.reports() == []
    """)


def test_the_next_machine_may_have_another_version_of_the_driver() -> None:
    run_fresh("""
        allocate()
        for version in (12000, 13000, 12040):
            sim.configure(driver=version)
            assert cenote.driver.version() == version
            allocate()
    """)


def test_a_machine_without_a_device_may_be_followed_by_one_with_some() -> None:
    run_fresh("""
        sim.configure(devices=0)
        for devices in (1, 0, 2):
            try:
                count = cenote.driver.device_count()
            except cenote.DriverUnavailableError:
                count = 0
            assert count == int(os.environ["CENOTE_SIM"].split(",")[0].split("=")[1])
            sim.configure(devices=devices)
        allocate()
    """)


def test_a_wrong_variable_may_be_put_right_later() -> None:
    run_fresh("""
        os.environ["CENOTE_SIM"] = "devices=many"
        try:
            allocate()
        except cenote.DriverUnavailableError:
            pass
        else:
            raise AssertionError
        sim.configure(memory="1GiB")
        allocate()
    """)


RESOURCES = [
    "cuda",
    "async",
    "managed",
    "pinned",
    "pool | cuda",
    "pool | async",
    "arena | cuda",
    "binning | pool | cuda",
    "statistics | tracking | limiting:limit=1GiB | pool | cuda",
]


@pytest.mark.parametrize("specification", RESOURCES)
def test_what_is_left_of_an_earlier_machine_does_no_harm(specification: str) -> None:
    run_fresh(f"""
        import gc
        stream = cenote.Stream()
        old = cenote.mr.from_spec({specification!r})
        pointer = old.allocate(1000, stream)
        buffer = cenote.DeviceBuffer(size=1000, stream=stream, mr=old)
        cenote.mr.set_current_device_resource(old)
        sim.reset()
        assert cenote.mr.get_current_device_resource() is not old
        assert sim.live_objects() == []
        for _ in range(3):
            fresh = cenote.mr.from_spec({specification!r})
            other = cenote.DeviceBuffer(size=1000, stream=stream, mr=fresh)
            other.copy_from_host(bytes(1000), stream=stream)
            stream.synchronize()
            old.deallocate(pointer, 1000, stream)
            buffer.close()
            try:
                again = old.allocate(500, stream)      # of its own chunk, or anew
                old.deallocate(again, 500, stream)
                pointer = old.allocate(1000, stream)
            except (MemoryError, cenote.CudaError, ValueError):
                break
            assert other.tobytes(stream=stream) == bytes(1000)
        del old, buffer, fresh, other
        gc.collect()
        assert sim.violations() == [], sim.violations()
    """)


def test_memory_of_an_earlier_machine_cannot_be_used() -> None:
    run_fresh("""
        buffer = cenote.DeviceBuffer(size=1000)
        pool = cenote.mr.from_spec("pool:initial=1MiB | cuda")
        sim.reset()
        for use in (lambda: buffer.tobytes(), lambda: cenote.DeviceBuffer(size=8, mr=pool).copy_from_host(bytes(8))):
            try:
                use()
            except cenote.CudaError:
                pass
            else:
                raise AssertionError
        assert len(sim.violations()) == 2
        assert all("before the last reset" in line for line in sim.violations())
    """)


def test_a_thread_whose_device_is_gone_gets_an_error_until_it_chooses_another() -> None:
    run_fresh("""
        import threading
        allocate()
        chosen, ended, seen = threading.Event(), threading.Event(), []
        def work():
            cenote.driver.set_device(1)
            chosen.set()
            ended.wait()
            try:
                cenote.mr.CudaMemoryResource()
            except cenote.CudaError as error:
                seen.append(str(error))
            cenote.driver.set_device(0)
            allocate()
            seen.append("works")
        thread = threading.Thread(target=work)
        thread.start()
        chosen.wait()
        sim.configure(devices=1)
        ended.set()
        thread.join()
        assert len(seen) == 2 and "CUDA_ERROR_CONTEXT_IS_DESTROYED" in seen[0], seen
    """)


def test_configure_is_refused_where_another_driver_is_in_use(tmp_path: Path) -> None:
    copy = tmp_path / "libcuda.so.1"
    shutil.copy(sim._library.find_library(), copy)
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
            import cenote
            from cenote import sim
            assert not sim.is_active()
            cenote.driver.device_count()
            import inspect
            refused = 0
            for name in sim.__all__:
                function = getattr(sim, name)
                if inspect.isclass(function) or name in ("is_active", "reports", "clear_reports"):
                    continue
                arguments = ("cuMemAlloc",) if name in ("fail", "failing") else ()
                try:
                    with function(*arguments) if name == "failing" else __import__("contextlib").nullcontext():
                        name == "failing" or function(*arguments)
                except RuntimeError as error:
                    assert f"cenote.sim.{'fail' if name == 'failing' else name}: " in str(error), error
                    assert "libcuda.so.1" in str(error)
                    refused += 1
            assert refused == 13, refused
            sim.clear_reports()
            assert sim.reports() == []
        """),
        ],
        env={**os.environ, "CENOTE_CUDA_DRIVER": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_nothing_is_answered_where_nothing_has_chosen_the_simulated_driver() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    code = """
        from cenote import sim
        for question in (sim.violations, sim.clear_violations, sim.calls, sim.live, sim.live_objects, sim.reset):
            try:
                question()
            except RuntimeError as error:
                assert "has chosen it" in str(error)
            else:
                raise AssertionError(question)
        sim.configure()
        assert sim.violations() == [] and sim.calls() == {}
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_a_process_sees_what_cuda_visible_devices_names() -> None:
    run_fresh("""
        allocate()
        first, second = sim.uuids()
        assert first.startswith("GPU-") and first != second
        for text, count in (("", 0), ("1", 1), ("1,0", 2), (second, 1), (f"{second[:8]},{first[:8]}", 2), ("0,7,1", 1)):
            os.environ["CUDA_VISIBLE_DEVICES"] = text
            sim.reset()
            try:
                assert cenote.driver.device_count() == count, text
            except cenote.DriverUnavailableError as error:
                assert count == 0 and "CUDA_VISIBLE_DEVICES is ''." in str(error), error
        os.environ["CUDA_VISIBLE_DEVICES"] = "0,0"
        try:
            sim.reset()
        except RuntimeError as error:
            assert "names a device twice" in str(error)
        else:
            raise AssertionError
    """)


def test_cards_may_be_split_into_instances_of_which_a_process_sees_one() -> None:
    run_fresh("""
        sim.configure(devices=2, memory="4GiB", mig=4)
        assert cenote.driver.device_count() == 1 and cenote.driver.memory_info(0)[1] == 1 << 30
        assert len(sim.uuids()) == 8 and all(uuid.startswith("MIG-") for uuid in sim.uuids())
    """)


def test_reports_are_counted_also_those_that_the_log_does_not_repeat() -> None:
    run_fresh("""
        def leak():
            pool = cenote.mr.from_spec("pool:initial=1MiB | cuda")
            pool.allocate(1000)
        assert sim.reports() == []
        leak()
        leak()
        assert len(sim.reports()) == 2 and all("still in use" in line for line in sim.reports())
        sim.clear_reports()
        assert sim.reports() == []
        for _ in range(70):
            leak()
        assert len(sim.reports()) == 65 and sim.reports()[-1] == "… and 6 more"
        sim.reset()
        assert sim.reports() == []
    """)


def test_every_byte_is_overwritten_where_asked_for() -> None:
    run_fresh("""
        import ctypes
        sim.configure(memory="1GiB", poison=True)
        resource = cenote.mr.CudaMemoryResource()
        pointer = resource.allocate(100_000)
        assert ctypes.string_at(pointer, 100_000) == b"\\xa5" * 100_000
        resource.deallocate(pointer, 100_000)
        assert ctypes.string_at(pointer, 100_000) == b"\\xdd" * 100_000
    """)


def test_what_is_live_is_listed_with_the_call_that_made_it() -> None:
    run_fresh("""
        cenote.driver.set_device(1)
        resource = cenote.mr.CudaMemoryResource()
        pointer = resource.allocate(1000)
        stream = cenote.Stream()
        memory, made_stream = [each for each in sim.live_objects() if each.kind != "event"]
        assert (memory.kind, memory.made_by, memory.handle, memory.bytes, memory.device) == (
            "device memory", "cuMemAlloc", pointer, 1000, 1)
        assert made_stream.kind == "stream" and made_stream.number > memory.number
        resource.deallocate(pointer, 1000)
        del stream
        assert [each for each in sim.live_objects() if each.kind != "event"] == []
    """)


def test_calls_may_fail_several_times_or_from_the_nth_on() -> None:
    run_fresh("""
        def outcomes(count):
            found = ""
            for _ in range(count):
                try:
                    allocate()
                    found += "."
                except MemoryError:
                    found += "x"
            return found
        with sim.failing("cuMemAlloc", nth=2, times=2):
            assert outcomes(5) == ".xx.."
        with sim.failing("cuMemAlloc", nth=3, times=None):
            assert outcomes(6) == "..xxxx"
        assert outcomes(2) == ".."
    """)


def test_calls_are_counted_by_name() -> None:
    run_fresh("""
        allocate()
        sim.reset_calls()
        allocate()
        allocate()
        assert sim.calls("cuMemAlloc") == sim.calls()["cuMemAlloc"] == 2
        assert sim.calls("cuMemAllocManaged") == 0 and "cuMemAllocManaged" not in sim.calls()
    """)


def test_an_unknown_name_is_an_error_that_tells_the_close_ones() -> None:
    run_fresh("""
        for wrong in (lambda: sim.calls("cuMemAloc"), lambda: sim.fail("cuMemAlloc_v2")):
            try:
                wrong()
            except ValueError as error:
                assert "cuMemAlloc" in str(error).split("close are")[1]
            else:
                raise AssertionError
    """)


@pytest.mark.parametrize(
    "arguments",
    [
        "error='CUDA_ERROR_OF_TASTE'",
        "error=0",
        "error=1 << 32 | 2",
        "nth=-1",
        "nth=1 << 32",
        "times=0",
        "times=1 << 32",
    ],
)
def test_a_failure_that_makes_no_sense_is_an_error(arguments: str) -> None:
    run_fresh(f"""
        try:
            sim.fail("cuMemAlloc", {arguments})
        except ValueError:
            pass
        else:
            raise AssertionError
    """)


@pytest.mark.parametrize("arguments", ["nth='1'", "nth=1.0", "times=True", "times='x'", "error=None", "name=None"])
def test_a_failure_of_another_type_is_refused_by_the_arguments_name(arguments: str) -> None:
    name = arguments.split("=")[0]
    run_fresh(f"""
        try:
            sim.fail(**(dict(name="cuMemAlloc") | dict({arguments})))
        except TypeError as error:
            assert "cenote.sim" in str(error) and ": {name} must be" in str(error), error
        else:
            raise AssertionError
    """)


def test_the_nth_call_fails_with_the_named_error() -> None:
    run_fresh("""
        with sim.failing("cuMemAlloc", nth=2):
            allocate()
            try:
                allocate()
            except MemoryError:
                pass
            else:
                raise AssertionError
            allocate()
        with sim.failing("cuMemAlloc", error="CUDA_ERROR_ILLEGAL_ADDRESS"):
            try:
                allocate()
            except cenote.CudaError:
                pass
            else:
                raise AssertionError
    """)


def test_a_failure_that_never_came_is_cancelled_at_the_end_of_the_block() -> None:
    run_fresh("""
        with sim.failing("cuMemAlloc"):
            pass
        allocate()
    """)


def test_live_objects_are_told() -> None:
    run_fresh("""
        resource = cenote.mr.CudaMemoryResource()
        pointer = resource.allocate(1000)
        assert sim.live().allocations == 1 and sim.live().device_bytes == 1024
        resource.deallocate(pointer, 1000)
        assert sim.live().allocations == 0 and sim.live().device_bytes == 0
    """)


def test_violations_are_listed_and_cleared() -> None:
    run_fresh("""
        import ctypes
        allocate()
        assert sim.violations() == []
        ctypes.CDLL(str(sim._library.find_library())).cuMemFree_v2(ctypes.c_void_p(0x123))
        (line,) = sim.violations()
        assert line.startswith("cuMemFree: pointer 0x123")
        sim.clear_violations()
        assert sim.violations() == []
    """)


def test_pending_work_can_be_drained() -> None:
    run_fresh("""
        import ctypes
        allocate()
        driver = ctypes.CDLL(str(sim._library.find_library()))
        context = ctypes.c_void_p()
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        driver.cuCtxSetCurrent(context)
        resource = cenote.mr.CudaMemoryResource()
        pointer = resource.allocate(1000)
        assert driver.cuMemsetD8Async(ctypes.c_void_p(pointer), 1, ctypes.c_size_t(1000), None) == 0
        assert sim.pending() == 1
        sim.drain()
        assert sim.pending() == 0
        resource.deallocate(pointer, 1000)
    """)


def test_bytes_pass_through_every_copy_and_fill() -> None:
    run_fresh("""
        import ctypes
        from cenote.sim import _library
        driver = ctypes.CDLL(str(_library.find_library()))
        allocate()
        context = ctypes.c_void_p()
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        driver.cuCtxSetCurrent(context)
        resource = cenote.mr.CudaMemoryResource()
        first, second = resource.allocate(100), resource.allocate(100)
        address, size = ctypes.c_void_p, ctypes.c_size_t
        given, got = ctypes.create_string_buffer(bytes(range(100))), ctypes.create_string_buffer(100)
        assert driver.cuMemcpyHtoDAsync_v2(address(first), given, size(100), None) == 0
        assert driver.cuMemcpyDtoD_v2(address(second), address(first), size(100)) == 0
        assert driver.cuMemsetD8_v2(address(second), 7, size(50)) == 0
        assert driver.cuMemcpyDtoHAsync_v2(got, address(second), size(100), None) == 0
        assert driver.cuStreamSynchronize(None) == 0
        assert got.raw == bytes([7]) * 50 + bytes(range(50, 100))
        assert driver.cuMemcpyDtoD_v2(address(second), address(0x123), size(100)) != 0
        resource.deallocate(first, 100)
        resource.deallocate(second, 100)
    """)
