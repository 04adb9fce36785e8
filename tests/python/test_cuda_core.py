"""cuda.core on cenote: the real library on the simulated device, which it loads as ``libcuda.so.1``.

What needs kernels, and other frameworks beside it, is tested on a device, by tests/gpu.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cenote.sim import _library

pytest.importorskip("cuda.core")

RunFresh = Callable[..., CompletedProcess[str]]

BEGIN = """
import threading
import cenote
from cenote import mr
from cenote.allocators.cuda import CenoteMemoryResource, from_cuda_core
from cuda.core import Buffer, Device, MemoryResource

device = Device(0)
device.set_current()
stream = device.create_stream(cenote.Stream())


def fails(error, call, words=""):
    try:
        call()
    except error as caught:
        assert words in str(caught), caught
    else:
        raise SystemExit(f"no {error.__name__}")


"""


@pytest.fixture
def run(run_fresh: RunFresh, tmp_path: Path) -> RunFresh:
    """Runs a program in which both cenote and cuda.core use the simulated driver."""
    (tmp_path / "libcuda.so.1").symlink_to(_library.find_library())

    def run_on_simulated_device(code: str) -> CompletedProcess[str]:
        lines = code.splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        program = BEGIN + "\n".join(line[indent:] for line in lines)
        return run_fresh(program, LD_LIBRARY_PATH=str(tmp_path), CENOTE_SIM="devices=2,memory=64MiB")

    return run_on_simulated_device


def test_installed_devices_draw_from_the_current_resource_in_stream_order(run: RunFresh) -> None:
    run("""
        report = cenote.install("pool:initial=1MiB,max=1MiB | cuda", frameworks="cuda")
        assert report, str(report)
        pool = mr.get_current_device_resource()
        buffer = device.allocate(1000, stream=stream)
        assert pool.in_use() == 1024 and cenote.usage()["cuda.core"].bytes == 1000
        address = int(buffer.handle)
        buffer.close()
        assert pool.in_use() == 0
        again = device.allocate(1000, stream=stream)
        assert int(again.handle) == address          # its own stream needs to wait for nothing
        again.close(device.create_stream(cenote.Stream()))
        of_default = device.allocate(1000, stream=device.default_stream)
        del of_default
        empty = device.allocate(0, stream=stream)
        assert empty.size == 0 and cenote.usage()["cuda.core"].allocations == 0
        held = device.allocate(1000, stream=stream)
        mr.set_current_device_resource(mr.CudaMemoryResource())
        held.close()                                 # goes back to the resource that made it
        assert pool.in_use() == 0
        fails(MemoryError, lambda: device.allocate(1 << 40, stream=stream), "1.00 TiB")
        assert isinstance(device.memory_resource.resource, mr.CudaMemoryResource)
    """)


def test_threads_have_devices_of_their_own_and_one_call_each(run: RunFresh) -> None:
    run("""
        from cenote.allocators import cuda
        own = device.memory_resource
        report = cenote.install("cuda", frameworks="cuda")
        assert "other threads call cenote.allocators.cuda.install()" in str(report)
        ours = [Device(index).memory_resource for index in (0, 1)]
        assert [each.device_id for each in ours] == [0, 1]
        seen = []

        def work():
            seen.append(Device(1).memory_resource)
            cuda.install()
            seen.append(Device(1).memory_resource)
            cuda.uninstall()
            seen.append(Device(1).memory_resource)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen[1] is ours[1] and seen[0] is seen[2] is not ours[1]
        cuda.install()                               # again: nothing is lost
        assert cenote.uninstall("cuda") and device.memory_resource is own
        device.memory_resource = theirs = CenoteMemoryResource(mr.CudaMemoryResource())
        cenote.uninstall("cuda")
        assert device.memory_resource is theirs
    """)


RESOURCES = {
    "cuda": (2, False, False),
    "async": (2, False, False),
    "virtual": (2, False, False),
    "pool:initial=1MiB | cuda": (2, False, False),
    "arena | cuda": (2, False, False),
    "fixed_size:block_size=4096 | cuda": (2, False, False),
    "statistics | tracking | limiting:limit=1MiB | cuda": (2, False, False),
    "managed": (13, True, True),
    "pool:initial=1MiB | managed": (13, True, True),
    "pinned": (3, True, False),
    "pool:initial=1MiB | pinned": (3, True, False),
}
"""By specification: DLPack's type of the memory, whether the host may use it, and whether it moves."""


def test_every_resource_serves_with_what_the_host_may_do(run: RunFresh) -> None:
    run(f"""
        for text, (kind, on_host, moves) in {RESOURCES}.items():
            resource = mr.from_spec(text)
            served = CenoteMemoryResource(resource)
            assert served.resource is resource and served.device_id == 0, text
            assert (served.is_device_accessible, served.is_host_accessible, served.is_managed) == (True, on_host, moves)
            before = resource.in_use()
            buffers = [served.allocate(4096, stream=stream) for _ in range(3)]
            assert {{buffer.__dlpack_device__()[0] for buffer in buffers}} == {{kind}}, text
            assert all(buffer.memory_resource is served for buffer in buffers)
            assert len({{int(buffer.handle) for buffer in buffers}}) == 3 and int(buffers[0].handle) % 256 == 0
            buffers[0].close()
            del served, buffers                      # a buffer holds its resource
            assert resource.in_use() == before, text
            resource.check()
    """)


def test_memory_passes_to_other_libraries_without_a_copy(run: RunFresh) -> None:
    run("""
        import numpy
        from cuda.core.utils import StridedMemoryView
        pinned = mr.PinnedHostMemoryResource()
        buffer = CenoteMemoryResource(pinned).allocate(16, stream=stream)
        stream.sync()
        array = numpy.from_dlpack(buffer)
        array[:] = range(16)
        assert array.ctypes.data == int(buffer.handle)
        del buffer
        assert bytes(array.view("u1")) == bytes(range(16))
        del array
        device_buffer = cenote.DeviceBuffer.to_device(b"abc", stream=stream)
        view = StridedMemoryView.from_any_interface(device_buffer, stream_ptr=int(stream.handle))
        assert (view.ptr, view.shape, view.device_id) == (device_buffer.ptr, (3,), 0)
        copied = CenoteMemoryResource().allocate(3, stream=stream)
        same = StridedMemoryView.from_any_interface(copied, stream_ptr=int(stream.handle))
        assert same.ptr == int(copied.handle)
    """)


def test_resource_of_cuda_core_stands_under_those_of_cenote(run: RunFresh) -> None:
    run("""
        from cuda.core import DeviceMemoryResource

        class Counting(MemoryResource):
            device_id = 0
            is_device_accessible, is_host_accessible, is_managed = True, False, False

            def __init__(self):
                self.memory, self.live, self.streams = mr.CudaMemoryResource(), 0, []

            def allocate(self, size, *, stream):
                self.live += size
                self.streams.append(int(stream.handle))
                return Buffer.from_handle(self.memory.allocate(size, stream), size, mr=self, stream=stream)

            def deallocate(self, ptr, size, *, stream):
                self.live -= size
                self.streams.append(int(stream.handle))
                self.memory.deallocate(int(ptr), size, stream)

        theirs = Counting()
        resource = from_cuda_core(theirs)
        assert resource.device == 0
        first = resource.allocate(1000, stream)
        second = resource.allocate(1000)
        resource.deallocate(first, 1000, stream)
        resource.deallocate(second, 1000)
        assert theirs.live == 0 and theirs.streams == [int(stream.handle), 1] * 2
        pool = mr.PoolMemoryResource(resource, "1MiB", "1MiB")
        address = pool.allocate(1000, stream)
        assert theirs.live == 1 << 20
        pool.deallocate(address, 1000, stream)
        del pool
        assert theirs.live == 0

        other = from_cuda_core(DeviceMemoryResource(1))
        assert other.device == 1 and cenote.driver.current_device() == 0
        plain = from_cuda_core(DeviceMemoryResource(0))
        fails(MemoryError, lambda: plain.allocate(1 << 40, stream))
        counted = mr.StatisticsResourceAdaptor(plain)
        counted.deallocate(counted.allocate(1000, stream), 1000, stream)
        assert counted.allocation_counts.total_bytes == 1000
        round_trip = CenoteMemoryResource(counted).allocate(8, stream=stream)
        round_trip.close()
        assert counted.allocation_counts.current_bytes == 0
    """)


def test_wrong_arguments_are_named(run: RunFresh) -> None:
    run("""
        fails(TypeError, lambda: CenoteMemoryResource("cuda"), "not str")
        fails(ValueError, lambda: CenoteMemoryResource(mr.CudaMemoryResource(), device=0), "has its own")
        fails(IndexError, lambda: CenoteMemoryResource(device=2), "device 2")
        fails(TypeError, lambda: from_cuda_core(mr.CudaMemoryResource()), "CudaMemoryResource")
        assert "current resource" in repr(CenoteMemoryResource()) and "device 1" in repr(CenoteMemoryResource(device=1))
    """)


def test_other_calls_and_failures_are_those_of_the_methods_in_python(run: RunFresh) -> None:
    run("""
        import pickle
        ours = CenoteMemoryResource()
        same = pickle.loads(pickle.dumps(ours))
        assert same.device_id == ours.device_id == 0
        fails(TypeError, lambda: ours.allocate(stream=stream), "'size'")
        fails(TypeError, lambda: ours.allocate(1000), "'stream'")
        fails(TypeError, lambda: ours.allocate(1.5, stream=stream), "not float")
        fails(OverflowError, lambda: ours.allocate(-1, stream=stream))
        fails(MemoryError, lambda: ours.allocate(1 << 40, stream=stream), "1.00 TiB")
        for other in (ours.allocate(size=1000, stream=stream), ours.allocate(1000, stream=device.default_stream)):
            assert other.size == 1000 and cenote.usage()["cuda.core"].bytes >= 1000
            other.close()

        class Counting(CenoteMemoryResource):
            calls = 0

            def allocate(self, size, *, stream):
                self.calls += 1
                return super().allocate(size, stream=stream)

        device.memory_resource = counting = Counting()
        device.allocate(1000, stream=stream).close()
        assert counting.calls == 1 and cenote.usage()["cuda.core"].allocations == 0
        """)


def test_what_a_function_under_the_resource_raises_is_raised_once(run: RunFresh) -> None:
    run("""
        base, raised = mr.CudaMemoryResource(), []

        def allocate(size, stream):
            if raised:
                calls.append(size)
                raise raised[0]
            return base.allocate(size, stream)

        calls = []
        mr.set_current_device_resource(mr.CallbackMemoryResource(allocate, base.deallocate))
        device.memory_resource = CenoteMemoryResource()
        device.allocate(1000, stream=stream).close()
        for error in (KeyboardInterrupt(), ZeroDivisionError("text"), MemoryError("text")):
            raised[:], calls[:] = [error], []
            try:
                device.allocate(1000, stream=stream)
            except BaseException as caught:
                assert caught is error or caught.__cause__ is error, caught
            else:
                raise SystemExit("nothing was raised")
            assert len(set(calls)) == 1 and (len(calls) == 1 or isinstance(error, MemoryError)), calls
        raised.clear()
        assert cenote.usage()["cuda.core"].allocations == 0
        """)
