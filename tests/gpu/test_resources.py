"""Each kind of resource on a device: memory that holds what was written to it."""

from __future__ import annotations

import pytest

SPECIFICATIONS = [
    "cuda",
    "async",
    "async:initial=1MiB,release_threshold=0",
    "pool:initial=1MiB,max=64MiB | cuda",
    "pool:initial=0 | async",
    "managed",
    "pool:initial=1MiB,max=4MiB | managed",
    "pinned",
    "pool:initial=1MiB,max=4MiB | pinned",
    "statistics | logging:file=FOLDER/log.csv | pool:initial=1MiB | cuda",
]


@pytest.mark.parametrize("specification", SPECIFICATIONS)
def test_memory_keeps_what_was_written_to_it(run, tmp_path, specification):
    run(
        f"""
        import os, cenote
        mr = cenote.mr.from_spec({specification.replace("FOLDER", str(tmp_path))!r})
        stream = cenote.Stream()
        for size in (1, 255, 256, 257, 1000, 100_000, 1_000_000):
            contents = os.urandom(size)
            buffer = cenote.DeviceBuffer(size=size, mr=mr, stream=stream)
            assert buffer.ptr % 256 == 0
            buffer.copy_from_host(contents, stream)
            assert buffer.tobytes(stream) == contents
            assert buffer.copy().tobytes() == contents
        mr.check()
        """
    )


def test_file_descriptor_handles_are_supported_or_refused_clearly(run):
    run(
        """
        import cenote
        for options in ({"enable_ipc": True}, {"enable_fabric": True}):
            try:
                assert cenote.mr.CudaAsyncMemoryResource(**options).pool_handle() != 0
            except RuntimeError as error:
                assert str(error).endswith("Requested IPC memory handle type not supported"), error
        """
    )


def test_any_frameworks_stream_is_accepted(run):
    run(
        """
        import cenote, cupy, torch
        from numba import cuda
        mr = cenote.mr.from_spec("pool:initial=1MiB | cuda")
        streams = [torch.cuda.Stream(), cupy.cuda.Stream(), cuda.stream(), cenote.Stream(), 0, 1, 2,
                   cupy.cuda.Stream(non_blocking=True), torch.cuda.current_stream()]
        for stream in streams:
            pointer = mr.allocate(1000, stream)
            mr.deallocate(pointer, 1000, stream)
        mr.check()
        """
    )


def test_threads_share_one_pool(run):
    run(
        """
        import threading, cenote, random
        pool = cenote.mr.from_spec("pool:initial=64MiB,max=512MiB | cuda")
        errors = []
        def work(seed):
            try:
                chosen, stream = random.Random(seed), cenote.Stream()
                live = []
                for _ in range(2000):
                    if live and chosen.random() < 0.5:
                        pointer, size = live.pop(chosen.randrange(len(live)))
                        pool.deallocate(pointer, size, stream)
                    else:
                        size = chosen.randrange(1, 1 << 18)
                        live.append((pool.allocate(size, stream), size))
                for pointer, size in live:
                    pool.deallocate(pointer, size, stream)
            except BaseException as error:
                errors.append(error)
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert not errors, errors
        assert pool.state().in_use == 0
        pool.check()
        """
    )


def test_every_user_of_the_process_sees_one_registry(run):
    run(
        """
        import ctypes, pathlib, cenote
        from cenote.registry import registry_address
        cenote.install("pool:initial=1MiB | cuda")
        library = ctypes.CDLL(str(pathlib.Path(cenote.__file__).parent / "lib" / "libcenote.so.1"))
        library.cenote_registry_address.restype = ctypes.c_void_p
        assert library.cenote_registry_address() == registry_address()
        """
    )


def test_a_forked_child_gets_a_plain_error(run):
    run(
        """
        import os, cenote
        buffer = cenote.DeviceBuffer(size=10)
        child = os.fork()
        if child == 0:
            try:
                cenote.DeviceBuffer(size=10)
            except cenote.DriverUnavailableError as error:
                os._exit(0 if "forked" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    )


def test_a_write_outside_of_a_block_is_found_by_a_guard(run):
    run(
        """
        import cenote, cupy
        cenote.install("statistics | guard | pool:initial=64MiB | cuda", frameworks=("cupy",))
        guard = cenote.mr.get_current_device_resource().upstream_mr
        stray = cupy.RawKernel('extern "C" __global__ void stray(char* p, long long i) { p[i] = 1; }', "stray")
        expected = 0
        for offset in (-1, -200, 1000, 1001, 1255):
            array = cupy.zeros(1000, dtype=cupy.uint8)
            stray((1,), (1,), (array, offset))
            (found,) = guard.find_overruns()
            assert f"1 byte was written outside of the block of 1000 bytes at {array.data.ptr:#x}" in found, found
            assert f"offset {offset}" in found, found
            expected += 1
            assert guard.overruns_found == expected
            del array
        array = cupy.zeros(1001, dtype=cupy.uint8)
        stray((1,), (1,), (array, 1001))
        del array                                        # the free waits for the kernel, and looks
        assert guard.overruns_found == expected + 1
        array = cupy.arange(1_000_000, dtype=cupy.float32)
        assert float((array * 2).sum()) > 0
        del array
        assert guard.find_overruns() == [] and guard.overruns_found == expected + 1
        """
    )


def test_budget_is_what_it_was_when_all_is_freed(run):
    """The driver says how large a freed block was: of every size it must be what was asked for."""
    run("""
        import cenote
        from cenote import mr
        cuda = mr.CudaMemoryResource()
        before = cenote.get_budget().held
        sizes = [1, 256, 1000, (1 << 20) + 5, (2 << 20) - 1, 64 << 20]
        blocks = [(cuda.allocate(size), size) for size in sizes]
        assert cenote.get_budget().held == before + sum(sizes)
        for (block, size), left in zip(blocks, (sum(sizes[i:]) for i in range(1, len(sizes) + 1))):
            cuda.deallocate(block, size + 1000)
            assert cenote.get_budget().held == before + left, (size, cenote.get_budget().held - before - left)
    """)
