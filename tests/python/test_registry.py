"""The one table of current resources, and its clients."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import cenote
from cenote import mr, registry, sim
from cenote.registry import Client

MIB = 1024**2


def pool(device: int = 0) -> mr.DeviceMemoryResource:
    return mr.from_spec("pool:initial=0 | cuda", device)


@pytest.fixture
def libcenote() -> ctypes.CDLL:
    """The C ABI, from the library that the package ships."""
    library = ctypes.CDLL(str(Path(registry.__file__).parent / "lib" / "libcenote.so.1"))
    library.cenote_registry_address.restype = ctypes.c_void_p
    library.cenote_allocate.restype = ctypes.c_void_p
    library.cenote_allocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p]
    library.cenote_deallocate.restype = None
    library.cenote_deallocate.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.cenote_register_client.argtypes = [ctypes.c_char_p]
    library.cenote_set_device_resource.argtypes = [ctypes.c_int, ctypes.c_char_p]
    library.cenote_last_error.restype = ctypes.c_char_p
    return library


def test_setting_returns_the_previous_resource() -> None:
    first, second = pool(), pool()
    before = mr.set_current_device_resource(first)
    assert mr.set_current_device_resource(second) is first
    assert mr.set_per_device_resource(0, before) is second
    assert mr.get_current_device_resource() is before


def test_the_object_that_was_set_is_the_one_that_is_got() -> None:
    mine = pool()
    mr.set_current_device_resource(mine)
    assert mr.get_current_device_resource() is mine
    assert mr.get_per_device_resource(0) is mine
    assert cenote.DeviceBuffer(size=1).mr is mine


def test_resource_lives_on_in_the_registry_when_its_object_dies() -> None:
    mine = pool()
    mr.set_current_device_resource(mine)
    address = mine.allocate(1000)
    gone = weakref.ref(mine)
    del mine
    gc.collect()
    assert gone() is None
    again = mr.get_current_device_resource()
    assert type(again) is mr.PoolMemoryResource
    assert again.state().in_use == 1024
    again.deallocate(address, 1000)


def test_first_resource_of_each_device_is_cuda_and_stays_the_same() -> None:
    for device in (0, 1):
        assert mr.get_per_device_resource(device).specification == "cuda"
        assert mr.get_per_device_resource(device) is mr.get_per_device_resource(device)


def test_looking_for_a_resource_makes_none(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh("""
        from cenote import mr, registry
        assert registry.find_per_device_resource(1) is None
        first = mr.get_per_device_resource(1)
        assert registry.find_per_device_resource(1) is first
        assert registry.find_per_device_resource(0) is None
    """)


def test_devices_have_resources_of_their_own(on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    mine = pool(1)
    mr.set_per_device_resource(1, mine)
    assert mr.get_current_device_resource() is not mine
    with on_device(1):
        assert mr.get_current_device_resource() is mine
        other = pool(1)
        assert mr.set_current_device_resource(other) is mine
    assert mr.get_per_device_resource(1) is other


def test_resource_of_another_device_is_refused() -> None:
    before = mr.get_per_device_resource(0)
    with pytest.raises(ValueError, match="resource of device 1 cannot serve device 0"):
        mr.set_per_device_resource(0, pool(1))
    assert mr.get_per_device_resource(0) is before


@pytest.mark.parametrize("device", [-1, 2, 63, 64, 2**31 - 1, 2**31, 2**70, -(2**70)])
def test_device_that_is_not_there_is_an_index_error(device: int) -> None:
    with pytest.raises(IndexError, match=f"no device {device}"):
        mr.get_per_device_resource(device)
    with pytest.raises(IndexError, match=f"no device {device}"):
        mr.set_per_device_resource(device, pool())
    with pytest.raises(IndexError, match=f"no device {device}"):
        mr.reset_per_device_resource(device)


@pytest.mark.parametrize("device", [-1, 2, 63, 64, 2**31 - 1])
def test_client_cannot_allocate_on_a_device_that_is_not_there(device: int) -> None:
    with pytest.raises(IndexError, match=f"no device {device}"):
        Client("of no device").allocate(256, device=device)


@pytest.mark.parametrize("wrong", [None, "0", 0.0, object()])
def test_what_is_no_number_is_no_device(wrong: object) -> None:
    for function in (mr.get_per_device_resource, mr.reset_per_device_resource, registry.find_per_device_resource):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            function(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=type(wrong).__name__):
        mr.set_per_device_resource(wrong, pool())  # type: ignore[arg-type]


def test_setting_the_first_resource_makes_no_other_and_returns_none(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh(
        """
        from cenote import mr, registry
        assert registry.devices_with_resource() == []
        assert mr.set_current_device_resource(mr.CudaMemoryResource()) is None
        assert mr.set_per_device_resource(1, mr.from_spec("cuda", 1)) is None
        assert registry.devices_with_resource() == [0, 1]
        """,
        CENOTE_RESOURCE="pool:initial=1TiB",  # could not be made
    )


def test_reset_takes_the_resource_away_and_returns_it() -> None:
    mine = pool()
    mr.set_per_device_resource(0, mine)
    assert mr.reset_per_device_resource(0) is mine
    assert registry.find_per_device_resource(0) is None
    assert mr.reset_per_device_resource(0) is None
    assert mr.reset_current_device_resource() is None
    assert mr.get_current_device_resource().specification == "cuda"
    assert mr.reset_current_device_resource() is not None


def test_reset_is_for_one_device_or_for_all() -> None:
    mr.reset_per_device_resource(0)
    assert registry.devices_with_resource() == [1]
    mr.get_per_device_resource(0)
    mr.reset_all_device_resources()
    assert registry.devices_with_resource() == []


def test_reset_resource_lives_until_its_last_block_is_freed() -> None:
    held = sim.live().device_bytes
    mr.set_current_device_resource(mr.from_spec("pool:initial=4MiB | cuda"))
    buffer = cenote.DeviceBuffer(size=1000)
    mr.reset_all_device_resources()
    assert sim.live().device_bytes == held + 4 * MIB
    del buffer
    assert sim.live().device_bytes == held


@pytest.mark.parametrize("wrong", [None, "cuda", 1, object()])
def test_what_is_no_resource_cannot_be_current(wrong: object) -> None:
    with pytest.raises(TypeError, match=type(wrong).__name__):
        mr.set_current_device_resource(wrong)  # type: ignore[arg-type]


def test_buffers_are_freed_to_the_resource_that_made_them() -> None:
    old, new = mr.StatisticsResourceAdaptor(pool()), mr.StatisticsResourceAdaptor(pool())
    mr.set_current_device_resource(old)
    early = cenote.DeviceBuffer(size=1000)
    mr.set_current_device_resource(new)
    late = cenote.DeviceBuffer(size=500)
    assert (old.allocation_counts.current_bytes, new.allocation_counts.current_bytes) == (1000, 500)
    del early
    assert (old.allocation_counts.current_bytes, new.allocation_counts.current_bytes) == (0, 500)
    del late
    assert new.allocation_counts.current_bytes == 0


def test_replaced_resource_lives_until_its_last_block_is_freed() -> None:
    before = mr.get_per_device_resource(0)
    held = sim.live().device_bytes
    mr.set_current_device_resource(mr.from_spec("pool:initial=4MiB | cuda"))
    client = Client("a client that lets go late")
    address, buffer = client.allocate(1000), cenote.DeviceBuffer(size=1000)
    mr.set_current_device_resource(before)
    gc.collect()
    assert sim.live().device_bytes == held + 4 * MIB
    client.deallocate(address)
    assert sim.live().device_bytes == held + 4 * MIB
    del buffer
    assert sim.live().device_bytes == held


def test_usage_counts_for_each_client_apart() -> None:
    mr.set_current_device_resource(pool())
    one, two = Client("usage one"), Client("usage two")
    first, second = one.allocate(1000), one.allocate(24)
    other = two.allocate(5, device=1)
    assert registry.usage()["usage one"] == cenote.Usage(1024, 1024, 2, 2)
    assert registry.usage()["usage two"] == cenote.Usage(5, 5, 1, 1)
    one.deallocate(first)
    assert registry.usage()["usage one"] == cenote.Usage(24, 1024, 1, 2)
    one.deallocate(second)
    two.deallocate(other)
    assert registry.usage()["usage two"].bytes == registry.usage()["usage two"].allocations == 0


def test_same_name_is_the_same_client() -> None:
    address = Client("twice").allocate(100)
    Client("twice").deallocate(address)
    usage = registry.usage()["twice"]
    assert (usage.bytes, usage.peak_bytes, usage.total_allocations) == (0, 100, 1)


def test_zero_bytes_count_for_nobody() -> None:
    client = Client("of nothing")
    address = client.allocate(0)
    assert address == 0
    client.deallocate(address)
    assert registry.usage()["of nothing"] == cenote.Usage(0, 0, 0, 0)


def test_failed_allocation_counts_for_nobody() -> None:
    client = Client("of too much")
    with pytest.raises(cenote.OutOfMemoryError):
        client.allocate(2**44)
    assert registry.usage()["of too much"] == cenote.Usage(0, 0, 0, 0)


def test_unknown_pointer_and_second_free_are_ignored_and_reported_once(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    done = run_fresh("""
        from cenote import registry
        client = registry.Client("careless")
        address = client.allocate(256)
        client.deallocate(address)
        for _ in range(3):
            client.deallocate(address)
            client.deallocate(0x1234)
        assert registry.usage()["careless"] == registry.Usage(0, 256, 0, 1)
    """)
    assert done.stderr.count("it is ignored") == 1


def queued_copy(client: Client, made_on: cenote.Stream, used_on: cenote.Stream) -> tuple[int, cenote.DeviceBuffer]:
    """A block of 256 ones, and a buffer into which a copy of it is queued, and not yet run, on `used_on`."""
    address = client.allocate(256, made_on)
    ones = cenote.DeviceBuffer.to_device(b"\x01" * 256)

    class Block:
        def __init__(self) -> None:
            self.__cuda_array_interface__ = {"data": (address, False), "shape": (256,), "typestr": "|u1", "version": 3}

    target = cenote.DeviceBuffer(size=256, mr=mr.CudaMemoryResource())
    view = Block()
    fill(address, ones, made_on)
    made_on.synchronize()
    target.copy_from_device(view, used_on)
    return address, target


def fill(address: int, source: cenote.DeviceBuffer, stream: cenote.Stream) -> None:
    """Queue a copy of a buffer's bytes to an address, as a kernel of a framework would write there."""
    driver = ctypes.CDLL(str(sim._library.find_library()))
    assert (
        driver.cuMemcpyAsync(
            ctypes.c_void_p(address),
            ctypes.c_void_p(source.ptr),
            ctypes.c_size_t(source.size),
            ctypes.c_void_p(stream.handle),
        )
        == 0
    )


@pytest.mark.parametrize("how", ["record_stream", "share", "freed on the other stream"])
def test_block_that_another_stream_uses_is_not_reused_before_that_use(how: str) -> None:
    mr.set_current_device_resource(mr.from_spec("pool:initial=0,max=4MiB | cuda"))
    client = Client(how)
    first, second = (cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING) for _ in range(2))
    twos = cenote.DeviceBuffer.to_device(b"\x02" * 256)
    address, target = queued_copy(client, first, used_on=second)
    if how == "record_stream":
        client.record_stream(address, second)
    elif how == "share":
        client.share(address)
    client.deallocate(address, second if how == "freed on the other stream" else first)
    assert sim.pending() >= 1
    again = client.allocate(256, first)
    fill(again, twos, first)
    first.synchronize()
    assert target.tobytes(second) == b"\x01" * 256
    client.deallocate(again, first)


def test_without_a_word_of_the_other_stream_the_bytes_are_wrong() -> None:
    """The control of the test above: what it would see if a block were reused too early."""
    mr.set_current_device_resource(mr.from_spec("pool:initial=0,max=4MiB | cuda"))
    client = Client("silent")
    first, second = (cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING) for _ in range(2))
    twos = cenote.DeviceBuffer.to_device(b"\x02" * 256)
    address, target = queued_copy(client, first, used_on=second)
    client.deallocate(address, first)
    again = client.allocate(256, first)
    assert again == address
    fill(again, twos, first)
    first.synchronize()
    assert target.tobytes(second) == b"\x02" * 256
    client.deallocate(again, first)


def test_c_and_python_see_one_registry(libcenote: ctypes.CDLL) -> None:
    assert libcenote.cenote_registry_address() == registry.registry_address()


def test_c_sets_the_resource_that_python_gets(libcenote: ctypes.CDLL) -> None:
    assert libcenote.cenote_set_device_resource(1, b"statistics | pool:initial=1MiB") == 0
    assert mr.get_per_device_resource(1).specification == "statistics | pool:initial=1MiB | virtual"
    assert libcenote.cenote_set_device_resource(1, b"lake") < 0
    assert b"'lake' is not a known resource" in libcenote.cenote_last_error()


def test_c_allocates_from_the_resource_that_python_set(libcenote: ctypes.CDLL) -> None:
    counted = mr.StatisticsResourceAdaptor(pool())
    mr.set_current_device_resource(counted)
    client = libcenote.cenote_register_client(b"from C")
    address = libcenote.cenote_allocate(client, 0, 1000, None)
    assert counted.allocation_counts.current_bytes == registry.usage()["from C"].bytes == 1000
    Client("another").deallocate(address)
    assert counted.allocation_counts.current_bytes == registry.usage()["from C"].bytes == 0
    assert libcenote.cenote_allocate(client, 0, 2**44, None) is None
    assert b"out_of_memory" in libcenote.cenote_last_error()
