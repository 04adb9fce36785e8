"""DeviceBuffer and streams in the hands of PyTorch, CuPy, Numba and cuda.core, on a device."""

from __future__ import annotations

import pytest


def test_torch_and_cupy_see_by_dlpack_what_another_stream_wrote(run):
    """The writing stream spins first; who is not ordered after it reads too early."""
    run(
        """
        import cenote, cupy, torch
        nothing, sevens = (torch.full((1 << 20,), value, dtype=torch.uint8, device="cuda") for value in (0, 7))
        writes, reads = torch.cuda.Stream(), torch.cuda.Stream()
        reads_cupy = cupy.cuda.ExternalStream(reads.cuda_stream)
        buffer = cenote.DeviceBuffer(size=1 << 20, stream=writes)
        for trial in range(10):
            for library in ("torch", "cupy"):
                buffer.copy_from_device(nothing, writes)
                torch.cuda.synchronize()
                with torch.cuda.stream(writes):
                    torch.cuda._sleep(40_000_000)          # a kernel that spins about 20 ms
                buffer.copy_from_device(sevens, writes)
                if library == "torch":
                    with torch.cuda.stream(reads):
                        array = torch.from_dlpack(buffer)
                        assert array.data_ptr() == buffer.ptr and array.dtype == torch.uint8
                        right = bool((array == 7).all().item())      # waits for this stream only
                else:
                    with reads_cupy:
                        array = cupy.from_dlpack(buffer)
                        assert array.data.ptr == buffer.ptr and array.dtype == cupy.uint8
                        right = bool((array == 7).all().item())      # waits for this stream only
                assert right, (trial, library)
                try:
                    buffer.resize(10)
                except BufferError:
                    pass
                else:
                    raise SystemExit("the memory moved under an array")
                del array
        buffer.resize(10)
        """
    )


def test_memory_that_torch_uses_by_dlpack_is_reused_after_that_use(run):
    run(
        """
        import cenote, torch
        pool = cenote.mr.from_spec("pool:initial=8MiB,max=8MiB | cuda")
        sevens, nines = (torch.full((6 << 20,), value, dtype=torch.uint8, device="cuda") for value in (7, 9))
        own, side = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING), torch.cuda.Stream()
        torch.cuda.synchronize()
        for trial in range(10):
            buffer = cenote.DeviceBuffer(size=6 << 20, stream=own, mr=pool)
            buffer.copy_from_device(sevens, own)
            with torch.cuda.stream(side):
                tensor = torch.from_dlpack(buffer)
                torch.cuda._sleep(40_000_000)
                result = tensor.clone()
            del tensor, buffer
            other = cenote.DeviceBuffer(size=6 << 20, stream=own, mr=pool)
            other.copy_from_device(nines, own)
            torch.cuda.synchronize()
            assert bool((result == 7).all()), trial
            del other
        pool.check()
        """
    )


def test_a_buffer_on_the_per_thread_default_stream_is_ordered_on_every_thread(run):
    """Another thread reads, exports or drops what a thread's own stream has not written yet."""
    run(
        """
        import threading
        import cenote, cupy, torch
        own = cenote.stream.PER_THREAD_DEFAULT_STREAM
        pool = cenote.mr.from_spec("pool:initial=8MiB,max=8MiB | cuda")
        size = 6 << 20
        sevens, nines = (torch.full((size,), value, dtype=torch.uint8, device="cuda") for value in (7, 9))
        zeros = torch.zeros(size, dtype=torch.uint8, device="cuda")
        spin = cupy.RawKernel("extern \\"C\\" __global__ void spin() { long long b = clock64();"
                              " while (clock64() - b < 40000000) {} }", "spin")
        spin((1,), (1,), ())
        torch.cuda.synchronize()
        kept = []

        def write():
            cupy.cuda.Device(0).use()
            buffer = cenote.DeviceBuffer(size=size, stream=own, mr=pool)
            cenote.device_buffer.copy_device_to_ptr(zeros.data_ptr(), buffer.ptr, size, own)
            with cupy.cuda.Stream.ptds:
                spin((1,), (1,), ())
            cenote.device_buffer.copy_device_to_ptr(sevens.data_ptr(), buffer.ptr, size, own)
            kept.append(buffer)

        def written():
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
            return kept.pop()

        side = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
        for trial in range(10):
            assert written().tobytes(side) == b"\\x07" * size, (trial, "tobytes")
            with torch.cuda.stream(torch.cuda.ExternalStream(side.handle)):
                tensor = torch.from_dlpack(written())
                assert bool((tensor == 7).all().item()), (trial, "DLPack")
                del tensor
            torch.cuda.synchronize()
            buffer = written()
            del buffer                                     # dropped by this thread, whose own stream is idle
            other = cenote.DeviceBuffer(size=size, stream=own, mr=pool)
            cenote.device_buffer.copy_device_to_ptr(nines.data_ptr(), other.ptr, size, own)
            torch.cuda.synchronize()
            assert other.tobytes() == b"\\x09" * size, (trial, "dropped")
            del other
        pool.check()
        """
    )


def test_buffers_of_two_devices_are_ordered_and_lose_nothing(run):
    run(
        """
        import cenote, torch
        if torch.cuda.device_count() < 2:
            raise SystemExit(0)
        size = 6 << 20
        with torch.cuda.device(1):
            there = cenote.mr.from_spec("pool:initial=8MiB,max=8MiB | cuda")
            far, zeros, sevens = torch.cuda.Stream(), *(
                torch.full((size,), value, dtype=torch.uint8, device="cuda:1") for value in (0, 7))
        here = cenote.mr.from_spec("pool:initial=8MiB,max=8MiB | cuda")
        near = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
        nines = torch.full((size,), 9, dtype=torch.uint8, device="cuda:0")
        for trial in range(10):
            source = cenote.DeviceBuffer(size=size, stream=far, mr=there)
            source.copy_from_device(zeros, far)
            torch.cuda.synchronize(1)
            with torch.cuda.stream(far):
                torch.cuda._sleep(40_000_000)
            source.copy_from_device(sevens, far)
            target = cenote.DeviceBuffer(size=size, stream=near, mr=here)
            target.copy_from_device(source, near)
            assert target.tobytes(near) == b"\\x07" * size, trial
            with torch.cuda.stream(far):
                torch.cuda._sleep(40_000_000)
            target.copy_from_device(sevens, far)           # used last on the other device's stream
            del target                                     # and freed there
            again = cenote.DeviceBuffer(size=size, stream=near, mr=here)
            again.copy_from_device(nines, near)
            torch.cuda.synchronize(0)
            torch.cuda.synchronize(1)
            assert again.tobytes(near) == b"\\x09" * size, trial
            del again, source
        assert here.in_use() == 0 and there.in_use() == 0
        """
    )


@pytest.mark.parametrize("spec", ["managed", "pinned", "pool:initial=1MiB | pinned"])
def test_numpy_shares_memory_that_the_host_reaches(run, spec):
    run(
        f"""
        import cenote, numpy as np
        own = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
        source = cenote.DeviceBuffer.to_device(bytes(range(256)) * 1024)
        buffer = cenote.DeviceBuffer(size=source.size, stream=own, mr=cenote.mr.from_spec({spec!r}))
        for see in (np.asarray, np.from_dlpack, lambda b: np.from_dlpack(b, device="cpu", copy=False)):
            buffer.copy_from_device(source, own)
            array = see(buffer)
            assert array.ctypes.data == buffer.ptr
            assert (array.reshape(1024, 256) == np.arange(256)).all()
            array[:] = 0
            assert not any(buffer.tobytes(own))
            del array
        buffer.close()
        """
    )


def test_numpy_copies_memory_of_the_device(run):
    run(
        """
        import cenote, numpy as np
        buffer = cenote.DeviceBuffer.to_device(b"the water is the same")
        assert np.from_dlpack(buffer, device="cpu").tobytes() == b"the water is the same"
        for see, error in ((memoryview, BufferError), (np.asarray, TypeError)):
            try:
                see(buffer)
            except error as raised:
                assert "device 0" in str(raised), raised
            else:
                raise SystemExit("nothing was raised")
        """
    )


def test_the_cuda_array_interface_is_a_view_in_every_library(run):
    run(
        """
        import cenote, cupy, numpy as np, torch
        from numba import cuda
        own = cenote.Stream()
        buffer = cenote.DeviceBuffer(size=1000, stream=own)
        buffer.copy_from_host(bytes([7]) * 1000, own)
        own.synchronize()
        views = [torch.as_tensor(buffer, device="cuda"), cupy.asarray(buffer), cuda.as_cuda_array(buffer)]
        addresses = [views[0].data_ptr(), views[1].data.ptr, views[2].device_ctypes_pointer.value]
        assert addresses == [buffer.ptr] * 3, addresses
        views[1][:] = 9
        cupy.cuda.get_current_stream().synchronize()
        assert bool((views[0] == 9).all()) and (views[2].copy_to_host() == 9).all()
        for array in (*views, cupy.arange(1000, dtype="u1")):
            target = cenote.DeviceBuffer(size=1000)
            target.copy_from_device(array)
            assert target.tobytes() == bytes(cupy.asarray(array).get())
        """
    )


STREAMS = """
import cenote, cupy, torch
from cuda.core import Device
from cuda.core import Stream as CoreStream
from numba import cuda
device = Device()
device.set_current()
"""


def test_streams_of_every_library_are_streams(run):
    run(
        STREAMS
        + """
torch_stream, cupy_stream, core_stream, numba_stream = (
    torch.cuda.Stream(), cupy.cuda.Stream(), device.create_stream(), cuda.stream())
cases = [
    (torch_stream, torch_stream.cuda_stream),
    (torch.cuda.ExternalStream(torch_stream.cuda_stream), torch_stream.cuda_stream),
    (torch.cuda.default_stream(), 0),
    (cupy_stream, cupy_stream.ptr),
    (cupy.cuda.ExternalStream(cupy_stream.ptr), cupy_stream.ptr),
    (cupy.cuda.Stream.null, 0),
    (cupy.cuda.Stream.ptds, 2),
    (core_stream, int(core_stream.handle)),
    (device.default_stream, int(device.default_stream.handle)),
    (numba_stream, int(numba_stream)),
    (cuda.external_stream(torch_stream.cuda_stream), torch_stream.cuda_stream),
]
for theirs, handle in cases:
    ours = cenote.Stream(theirs)
    assert (ours.handle, ours.__cuda_stream__()) == (handle, (0, handle)), theirs
    assert ours.owner is theirs
    buffer = cenote.DeviceBuffer(size=3, stream=theirs)
    buffer.copy_from_host(b"abc", theirs)
    assert buffer.tobytes(theirs) == b"abc"
    ours.synchronize()
    assert ours.is_done()
"""
    )


def test_our_streams_are_streams_of_every_library(run):
    run(
        STREAMS
        + """
pool = cenote.CudaStreamPool(4, cenote.CudaStreamFlags.NON_BLOCKING)
for ours in (cenote.Stream(), pool.get_stream(), cenote.DEFAULT_STREAM):
    theirs = device.create_stream(ours)
    assert theirs.__cuda_stream__() == ours.__cuda_stream__()
    assert cenote.Stream(theirs) == ours
for ours in (cenote.Stream(), pool.get_stream()):
    assert cenote.Stream(CoreStream.from_handle(ours.handle)) == ours
    with torch.cuda.stream(torch.cuda.ExternalStream(ours.handle)):
        tensor = torch.arange(1000, device="cuda").sum()
    with cupy.cuda.ExternalStream(ours.handle):
        array = cupy.arange(1000).sum()
    ours.synchronize()
    assert ours.is_done() and int(tensor) == int(array) == 499500
"""
    )


@pytest.mark.parametrize("make", ["cupy.cuda.Stream()", "cuda.stream()", "torch.cuda.Stream()"])
def test_a_buffer_in_garbage_with_its_stream_is_freed_without_it(run, make):
    """The stream's finalizer comes first; the driver would crash on its handle."""
    run(
        f"""
        import gc
        import cenote, cupy, torch
        from numba import cuda
        gc.disable()
        resource = cenote.mr.from_spec("statistics | pool:initial=1MiB | cuda")
        for trial in range(20):
            stream = {make}
            cycle = {{"stream": stream, "buffer": cenote.DeviceBuffer(size=1000, stream=stream, mr=resource)}}
            cycle["cycle"] = cycle
            del stream, cycle
            gc.collect()
            assert resource.allocation_counts.current_bytes == 0
        resource.check()
        """
    )


def test_prefetch_moves_managed_memory(run):
    run(
        """
        import cenote
        from cuda.bindings import driver
        cenote.driver.set_device(0)                # for the questions that this test asks itself
        buffer = cenote.DeviceBuffer(size=1 << 21, mr=cenote.mr.ManagedMemoryResource())
        buffer.copy_from_host(bytes(1 << 21))
        last = driver.CUmem_range_attribute.CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION
        for device, place in ((None, 0), (-1, -1), (0, 0)):
            buffer.prefetch(device)
            buffer.stream.synchronize()
            error, location = driver.cuMemRangeGetAttribute(4, last, buffer.ptr, buffer.size)
            assert error == driver.CUresult.CUDA_SUCCESS, error
            assert location == place, (device, location)
        for spec in ("cuda", "async", "pinned"):
            cenote.DeviceBuffer(size=1000, mr=cenote.mr.from_spec(spec)).prefetch()
        """
    )
